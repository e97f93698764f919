import contextlib
import errno
import hashlib
import os
import time
from dataclasses import replace

import pytest

from modeling.inference.prediction import Prediction
from orchestrator.contract.errors import IntegrityError
from orchestrator.contract.jobs.parts import PartTrailer, open_part, part_path, read_trailer, write_part
from orchestrator.contract.jobs.rows import FORMATS, Row
from orchestrator.contract.jobs.sidecar import encode_lines
from orchestrator.contract.release import own_release
from tests.support.stopping import failing_at, stopped_at

CAT = Row("a.jpg", Prediction(("cat", "dog"), (0.75, 0.25)))
DOG = Row("b.jpg", Prediction(("dog",), (0.5,)))
FAILED = Row("c.jpg", Prediction(error_code="empty", error="the file is empty (0 bytes)"))


def write(parts, rows, *, shard=7, row_format="csv", worker="w1", given_up=False, as_read=None):
    write_part(
        parts, shard, rows, as_read or [None] * len(rows), row_format=row_format, seconds={"predict": 0.123456},
        worker=worker, engine="openvino bf16", given_up=given_up,
    )  # fmt: skip
    return part_path(parts, shard)


def test_a_trailer_counts_what_was_remarked_about_images(tmp_path):
    remarked = replace(CAT.prediction, remarks=("frames", "uncertain_depth"))
    write(tmp_path, [CAT, replace(CAT, prediction=remarked), FAILED, replace(DOG, prediction=remarked)])

    assert read_trailer(tmp_path, 7).remarks == {"frames": 2, "uncertain_depth": 2}


@pytest.mark.parametrize("row_format", FORMATS)
def test_a_part_holds_the_lines_of_the_sidecar_behind_its_rows(row_format, tmp_path):
    as_read = [(10, 20, None), None]
    write(tmp_path, [CAT, FAILED], row_format=row_format, as_read=as_read)

    file, trailer = open_part(tmp_path, 7)

    with file:
        file.seek(trailer.rows_bytes + 1)
        lines = file.read(trailer.sidecar_bytes)
    assert lines == encode_lines([CAT, FAILED], as_read)
    assert trailer.sidecar_sha256 == hashlib.sha256(lines).hexdigest()


def test_a_trailer_counts_rows_by_decision(tmp_path):
    decisions = ["accept", "review", "accept", "reject"]
    write(tmp_path, [Row(f"{at}.jpg", replace(CAT.prediction, decision=each)) for at, each in enumerate(decisions)])

    assert read_trailer(tmp_path, 7).decisions == {"accept": 2, "review": 1, "reject": 1}


@pytest.mark.parametrize("row_format", FORMATS)
def test_a_part_holds_its_rows_and_a_trailer_that_counts_them(row_format, tmp_path):
    write(tmp_path, [CAT, DOG, CAT, FAILED], row_format=row_format)

    file, trailer = open_part(tmp_path, 7)

    with file:
        rows = file.read(trailer.rows_bytes)
    assert rows == FORMATS[row_format].encode([CAT, DOG, CAT, FAILED])
    assert trailer == PartTrailer(
        shard=7,
        num_rows=4,
        num_failed=1,
        labels={"cat": 2, "dog": 1},
        errors={"empty": 1},
        decisions={},
        rows_bytes=len(rows),
        rows_sha256=trailer.rows_sha256,
        sidecar_bytes=trailer.sidecar_bytes,
        sidecar_sha256=trailer.sidecar_sha256,
        seconds={"predict": 0.1235, "write": trailer.seconds["write"]},
        worker="w1",
        engine="openvino bf16",
        release=own_release().version,
    )
    assert [path.name for path in tmp_path.iterdir()] == ["00000007.part"]


