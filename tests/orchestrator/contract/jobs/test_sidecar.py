"""The lines of a sidecar: read back as they were written, and compared without being parsed."""

import json
import os

import pytest

from modeling.inference.prediction import Prediction
from orchestrator.contract.errors import IntegrityError
from orchestrator.contract.jobs.rows import Row
from orchestrator.contract.jobs.sidecar import (
    SidecarLine,
    encode_lines,
    is_unchanged,
    line_start,
    read_listed,
)
from tests.support.manifests import read_sidecar

NAMES = ["a.jpg", "sub/line\nend.jpg", os.fsdecode(b"caf\xe9.jpg"), "e\u0301.jpg", 'quote".jpg', "\\xe9.jpg"]
CAT = Prediction(("cat",), (1.0,))


def lines_of(rows, as_read):
    return encode_lines(rows, as_read).splitlines(keepends=True)


def test_lines_are_read_back_as_they_were_written(tmp_path):
    as_read = [(number, 10**18 + number, "ab" * 32 if number % 2 else None) for number in range(len(NAMES))]
    rows = [Row(name, CAT) for name in NAMES]
    (tmp_path / "out.csv.sources").write_bytes(encode_lines(rows, as_read))

    found = list(read_sidecar(tmp_path / "out.csv.sources"))

    assert found == [SidecarLine(name, state, ()) for name, state in zip(NAMES, as_read, strict=True)]


def test_a_line_is_json_with_a_path_that_is_text_and_keys_that_it_needs():
    remarked = Prediction(("cat",), (1.0,), remarks=("frames",))
    rows = [Row(NAMES[2], CAT), Row("b.jpg", remarked), Row("gone.jpg", Prediction(error_code="missing", error="-"))]

    found = [json.loads(line) for line in lines_of(rows, [(7, 8, None), (9, 10, "ab"), None])]

    assert found == [
        {"path": "caf\\xe9.jpg", "size": 7, "mtime_ns": 8},
        {"path": "b.jpg", "size": 9, "mtime_ns": 10, "sha256": "ab", "remarks": ["frames"]},
        {"path": "gone.jpg", "size": None, "mtime_ns": None},
    ]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sha256", [None, "ab" * 32])
def test_an_image_is_unchanged_if_path_size_and_time_are_the_same(name, sha256):
    [line] = lines_of([Row(name, CAT)], [(12, 34, sha256)])

    assert is_unchanged(line, line_start(name, 12, 34))
    assert not any(
        is_unchanged(line, line_start(*other))
        for other in [(name, 12, 3), (name, 12, 345), (name, 1, 34), (name, 123, 34), (f"{name}x", 12, 34)]
    )


def test_an_image_that_could_not_be_read_counts_as_changed():
    [line] = lines_of([Row("a.jpg", CAT)], [None])

    assert not is_unchanged(line, line_start("a.jpg", 0, 0))


@pytest.mark.parametrize("text", ["", "[]", '{"path": "a"}', '{"path": 1, "size": 1, "mtime_ns": 2}', "[" * 5000])
def test_a_line_that_is_none_is_named_by_its_place(tmp_path, text):
    path = tmp_path / "out.csv.sources"
    path.write_text(f'{{"path": "a", "size": 1, "mtime_ns": 2}}\n{text}\n')

    with pytest.raises(IntegrityError, match=r"out\.csv\.sources, line 2 is not a line of a sidecar"):
        list(read_sidecar(path))


def test_paths_are_those_of_a_listing_whether_a_line_is_plain_or_not(tmp_path):
    remarked = Prediction(("cat",), (1.0,), remarks=("frames",))
    names = [*NAMES, "gone.jpg", "before.jpg", "digest.jpg", "frames.gif", "\x7f.jpg"]
    as_read = [(7, 8, None)] * len(NAMES) + [None, (0, -5, None), (9, 10, "ab" * 32), (7, 8, None), (1, 2, None)]
    rows = [Row(name, remarked if name.endswith(".gif") else CAT) for name in names]
    (tmp_path / "lines").write_bytes(encode_lines(rows, as_read))

    found = list(read_listed(tmp_path / "lines"))

    assert found == [(json.dumps(name), ("frames",) if name.endswith(".gif") else ()) for name in names]


@pytest.mark.parametrize(
    "line",
    [
        b'{"path": "a.jpg", "size": 07, "mtime_ns": 8}\n',
        b'{"path": "a.jpg", "size": null, "mtime_ns": 8, \n',
        b'{"path": "a.jpg", "size": 7, "mtime_ns": null}\n',
        b'{"path": "a\x01.jpg", "size": 7, "mtime_ns": 8}\n',
        b'{"path": "a\xff.jpg", "size": 7, "mtime_ns": 8}\n',
    ],
)
def test_no_damaged_line_is_plain(line, tmp_path):
    (tmp_path / "lines").write_bytes(line)

    with pytest.raises(IntegrityError, match="line 1 is not a line of a sidecar"):
        list(read_listed(tmp_path / "lines"))
