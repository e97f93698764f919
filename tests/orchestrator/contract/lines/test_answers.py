import pytest

from orchestrator.contract.errors import MessageError
from orchestrator.contract.lines import answers as module
from orchestrator.contract.lines.answers import Answer, decode_record, encode_facts

RECORD = (
    '{"key":"2/a\\/b","bin": "7", "reason": null, "cause": null,"digest":"ab","admitted_ms":5,"answered_ms":9,'
    + encode_facts(label="x", score=1, scores=[["x", 1], ["y", 0.0]], decision="accept", stage_ms={"queue": 1.5})
    + "}"
)


def test_a_record_of_the_scripts_is_an_answer():
    assert decode_record(RECORD) == Answer(
        "a/b", 2, "7", label="x", score=1, scores=(("x", 1), ("y", 0.0)), decision="accept",
        stage_ms={"queue": 1.5}, admitted_ms=5, answered_ms=9,
    )  # fmt: skip


def test_a_record_that_is_read_fast_is_what_validation_makes_of_it(monkeypatch):
    fast = decode_record(RECORD, ms=1)
    monkeypatch.setattr(module, "_is_plain", lambda facts: False)

    assert repr(fast) == repr(decode_record(RECORD, ms=1))


def test_facts_can_be_sent_whatever_bytes_a_name_holds():
    facts = encode_facts(error="é \udcff \ud800", label="a")

    assert facts.encode() == '"error": "é \\\\udcff \\\\ud800", "label": "a"'.encode()
    assert decode_record('{"key":"1/a","bin":"7",' + facts + "}").error == "é \\udcff \\ud800"


def test_a_client_sets_fields_of_its_own():
    answer = decode_record(RECORD.encode(), ms=12.5, reason="conflict")

    assert (answer.ms, answer.reason, answer.bin) == (12.5, "conflict", "7")


@pytest.mark.parametrize(
    "record",
    [
        b"", b"[]", b"{}", b'{"key": 1}', b'{"key": "1/a"}', b'{"key": "1/a", "bin": 3}',
        b'{"key": "1/a", "bin": "3", "more": 1}', b'{"key": "1/a", "bin": "3", "scores": 3}',
        b'{"key": "1/a", "bin": "3", "scores": [["a"]]}', b'{"key": "1/a", "bin": "3", "score": NaN}',
        b'{"key": "1/a", "bin": "3", "stage_ms": {"queue": "1"}}', b'{"key": "1/a", "bin": "3", "admitted_ms": -1}',
        b'{"key": "1/a", "bin": "3", "map_version": true}', b'{"key": "1/a", "bin": "3", "score": Infinity}',
        b'{"key": "no number", "bin": "3"}', b'{"key": "1/a", "bin": "3", "decision": "perhaps"}',
    ],
)  # fmt: skip
def test_any_other_record_is_a_message_error(record):
    with pytest.raises(MessageError, match="record of an answer"):
        decode_record(record)
