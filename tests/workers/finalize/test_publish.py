import hashlib
import json
import os
import tempfile
from collections import Counter
from pathlib import Path

import pytest

from modeling.names import text_to_path
from orchestrator.contract.errors import IntegrityError
from orchestrator.contract.jobs.listing import read_facts, read_shard
from orchestrator.contract.jobs.parts import part_path, read_trailer, write_part
from orchestrator.contract.jobs.rows import FORMATS, summary_path
from orchestrator.contract.jobs.sidecar import sidecar_path
from orchestrator.contract.ledger.record import JobRecord
from tests.support.fakes import (
    PIN,
    FakeFinalizeLease,
    dies_at_step,
    fake_as_read,
    fake_rows,
    make_job,
    write_fake_parts,
)
from tests.support.manifests import read_sidecar
from workers.finalize.errors import PublishError
from workers.finalize.join import BadPartError, Totals
from workers.finalize.lease import FinalizeLeaseLostError
from workers.finalize.publish import publish_manifest

PUBLISHED = ["out.csv", "out.csv.sources", "out.csv.summary.json"]
NAMES = [f"{number}.jpg" for number in range(8)] + ["line\nend.jpg", os.fsdecode(b"caf\xe9.jpg"), "=1.jpg"]


@pytest.fixture
def make(settings, outbox, tmp_path):
    """Makes jobs of NAMES in shards of four, all done."""

    def make(name="out.csv", *, calibrated=False, **changes):
        folder = make_job(settings, NAMES, root=tmp_path / "in", output=outbox / name, **changes)
        write_fake_parts(folder, calibrated=calibrated)
        return folder

    return make


def publish(folder, *, fence=100, lease=None, record=None):
    return publish_manifest(folder, folder.request(), record, lease or FakeFinalizeLease(fence=fence))


def expected_rows(folder):
    return [row for shard in range(3) for row in fake_rows(read_shard(folder.path, shard))]


def names(folder):
    return sorted(os.listdir(folder))


@pytest.mark.parametrize("row_format", FORMATS)
def test_the_manifest_has_a_row_for_every_image_in_order(make, outbox, row_format):
    folder = make(f"out.{row_format}", output_format=row_format)

    totals = publish(folder)

    rows = list(FORMATS[row_format].read(outbox / f"out.{row_format}"))
    assert [row.path for row in rows] == NAMES
    assert [(row.status, row.prediction.labels, row.prediction.error_code) for row in rows] == [
        (row.status, row.prediction.labels, row.prediction.error_code) for row in expected_rows(folder)
    ]
    assert (totals.num_rows, totals.num_failed, totals.workers) == (11, 3, {"w1"})
    assert names(outbox) == [f"out.{row_format}", f"out.{row_format}.sources", f"out.{row_format}.summary.json"]


def test_the_summary_holds_what_the_manifest_must_agree_with(make, outbox, tmp_path):
    folder = make()
    record = JobRecord(folder.job, "classify", "finalizing", started_ms=1_700_000_000_000)

    publish(folder, record=record)

    summary = json.loads((outbox / "out.csv.summary.json").read_text())
    manifest, sidecar = (outbox / "out.csv").read_bytes(), (outbox / "out.csv.sources").read_bytes()
    timings, listing = summary.pop("timings"), (folder.path / "listing").read_bytes()
    assert summary == {
        "version": 1,
        "job": folder.job,
        "source": str(tmp_path / "in"),
        "root": str(tmp_path / "in"),
        "follow_symlinks": False,
        "model": PIN.model_dump(exclude={"version", "model_format"}) | {"ref": "fake@1"},
        "precision": "auto",
        "top_k": 2,
        "manifest": {
            "path": str(outbox / "out.csv"),
            "format": "csv",
            "sha256": hashlib.sha256(manifest).hexdigest(),
            "bytes": len(manifest),
        },
        "sidecar": {"sha256": hashlib.sha256(sidecar).hexdigest(), "bytes": len(sidecar), "checksum": False},
        "listing": {
            "sha256": hashlib.sha256(listing).hexdigest(),
            "num_images": 11,
            "walked": False,
            "skipped": {"hidden": 2},
        },
        "counts": {
            "num_images": 11,
            "num_done": 11,
            "num_failed": 3,
            "status": {"ok": 8, "error": 3},
            "labels": {"dark": 8},
            "error_codes": {"missing": 3},
            "decisions": {},
            "remarks": {},
        },
        "shards": {"num_shards": 3, "shards_given_up": 0},
        "repeats": {"too_slow_by_clock": 0, "byte_identical": True},
        "workers": ["w1"],
        "engines": ["fake"],
        "made_with": [],
    }
    assert timings["started"] == "2023-11-14T22:13:20+00:00"
    written_s = sum(read_trailer(folder.parts, shard).seconds["write"] for shard in range(3))
    assert timings["stage_seconds"] == {"predict": 1.5, "write": round(written_s, 3)}
    assert timings["stage_images_per_sec"]["predict"] == 7.3
    assert timings["bound"] == "device"
    assert folder.summary.read_bytes() == (outbox / "out.csv.summary.json").read_bytes()


