"""The command line of `benchmarks.lines`, and its table."""

import pytest

from benchmarks.lines.__main__ import MILLION, PARTS, parse
from benchmarks.lines.bench import Row


def test_all_parts_but_the_long_one_are_measured_by_default():
    assert parse([]).parts == list(PARTS)
    assert parse([MILLION, "idle"]).parts == [MILLION, "idle"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["idle", "fast"], "unknown parts fast; choose of idle, saturated"),
        (["--repeats", "0"], "must be positive"),
        (["--seconds", "-1"], "must be positive"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments, expected, capsys):
    with pytest.raises(SystemExit):
        parse(arguments)

    assert expected in capsys.readouterr().err


def test_every_part_says_what_it_measures():
    assert [name for name, part in PARTS.items() if not part.__doc__] == []


def test_a_row_tells_whether_it_is_as_required():
    assert Row("idle", "at most 5 ms", "4 ms", met=True).line() == "| idle | at most 5 ms | 4 ms | yes |"
    assert Row("idle", "at most 5 ms", "9 ms", met=False).line() == "| idle | at most 5 ms | 9 ms | NO |"
    assert Row("cpu", "stated", "9 µs").line() == "| cpu | stated | 9 µs |  |"
