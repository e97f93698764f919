"""Telegrams as JSON lines and as fixed fields."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.contract.errors import NotFoundError, UsageError
from orchestrator.telegrams.field_form import FieldForm
from orchestrator.telegrams.json_form import JsonForm
from orchestrator.telegrams.messages import Telegram, TelegramError

SORTER = """
framing = "stx-etx"
seq = 4

[telegrams]
hello = { code = "HELO", fields = [["controller", 8]] }
item = { code = "ITEM", fields = [["item", 8], ["pass", 2], ["bytes", 7], ["path", 20]] }
answer = { code = "DEST", fields = [["item", 8], ["pass", 2], ["bin", 3], ["reason", 2], ["label", 6], ["score", 4]] }
discharged = { code = "DISC", fields = [["item", 8], ["pass", 2], ["bin", 3]] }
ack = { code = "ACKN" }
nak = { code = "NACK", fields = [["error", 20]] }
alive = { code = "LIFE" }

[codes.bin]
manual = "099"

[codes.reason]
"" = "00"
late = "10"
"""


@pytest.fixture
def fields(tmp_path):
    (tmp_path / "sorter.toml").write_text(SORTER)
    return FieldForm.read(tmp_path / "sorter.toml")


def test_json_telegrams_are_read_and_written():
    form = JsonForm()
    telegram = Telegram("item", 7, {"item": "4711", "pass": 2, "bytes": 60123, "deadline_ms": 800})

    assert form.decode(form.encode(telegram)) == telegram
    assert form.encode(Telegram("ack", 7)) == b'{"type":"ack","seq":7}\n'
    assert form.encode(Telegram("alive")) == b'{"type":"alive"}\n'


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 5000, "not JSON"),
        (b"[]", "a JSON object"),
        (b'{"type":"order"}', "unknown type 'order'"),
        (b'{"type":["item"]}', "unknown type"),
        (b'{"type":"item","seq":-1}', "seq is a number"),
        (b'{"type":"item","seq":true}', "seq is a number"),
        (b'{"type":"item","seq":1e400}', "seq is a number"),
        (b'{"type":"item","bytes":1}', "item lacks item"),
        (b'{"type":"item","item":"1"}', "either bytes or a path"),
        (b'{"type":"item","item":"1","bytes":1,"path":"/a"}', "either bytes or a path"),
        (b'{"type":"item","item":"1","bytes":-1}', "bytes is a whole number"),
        (b'{"type":"item","item":"1","bytes":1.5}', "bytes is a whole number"),
        (b'{"type":"item","item":1,"bytes":1}', "item is text"),
        (b'{"type":"item","item":"","bytes":1}', "item is text"),
        (b'{"type":"ack","item":"1"}', "ack has no field 'item'"),
        (b'{"type":"discharged","item":"1"}', "lacks bin"),
    ],
)
def test_what_is_no_telegram_is_told(content, why):
    with pytest.raises(TelegramError, match=why):
        JsonForm().decode(content)


@given(st.binary(max_size=200))
def test_rubbish_is_a_telegram_or_an_error(content):
    form = JsonForm()
    try:
        telegram = form.decode(content)
    except TelegramError:
        return  # any other error would end the connection's task
    assert form.decode(form.encode(telegram)).kind == telegram.kind


def test_fixed_fields_are_written_as_the_file_says(fields):
    answer = Telegram("answer", 7, {"item": "4711", "pass": 1, "bin": "manual", "reason": "late", "score": 0.91})

    assert fields.encode(answer) == b"\x02DEST00074711    0109910      0.91\x03"
    assert fields.encode(Telegram("ack", 12)) == b"\x02ACKN0012\x03"


def test_labels_are_cut_and_what_is_no_ascii_is_replaced(fields):
    written = fields.encode(Telegram("answer", 1, {"item": "1", "bin": "3", "label": "größer als"}))

    assert written == b"\x02DEST00011       003  00gr??er    \x03"


def test_fixed_fields_are_read(fields):
    item = fields.decode(b"ITEM00424711    02  60123" + b" " * 20)
    path = fields.decode(b"ITEM00434712    010000000/share/a b.jpg      ")

    assert item == Telegram("item", 42, {"item": "4711", "pass": 2, "bytes": 60123})
    assert path == Telegram("item", 43, {"item": "4712", "pass": 1, "path": "/share/a b.jpg"})
    assert fields.decode(b"DISC00444711    01099") == Telegram(
        "discharged", 44, {"item": "4711", "pass": 1, "bin": "manual"}
    )


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "unknown code"),
        (b"ACKN00", "has 8 characters"),
        (b"ACKN00010", "has 8 characters"),
        (b"ACKN00x1", "seq is a number"),
        (b"WHAT0001", "unknown code 'WHAT'"),
        (b"ACKN\x000001", "printable ASCII"),
        (b"ACKN000\xff", "printable ASCII"),
        (b"ITEM0042        0200601230" + b" " * 19, "lacks item|characters|number"),
    ],
)
def test_fields_that_do_not_fit_are_told(fields, content, why):
    with pytest.raises(TelegramError, match=why):
        fields.decode(content)


@pytest.mark.parametrize("values", [{"item": "123456789", "bin": "3"}, {"item": "1", "bin": "1234"},
                                    {"item": "ü", "bin": "3"}, {"item": "1", "bin": "3", "pass": 100}])  # fmt: skip
def test_an_items_and_a_bins_name_is_never_cut(fields, values):
    with pytest.raises(TelegramError):
        fields.encode(Telegram("answer", 1, values))


def test_a_bin_that_no_answer_can_name_is_refused_at_the_start(fields):
    fields.check_bins(["manual", "3"])

    with pytest.raises(UsageError, match="bin 'table' does not fit into 3 characters"):
        fields.check_bins(["manual", "table"])


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ('ack = { code = "ACKN" }', "", "telegrams.ack is missing"),
        ('ack = { code = "ACKN" }', 'ack = { code = "ITEM" }', "codes must differ"),
        ('ack = { code = "ACKN" }', 'ack = { code = "ACK" }', "of one length"),
        ('["bin", 3], ["reason"', '["reason"', "telegrams.answer lacks the field 'bin'"),
        ('["bytes", 7], ["path", 20]', '["age_ms", 4]', "needs the field bytes or path"),
        ('["error", 20]', '["label", 20]', "'label' is none of error"),
        ("seq = 4", "seq = 0", "seq"),
        ("seq = 4", "seq = 4\nother = 1", "other: the key is unknown"),
        ('"stx-etx"', '"soh"', "framing"),
        ('manual = "099"', 'manual = "0999"', "wider than its field"),
        ('late = "10"', 'late = "00"', "two values have one code"),
        ('["error", 20]', '["error", 0]', "telegrams.nak"),
    ],
)
def test_a_file_that_cannot_work_is_refused(tmp_path, before, after, why):
    assert before in SORTER
    (tmp_path / "bad.toml").write_text(SORTER.replace(before, after, 1))

    with pytest.raises(UsageError, match=why):
        FieldForm.read(tmp_path / "bad.toml")


def test_a_file_that_is_missing_or_no_toml_is_told(tmp_path):
    (tmp_path / "bad.toml").write_text("[[")

    with pytest.raises(NotFoundError, match="there is no file"):
        FieldForm.read(tmp_path / "none.toml")
    with pytest.raises(UsageError, match="is not TOML"):
        FieldForm.read(tmp_path / "bad.toml")


def test_an_answer_of_json_has_only_what_is_known():
    written = JsonForm().encode(Telegram("answer", 3, {"item": "1", "pass": 1, "bin": "F", "reason": "late"}))

    assert json.loads(written) == {"type": "answer", "seq": 3, "item": "1", "pass": 1, "bin": "F", "reason": "late"}