def test_a_trailer_has_the_time_that_its_own_rows_took_to_write_and_follows_once_they_are_on_the_disk(
    tmp_path, monkeypatch
):
    on_disk = []
    now_s = 100.0

    def slow_sync(descriptor: int) -> None:
        nonlocal now_s
        now_s += 2.5
        on_disk.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fsync", slow_sync)
    monkeypatch.setattr(time, "perf_counter", lambda: now_s)

    path = write(tmp_path, [CAT, FAILED])

    trailer = read_trailer(tmp_path, 7)
    assert trailer.seconds == {"predict": 0.1235, "write": 2.5}
    assert on_disk[:2] == [trailer.rows_bytes + 1 + trailer.sidecar_bytes, path.stat().st_size]


def test_the_first_writer_of_a_part_wins(tmp_path):
    path = write(tmp_path, [CAT], worker="first")
    before = path.read_bytes()

    write(tmp_path, [DOG, FAILED], worker="second")

    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_part_has_no_trailer(tmp_path):
    assert read_trailer(tmp_path, 7) is None

    with pytest.raises(IntegrityError, match="is missing"):
        open_part(tmp_path, 7)


@pytest.mark.parametrize("row_format", FORMATS)
def test_a_part_cut_off_anywhere_is_detected(row_format, tmp_path):
    path = write(tmp_path, [CAT, FAILED], row_format=row_format)
    whole = path.read_bytes()

    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(IntegrityError, match=r"00000007\.part"):
            read_trailer(tmp_path, 7)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"version":1', b'"version":2'),
        (b'"shard":7', b'"shard":8'),
        (b'"num_rows"', b'"mum_rows"'),
        (b"}", b"\xff"),
        (b'"cat":1', b'"cat":3'),
        (b'"cat":1', b'"bat":1'),
        (b'"num_failed":0', b'"num_failed":1'),
    ],
)
def test_a_part_with_a_damaged_trailer_is_detected(old, new, tmp_path):
    path = write(tmp_path, [CAT])
    path.write_bytes(path.read_bytes().replace(old, new))

    with pytest.raises(IntegrityError, match=r"00000007\.part"):
        read_trailer(tmp_path, 7)


def test_a_part_with_inserted_bytes_is_detected(tmp_path):
    path = write(tmp_path, [CAT])
    path.write_bytes(b"a row too many\n" + path.read_bytes())

    with pytest.raises(IntegrityError, match="is not the whole part of shard 7"):
        read_trailer(tmp_path, 7)


def test_the_part_of_another_shard_is_detected(tmp_path):
    write(tmp_path, [CAT]).rename(part_path(tmp_path, 8))

    with pytest.raises(IntegrityError, match="is not the whole part of shard 8"):
        read_trailer(tmp_path, 8)


def test_a_trailer_of_a_model_with_many_long_labels_is_read_back(tmp_path):
    labels = [f"a rather long label, number {number}" for number in range(20_000)]
    write(tmp_path, [Row(f"{label}.jpg", Prediction((label,), (1.0,))) for label in labels])

    trailer = read_trailer(tmp_path, 7)

    assert trailer is not None
    assert trailer.labels == dict.fromkeys(labels, 1)


def test_the_trailer_of_a_given_up_shard_has_given_up(tmp_path):
    write(tmp_path, [FAILED], given_up=True)

    trailer = read_trailer(tmp_path, 7)

    assert (trailer.given_up, trailer.num_failed, trailer.labels) == (True, 1, {})


def test_a_part_whose_writing_fails_at_any_change_to_the_disk_is_whole_or_not_there_and_is_written_again(tmp_path):
    rows = [CAT, DOG, FAILED]
    (tmp_path / "whole").mkdir()
    with stopped_at(None) as counted:
        whole = write(tmp_path / "whole", rows).read_bytes().split(b"\n")[:3]

    for at in range(counted.num_steps):
        (parts := tmp_path / str(at)).mkdir()
        with failing_at(at, errno.ENOSPC), contextlib.suppress(OSError):
            write(parts, rows)

        assert read_trailer(parts, 7) is None or read_trailer(parts, 7).num_rows == 3
        write(parts, rows)
        assert part_path(parts, 7).read_bytes().split(b"\n")[:3] == whole
        assert {path.name for path in parts.iterdir() if not path.name.startswith(".")} == {part_path(parts, 7).name}