def test_the_summary_of_a_calibrated_model_counts_rows_by_decision(make, outbox):
    folder = make("out.jsonl", output_format="jsonl", calibrated=True)

    publish(folder)

    counts = json.loads((outbox / "out.jsonl.summary.json").read_text())["counts"]
    found = Counter(row.prediction.decision for row in FORMATS["jsonl"].read(outbox / "out.jsonl"))
    assert list(counts["decisions"].items()) == [(name, found[name]) for name in ("accept", "review", "reject")]
    assert (sum(found.values()), found["reject"]) == (11, 3)


def test_the_summary_promises_no_repetition_where_the_clock_stopped_an_image(make, outbox):
    folder = make()
    part_path(folder.parts, 1).unlink()
    rows = fake_rows(read_shard(folder.path, 1))
    write_part(
        folder.parts, 1, rows, fake_as_read(rows), row_format="csv", seconds={}, worker="w2", engine="fake",
        num_stopped=2,
    )  # fmt: skip

    publish(folder)

    summary = json.loads((outbox / "out.csv.summary.json").read_text())
    assert summary["repeats"] == {"too_slow_by_clock": 2, "byte_identical": False}


@pytest.mark.parametrize("row_format", FORMATS)
def test_the_sidecar_has_a_line_for_every_row_in_order(make, outbox, row_format):
    folder = make(f"out.{row_format}", output_format=row_format)

    publish(folder)

    lines = list(read_sidecar(sidecar_path(outbox / f"out.{row_format}")))
    assert [line.path for line in lines] == NAMES
    assert [line.as_read for line in lines] == fake_as_read(expected_rows(folder))


def test_two_runs_of_a_job_give_the_same_bytes(make, outbox):
    jobs = [make(name, output_format="json") for name in ("first.json", "second.json")]

    for folder in jobs:
        publish(folder)

    assert (outbox / "first.json").read_bytes() == (outbox / "second.json").read_bytes()


def test_publishing_twice_is_publishing_once(make, outbox):
    folder = make()
    publish(folder)
    before = (outbox / "out.csv").read_bytes()

    totals = publish(folder, fence=101)

    assert isinstance(totals, Totals)
    assert (outbox / "out.csv").read_bytes() == before
    assert names(outbox) == PUBLISHED


def test_an_output_of_another_is_not_overwritten(make, outbox):
    folder = make()
    (outbox / "out.csv").write_text("precious")

    with pytest.raises(PublishError, match=r"out\.csv appeared while the job ran; it was left as it is"):
        publish(folder)

    assert [(name, (outbox / name).read_text()) for name in names(outbox)] == [("out.csv", "precious")]


def test_an_output_that_appears_at_the_last_moment_is_not_overwritten(make, outbox):
    folder = make()

    class Meanwhile(FakeFinalizeLease):
        def confirm(self):
            (outbox / "out.csv").write_text("precious")

    with pytest.raises(PublishError, match="appeared while the job ran"):
        publish(folder, lease=Meanwhile())

    assert (outbox / "out.csv").read_text() == "precious"


def test_an_output_is_replaced_where_that_was_asked_for(make, outbox):
    folder = make(overwrite=True)
    (outbox / "out.csv").write_text("old")

    publish(folder)

    assert [row.path for row in FORMATS["csv"].read(outbox / "out.csv")] == NAMES
    assert names(outbox) == PUBLISHED


def test_a_missing_output_folder_is_an_error(make, outbox):
    folder = make()
    outbox.rmdir()

    with pytest.raises(PublishError, match=r"cannot write .*out\.csv: No such file or directory"):
        publish(folder)


def damaged(path):
    data = bytearray(path.read_bytes())
    data[3] ^= 1  # in the rows: only their checksum tells
    path.write_bytes(data)


def damaged_behind_the_rows(path):
    data = bytearray(path.read_bytes())
    data[data.index(b'"mtime_ns": 17') + 13] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "harm",
    [
        Path.unlink,
        damaged,
        damaged_behind_the_rows,
        lambda path: path.write_bytes(path.read_bytes()[:-4]),
        lambda path: path.write_text(""),
    ],
)
def test_a_part_that_is_missing_or_damaged_is_named_and_nothing_is_published(make, outbox, harm):
    folder = make()
    harm(part_path(folder.parts, 1))

    with pytest.raises(BadPartError) as bad:
        publish(folder)

    assert bad.value.shard == 1
    assert names(outbox) == []


def test_a_part_that_vanishes_while_parts_are_joined_is_named(make, outbox):
    folder = make()

    class Vanishing(FakeFinalizeLease):
        def check(self):
            part_path(folder.parts, 2).unlink(missing_ok=True)

    with pytest.raises(BadPartError) as bad:
        publish(folder, lease=Vanishing())

    assert bad.value.shard == 2
    assert names(outbox) == []


