"""`OUT.incomplete`: what a job with too many failures had found."""

import json
import os
import shutil

import pytest

from orchestrator.cli.results.verify import describe_missing
from orchestrator.contract.jobs.parts import part_path
from orchestrator.contract.jobs.rows import FORMATS
from orchestrator.jobs.results import find_published
from orchestrator.jobs.verification import verify
from tests.support.fakes import FakeFinalizeLease, dies_at_step, make_job, write_fake_parts
from tests.support.invoke import invoke
from workers.finalize.errors import PublishError
from workers.finalize.incomplete import publish_incomplete, remove_incomplete
from workers.finalize.join import BadPartError
from workers.finalize.publish import publish_manifest

NAMES = [f"{number}.jpg" for number in range(8)] + ["line\nend.jpg", os.fsdecode(b"caf\xe9.jpg"), "=1.jpg"]
KEPT = [f"out.csv.incomplete{suffix}" for suffix in ("", ".sources", ".summary.json")]
WHY = "5 of 8 images failed, more than the 1 allowed by --max-failures"


@pytest.fixture
def make(settings, outbox, tmp_path):
    """Makes jobs of NAMES in shards of four; the first and the last are done."""

    def make(name="out.csv", **changes):
        folder = make_job(settings, NAMES, root=tmp_path / "in", output=outbox / name, **changes)
        write_fake_parts(folder, [0, 2])
        return folder

    return make


def keep(folder, **lease):
    return publish_incomplete(folder, folder.request(), None, FakeFinalizeLease(**lease), WHY)


def names(folder):
    return sorted(os.listdir(folder))


@pytest.mark.parametrize("row_format", FORMATS)
def test_rows_of_finished_shards_are_kept_in_order_and_verify_says_what_is_missing(make, settings, outbox, row_format):
    folder = make(f"out.{row_format}", output_format=row_format)

    kept = keep(folder)

    published = find_published(settings, kept)
    verification = verify(settings, published)
    assert kept == str(outbox / f"out.{row_format}.incomplete")
    assert [row.path for row in published.rows()] == NAMES[:4] + NAMES[8:]
    assert (verification.ok, verification.differences, verification.num_rows) == (False, [], 7)
    assert describe_missing(verification.missing) == (
        f"incomplete: 4 rows are missing ({WHY}); the first: 4.jpg, 5.jpg, 6.jpg, 7.jpg"
    )


def test_the_command_exits_with_1_and_tells_it_as_json_too(make, settings, monkeypatch):
    kept = keep(make())
    monkeypatch.setenv("PIGEONHOLE_HOME", str(settings.home))

    result = invoke("results", "verify", kept)
    told = json.loads(invoke("results", "verify", kept, "--json").stdout)

    assert (result.exit_code, told["ok"], told["missing"]["num_rows"]) == (1, False, 4)
    assert told["missing"]["paths"] == ["4.jpg", "5.jpg", "6.jpg", "7.jpg"]
    assert "incomplete: 4 rows are missing" in result.stderr


def test_a_job_whose_images_were_not_all_listed_says_so(make, settings):
    folder = make()
    (folder.work / "listing.json").unlink()

    verification = verify(settings, find_published(settings, keep(folder)))

    assert "4 rows are missing, and those that were not listed yet" in describe_missing(verification.missing)


def test_without_the_jobs_folder_the_number_is_known_and_a_changed_row_is_noticed(make, settings, outbox):
    folder = make()
    kept = keep(folder)
    shutil.rmtree(folder.path)
    far = verify(settings, find_published(settings, kept))
    (outbox / KEPT[0]).write_text((outbox / KEPT[0]).read_text().replace("1.jpg", "x.jpg"))

    changed = verify(settings, find_published(settings, kept))

    assert (far.missing.num_rows, far.missing.paths, far.differences) == (4, [], [])
    assert {text.partition(":")[0] for text in changed.differences} == {"manifest sha256", "paths in listed order"}


def test_a_later_end_replaces_it_and_a_manifest_of_the_job_or_of_its_source_removes_it(make, outbox):
    folder = make()
    keep(folder)
    write_fake_parts(folder, [1])
    keep(folder, fence=200)
    num_rows = len(list(FORMATS["csv"].read(outbox / KEPT[0])))

    publish_manifest(folder, folder.request(), None, FakeFinalizeLease(fence=300))
    before = names(outbox)
    remove_incomplete(make().request())

    assert num_rows == 11
    assert before == sorted(["out.csv", "out.csv.sources", "out.csv.summary.json", *KEPT])
    assert names(outbox) == ["out.csv", "out.csv.sources", "out.csv.summary.json"]


def test_what_is_of_another_source_or_no_incomplete_manifest_stays(make, outbox, tmp_path):
    keep(make())
    remove_incomplete(make(source="elsewhere").request())
    first = names(outbox)
    (outbox / KEPT[0]).write_text("precious")
    (outbox / KEPT[2]).write_text('{"job": "mine"}')
    folder = make()
    remove_incomplete(folder.request())

    with pytest.raises(PublishError, match=r"out\.csv\.incomplete appeared while the job ran; it was left as it is"):
        keep(folder)
    assert (first, names(outbox)) == (sorted(KEPT), sorted(KEPT))


def test_what_a_finalizer_left_that_died_goes(make, outbox):
    folder = make()
    (outbox / f".{folder.job}.3.tmp").write_text("half of it")

    keep(folder, fence=5)

    assert names(outbox) == sorted(KEPT)


def test_a_damaged_part_is_not_published(make, outbox):
    folder = make()
    part = part_path(folder.parts, 2)
    part.write_bytes(b"?" + part.read_bytes()[1:])

    with pytest.raises(BadPartError):
        keep(folder)

    assert names(outbox) == []


def test_after_a_death_at_any_step_it_is_there_with_its_summary_or_not_at_all(make, outbox, tmp_path, settings):
    step, dies = 0, True
    while dies:
        folder = make(f"{step}.csv")
        dies = dies_at_step(step, lambda folder=folder, fence=step + 1: keep(folder, fence=fence), tmp_path)
        kept = outbox / f"{step}.csv.incomplete"
        if kept.exists():
            assert verify(settings, find_published(settings, str(kept))).differences == []
        keep(folder, fence=1000)
        assert verify(settings, find_published(settings, str(kept))).differences == []
        step += 1

    assert step > 5
