import json
import logging

import pytest

from orchestrator.contract.shown import SafeFormatter, printable, printable_json, without_logins


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("Übergröße 中文 😀 👩‍🚀", "Übergröße 中文 😀 👩‍🚀"),
        ("a\x1b[31mb", r"a\x1b[31mb"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x9b31m\x7f", r"\x9b31m\x7f"),
        ("gnp.\u202egpj", r"gnp.\u202egpj"),
        ("\u2066a\u2069\u200f\u2028", r"\u2066a\u2069\u200f\u2028"),
        ("caf\udce9", r"caf\xe9"),
        ("\ud800", r"\ud800"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_no_terminal_obeys_what_is_printed(text, shown):
    assert printable(text) == shown


def test_json_is_the_same_data_with_the_characters_escaped():
    value = {"a\u202e": ["\x1b[31m", "\x9b", "\udce9", "\n", "ü", "\U000e0041"]}

    document = printable_json(json.dumps(value, ensure_ascii=False, indent=2))

    assert json.loads(document) == value
    assert printable(document.replace("\n", "")) == document.replace("\n", "")
    assert '"ü"' in document


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot connect to redis://:s3@cret@h:1: refused", "cannot connect to redis://***@h:1: refused"),
        ("URL 'rediss://ada:s3/c?r#et@h' and redis://h", "URL 'rediss://***@h' and redis://h"),
        ("ada@example.org", "ada@example.org"),
    ],
)
def test_a_text_is_shown_without_the_logins_in_it(text, shown):
    assert without_logins(text) == shown


def test_a_log_line_and_its_traceback_hold_neither_logins_nor_escapes():
    try:
        raise ConnectionError("redis://:s3cret@h\x1b[31m")
    except ConnectionError as err:
        record = logging.LogRecord("any", logging.ERROR, "", 1, "at %s", ("redis://s3cret@h",), (type(err), err, None))

    first, *rest = SafeFormatter("%(message)s").format(record).splitlines()

    assert first == "at redis://***@h"
    assert rest[-1] == r"ConnectionError: redis://***@h\x1b[31m"