def test_rows_that_do_not_add_up_to_the_listing_are_not_published(make, outbox):
    folder = make()
    facts = read_facts(folder.path).model_copy(update={"num_images": 12})
    (folder.path / "listing.json").write_text(facts.model_dump_json())

    with pytest.raises(IntegrityError, match="11 rows for 12 listed images"):
        publish(folder)

    assert names(outbox) == []


def test_a_listing_that_is_not_whole_is_not_published(make, outbox):
    folder = make()
    (folder.path / "listing.json").unlink()

    with pytest.raises(IntegrityError, match="the listing is not whole"):
        publish(folder)


def test_a_finalizer_without_its_lease_publishes_nothing_and_leaves_nothing(make, outbox):
    folder = make()

    for lost_after in range(5):
        with pytest.raises(FinalizeLeaseLostError):
            publish(folder, lease=FakeFinalizeLease(lost_after))
        assert names(outbox) == []

    publish(folder, lease=FakeFinalizeLease(5))
    assert names(outbox) == PUBLISHED


@pytest.mark.parametrize("overwrite", [False, True])
def test_after_a_death_at_any_step_the_next_attempt_publishes(make, outbox, overwrite):
    undisturbed = make("undisturbed.csv")
    publish(undisturbed)
    expected = (outbox / "undisturbed.csv").read_bytes()
    step, dies = 0, True

    while dies:
        name = f"{step}.csv"
        folder = make(name, overwrite=overwrite)
        dies = dies_at_step(step, lambda folder=folder: publish(folder, fence=100), outbox)
        half_way = outbox / name
        assert not half_way.exists() or half_way.read_bytes() == expected
        assert not half_way.exists() or (summary_path(half_way).exists() and sidecar_path(half_way).exists())

        publish(folder, fence=101)

        summary = json.loads(summary_path(outbox / name).read_text())
        assert (outbox / name).read_bytes() == expected
        assert summary["manifest"]["sha256"] == hashlib.sha256(expected).hexdigest()
        assert [left for left in names(outbox) if left.startswith(".")] == []
        step += 1

    assert step > 5


def test_an_output_of_any_bytes_is_published(make, outbox):
    folder = make(os.fsdecode(b"caf\xe9 \\x41\n.csv"))

    publish(folder)

    assert Path(text_to_path(folder.request().output)).exists()
    assert len(names(outbox)) == 3


@pytest.fixture(params=["same disk", "another disk"])
def elsewhere(request, tmp_path):
    """A folder that links lead to."""
    if request.param == "same disk":
        (tmp_path / "elsewhere").mkdir()
        yield tmp_path / "elsewhere"
        return
    if not os.access("/dev/shm", os.W_OK) or Path("/dev/shm").stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no other file system to write to")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.mark.parametrize("overwrite", [False, True])
def test_where_the_output_is_a_link_its_target_is_written_and_the_link_stays(make, outbox, elsewhere, overwrite):
    folder = make(overwrite=overwrite)
    (outbox / "out.csv").symlink_to(elsewhere / "real.csv")
    (outbox / "out.csv.summary.json").symlink_to(elsewhere / "real.json")
    (outbox / "out.csv.sources").symlink_to(elsewhere / "real.sources")
    if overwrite:
        (elsewhere / "real.csv").write_text("an earlier one")

    publish(folder)
    publish(folder, fence=101)

    assert [(outbox / name).is_symlink() for name in names(outbox)] == [True, True, True]
    assert names(elsewhere) == ["real.csv", "real.json", "real.sources"]
    assert [row.path for row in FORMATS["csv"].read(elsewhere / "real.csv")] == NAMES
    assert json.loads((elsewhere / "real.json").read_text())["manifest"]["path"] == str(outbox / "out.csv")


def test_a_link_of_the_manifest_alone_leaves_the_summary_beside_it(make, outbox, elsewhere):
    (outbox / "out.csv").symlink_to(elsewhere / "real.csv")

    publish(make())

    assert names(elsewhere) == ["real.csv"]
    assert (outbox / "out.csv.summary.json").is_file()


def test_after_a_death_behind_a_link_the_next_attempt_leaves_nothing_else(make, outbox, elsewhere):
    folder, step = make(overwrite=True), 0
    (outbox / "out.csv").symlink_to(elsewhere / "real.csv")
    while dies_at_step(step, lambda: publish(folder, fence=100), elsewhere):
        publish(folder, fence=101)
        assert (names(outbox), names(elsewhere)) == (PUBLISHED, ["real.csv"])
        step += 1
    assert step > 2


def test_a_link_that_leads_back_to_itself_is_an_error(make, outbox):
    (outbox / "out.csv").symlink_to(outbox / "out.csv")

    with pytest.raises(PublishError, match="Too many levels of symbolic links"):
        publish(make())
