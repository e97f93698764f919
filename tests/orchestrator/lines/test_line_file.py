"""The TOML file of a line."""

import os
import re
from pathlib import Path

import pytest

from orchestrator.contract.errors import NotFoundError, UsageError
from orchestrator.contract.lines.settings import LineSettings
from orchestrator.lines.line_file import checked_settings, read_line_file

WHOLE = """
name = "birds"
model = "birds@champion"
deadline = "300ms"
fallback = "reject"
review = "hand"
degraded = "small@champion"
max_requests = 50
max_bytes = "64MB"
max_image_bytes = 1000000
keep = "2d"
keep_images = "12h"
keep_images_bytes = "0"
keep_share = "5%"
roots = ["/data"]
server = "redis://queue:6379/1"

[bins]
owl = ["1", "2"]
"a = b" = "3,4"
wren = "5"
"""


def test_a_file_can_hold_a_whole_line(tmp_path):
    (tmp_path / "line.toml").write_text(WHOLE)

    settings = LineSettings.from_json(read_line_file(tmp_path / "line.toml"))

    assert settings == LineSettings(
        name="birds",
        model="birds@champion",
        fallback="reject",
        review="hand",
        deadline_ms=300,
        bins={"owl": ("1", "2"), "a = b": ("3", "4"), "wren": ("5",)},
        degraded="small@champion",
        max_requests=50,
        max_bytes=64_000_000,
        max_image_bytes=1_000_000,
        keep_s=172_800,
        keep_images_s=43_200,
        keep_images_bytes=0,
        keep_share=0.05,
        roots=("/data",),
        server="redis://queue:6379/1",
    )


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('deadlin = "5s"', "there is no key 'deadlin'; did you mean 'deadline'?"),
        ("deadline_ms = 500", "there is no key 'deadline_ms'; did you mean 'deadline'?"),
        ("xyzzy = 1", "there is no key 'xyzzy'; there are name, model, "),
        ("deadline = 500", 'deadline: write a text such as "500ms", not 500'),
        ('deadline = "fast"', "deadline: 'fast' is not a duration"),
        ("max_bytes = true", 'max_bytes: write a text such as "256MB", not True'),
        ('max_bytes = "much"', "max_bytes: 'much' is not a size"),
        ('keep_share = "120%"', "keep_share: '120%' is not a share from 0 to 1, such as 1% or 0.01"),
        ('bins = "owl=3"', "bins: write a table such as [bins]"),
        ("[bins]\nowl = 3", 'bins: \'owl\': write a list of bins such as ["3", "4"], not 3'),
        ("name = ", "is not TOML: "),
        ("name = 'x'\nname = 'y'", "is not TOML: "),
        ("\xff", "is not TOML: "),
        ("model = " + 5000 * "[", "is not TOML: "),
    ],
)
def test_a_mistake_in_a_file_is_told_with_the_key_and_the_value(tmp_path, content, told):
    (tmp_path / "line.toml").write_bytes(content.encode("latin-1"))

    with pytest.raises(UsageError, match=re.escape(told)) as error:
        LineSettings.from_json(read_line_file(tmp_path / "line.toml"))

    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"deadline_ms": 0}, "deadline_ms: Input should be greater than or equal to 1, not 0"),
        ({"deadline_ms": 3_600_001}, "deadline_ms: Input should be less than or equal to 3600000"),
        ({"keep_s": 10**18}, "keep_s: Input should be less than or equal to"),
        ({"max_requests": 0}, "max_requests: Input should be greater than or equal to 1, not 0"),
        ({"keep_share": 1.5}, "keep_share: Input should be less than or equal to 1"),
        ({"fallback": ""}, "a bin's name is 1 to 100 printable bytes of text, not ''"),
        ({"fallback": "a,b"}, "a bin's name holds no comma and no equals sign: 'a,b'"),
        ({"bins": {"owl": ["\x1b"]}}, "a bin's name is 1 to 100 printable bytes"),
        ({"bins": {"owl": []}}, "the bins of a label must be different, and at least one: []"),
        ({"bins": {"owl": ["1", "1"]}}, "the bins of a label must be different, and at least one: ['1', '1']"),
        ({"name": "../x"}, "line name '../x' is not valid: use 1 to 64 of a-z 0-9"),
        ({"roots": ["data"]}, "roots: folders must be absolute, not ['data']"),
        ({"server": "http://:hush@queue"}, "must start with one of redis://, rediss://, unix://"),
        ({"model": None}, "model: "),
        ({"sped": 1}, "sped: the key is unknown"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(values, told):
    good = {"name": "birds", "model": "birds", "fallback": "f", "review": "r"}

    with pytest.raises(UsageError, match=re.escape(told)) as error:
        LineSettings.from_json(good | values)

    assert "hush" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"deadline_ms": 0}, "line 'birds': deadline (ms): Input should be greater than or equal to 1, not 0"),
        ({"keep_s": 1}, "line 'birds': keep (s): Input should be greater than or equal to 60, not 1"),
        ({"keep_images_s": -1}, "line 'birds': keep_images (s): Input should be greater than or equal to 0, not -1"),
        ({"keep_share": 2}, "line 'birds': keep_share: Input should be less than or equal to 1, not 2"),
    ],
)
def test_an_operator_is_told_the_key_as_it_is_written(values, told):
    good = {"name": "birds", "model": "birds", "fallback": "f", "review": "r"}

    with pytest.raises(UsageError, match=re.escape(told)):
        checked_settings(good | values, "line 'birds'")


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "line.toml").write_text('name = "birds"', encoding="utf-8-sig")

    assert read_line_file(tmp_path / "line.toml") == {"name": "birds"}


def test_a_file_that_is_none_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "long.toml").write_bytes(b"#" * (1 << 20) + b"\n")

    with pytest.raises(NotFoundError, match="there is no file"):
        read_line_file(tmp_path / "line.toml")
    with pytest.raises(UsageError, match="is not a regular file"):
        read_line_file(tmp_path / "pipe")
    with pytest.raises(UsageError, match="has more than 1048576 bytes"):
        read_line_file(tmp_path / "long.toml")
    with pytest.raises(UsageError, match="the file of a line '/' is not a regular file"):
        read_line_file(Path("/"))
