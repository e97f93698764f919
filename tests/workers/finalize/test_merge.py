"""Rows of an earlier manifest merged with new ones: published in the place of the earlier, which stays."""

import json
import os
import re
from collections import Counter
from pathlib import Path

import pytest

from orchestrator.contract.errors import IntegrityError, MessageError, NotFoundError
from orchestrator.contract.jobs.base import sha256_of
from orchestrator.contract.jobs.parts import part_path
from orchestrator.contract.jobs.rows import FORMATS, summary_path
from orchestrator.contract.jobs.sidecar import sidecar_path
from tests.support.fakes import FakeFinalizeLease, dies_at_step
from tests.support.merges import Merges
from workers.finalize import keep_base
from workers.finalize.errors import PublishError
from workers.finalize.join import BadPartError
from workers.finalize.publish import publish_manifest

ODD = ["line\nend.jpg", os.fsdecode(b"caf\xe9.jpg"), '=q",\r\n].jpg', "z\\x41.jpg"]
FILES = ["out", "out.1", "out.1.sources", "out.1.summary.json", "out.sources", "out.summary.json"]


@pytest.fixture(params=FORMATS)
def merges(request, settings, tmp_path):
    """Twelve images, some with odd names, some bad, classified."""
    merges = Merges(settings, tmp_path / "in", tmp_path / "outbox", request.param)
    merges.write(a="cat", b="bad", c="dog", d="moving", e="bad", f="cat", g="cat")
    for name in ODD:
        merges.put(f"sub/{name}", "owl")
    merges.put("sub-1.jpg", "bad")
    return merges


def names(merges):
    """The published files, with `out` for the manifest's own name."""
    return sorted(name.replace(merges.output.name, "out") for name in os.listdir(merges.outbox))


def change_some(merges):
    """New, changed and removed images, at the ends and in the middle."""
    merges.put("sub/caf.jpg", "new")
    merges.write(a="changed", h="new", zz="new")
    (merges.root / "c.jpg").unlink()
    (merges.root / "d.jpg").unlink()
    (merges.root / "sub" / ODD[2]).unlink()


def test_an_incremental_run_publishes_the_bytes_of_a_full_one(merges):
    merges.full()
    change_some(merges)

    folder = merges.since(output=merges.outbox / f"merged.{merges.row_format}")
    merges.full(merges.outbox / f"full.{merges.row_format}")

    merged, full = (merges.outbox / f"{name}.{merges.row_format}" for name in ("merged", "full"))
    assert merged.read_bytes() == full.read_bytes()
    assert sidecar_path(merged).read_bytes() == sidecar_path(full).read_bytes()
    assert merges.differences(merged) == []
    assert merges.published(merged).summary["counts"] == merges.published(full).summary["counts"]
    summary = merges.published(folder.job).summary
    assert {name: value for name, value in summary["merge"].items() if name.startswith("num_")} == {
        "num_kept": 8, "num_new": 4, "num_changed": 1, "num_gone": 3, "num_stale": 0,
    }  # fmt: skip


def test_the_output_may_be_the_base_which_then_stays_under_a_number(merges):
    first = merges.full()
    before = {path.name: path.read_bytes() for path in merges.outbox.iterdir()}
    change_some(merges)

    folder = merges.since()

    assert names(merges) == FILES
    assert merges.differences() == []
    kept = merges.output.name + ".1"
    assert {
        path.name.replace(kept, merges.output.name): path.read_bytes() for path in merges.outbox.glob(f"{kept}*")
    } == before
    assert merges.published().summary["merge"]["kept_as"] == str(merges.outbox / kept)
    assert merges.published(first.job).manifest == merges.outbox / kept
    assert merges.differences(first.job) == []
    assert merges.published(folder.job).manifest == merges.output


def test_where_nothing_has_changed_every_row_is_taken_over(merges):
    merges.full()
    before = merges.output.read_bytes()

    merges.since()

    assert merges.output.read_bytes() == before
    assert merges.differences() == []
    assert merges.published().summary["merge"]["num_kept"] == 12


def test_counts_are_those_of_a_full_run_where_few_rows_are_taken_over(merges):
    merges.full()
    for path in merges.paths()[2:-1]:
        merges.put(path, "changed")
    merges.put("d.jpg", "moving")

    merges.since()

    full = merges.outbox / "full"
    merges.full(full)
    summary = merges.published().summary
    assert summary["merge"]["num_kept"] == 3
    assert summary["counts"] == merges.published(full).summary["counts"]
    assert merges.differences() == []


def test_a_retry_tries_failed_images_as_they_are_now_and_keeps_all_other_rows(merges):
    first = merges.full()
    merges.write(b="fixed", a="changed")

    second = merges.retry(first.job)

    assert merges.labels() == merges.labels(first.job) | {"b.jpg": "fixed"}
    assert merges.differences() == []
    summary = merges.published().summary
    places = [place for place, label in enumerate(merges.labels(first.job).values(), 1) if label == "corrupt"]
    assert summary["attempts"][1] == {"job": second.job, "num_rows": 3, "rows": ",".join(map(str, places))}
    assert (summary["attempts"][0]["job"], summary["attempts"][0]["num_rows"]) == (first.job, 9)
    assert (summary["merge"]["num_changed"], summary["merge"]["num_stale"]) == (1, 1)


def test_retries_follow_one_another_and_number_what_they_replace(merges):
    first = merges.full()
    merges.write(b="fixed")
    second = merges.retry(first.job)
    merges.write(e="fixed")

    third = merges.retry(first.job)

    assert [each["job"] for each in merges.published().summary["attempts"]] == [first.job, second.job, third.job]
    assert Counter(merges.labels().values())["corrupt"] == 1
    for folder, number in ((first, ".1"), (second, ".2"), (third, "")):
        assert merges.published(folder.job).manifest == Path(f"{merges.output}{number}")
        assert merges.differences(folder.job) == []


def test_a_retry_by_code_tries_those_only(settings, tmp_path):
    merges = Merges(settings, tmp_path / "in", tmp_path / "outbox", listed=["a.jpg", "gone.jpg", "b.jpg", "a.jpg"])
    merges.write(a="bad", b="dog")
    first = merges.full()
    merges.write(a="fixed", gone="found")

    merges.retry(first.job, "missing")

    assert [row.prediction.error_code or row.prediction.labels[0] for row in merges.published().rows()] == [
        "corrupt", "found", "dog", "corrupt",
    ]  # fmt: skip
    assert merges.published().summary["attempts"][1]["rows"] == "2"


def test_a_foreign_file_of_the_number_is_left_and_the_next_one_taken(merges):
    first = merges.full()
    foreign = merges.outbox / f"{merges.output.name}.1.sources"
    foreign.write_text("mine")

    merges.since()

    assert foreign.read_text() == "mine"
    assert merges.published().summary["merge"]["kept_as"].endswith(".2")
    assert merges.differences(f"{merges.output}.2") == []
    assert merges.differences(first.job) == []


def test_however_many_were_kept_only_those_of_the_last_number_are_compared(settings, tmp_path, monkeypatch):
    merges = Merges(settings, tmp_path / "in", tmp_path / "outbox")
    merges.write(a="cat", b="dog")
    merges.full()
    for _ in range(6):
        merges.since()
    asked = []
    monkeypatch.setattr(keep_base, "sha256_of", lambda path: asked.append(path.name) or sha256_of(path))
    lexists = os.path.lexists
    monkeypatch.setattr(os.path, "lexists", lambda path: asked.append(Path(path).name) or lexists(path))

    merges.since()

    assert merges.published().summary["merge"]["kept_as"].endswith("out.csv.7")
    assert {name for name in asked if re.match(r"out\.csv\.[1-5]", name)} == set()
    assert max(asked.count(name) for name in ("manifest", "manifest.sources", "manifest.summary.json")) <= 1


def test_the_number_after_the_last_one_is_taken_and_dates_of_others_are_no_numbers(merges):
    merges.full()
    for number in ("3", "20261130", "7.jpg", "08", "9x"):
        (merges.outbox / f"{merges.output.name}.{number}").touch()

    merges.since()

    assert merges.published().summary["merge"]["kept_as"].endswith(".4")


def test_at_the_highest_number_the_earlier_manifest_is_kept_by_no_name_of_another(merges):
    merges.full()
    (merges.outbox / f"{merges.output.name}.100000").touch()
    before = merges.output.read_bytes()

    with pytest.raises(IntegrityError, match="there is an earlier manifest of number 100000; move it away"):
        merges.since()

    assert merges.output.read_bytes() == before


def test_a_kept_manifest_is_found_where_an_earlier_one_was_moved_away(merges):
    first = merges.full()
    merges.write(b="fixed")
    second = merges.retry(first.job)
    merges.write(e="fixed")
    merges.retry(first.job)

    for path in merges.outbox.glob(f"{merges.output.name}.1*"):
        path.unlink()

    assert merges.published(second.job).manifest == Path(f"{merges.output}.2")
    assert merges.differences(second.job) == []
    with pytest.raises(NotFoundError, match=f"the manifest of job {first.job} was replaced by that of job "):
        merges.published(first.job)


def test_an_output_that_changed_meanwhile_is_left(merges):
    merges.full()
    folder = merges.begin_since()
    merges.output.unlink()
    merges.output.write_text("precious")

    with pytest.raises(PublishError, match="changed while the job ran; it was left as it is"):
        merges.publish(folder)

    assert merges.output.read_text() == "precious"
    assert f"{merges.output.name}.1" not in os.listdir(merges.outbox)


def test_an_output_that_was_edited_in_place_is_left(merges):
    merges.full()
    folder = merges.begin_since()
    edited = merges.output.read_bytes() + b"\n"
    merges.output.write_bytes(edited)

    named = re.escape(str(merges.output))
    with pytest.raises(IntegrityError, match=f"^{named} was changed since the job began: the copy in the job folder"):
        merges.publish(folder)

    assert merges.output.read_bytes() == edited


def test_a_base_that_was_removed_meanwhile_is_kept_in_the_job(merges):
    merges.full()
    folder = merges.begin_since()
    for path in list(merges.outbox.iterdir()):
        path.unlink()

    merges.publish(folder)

    assert names(merges) == FILES
    assert merges.differences() == []


@pytest.mark.parametrize("name", ["manifest", "manifest.sources"])
def test_a_base_that_is_damaged_meanwhile_is_not_merged(merges, name):
    merges.full()
    folder = merges.begin_since()
    kept = folder.path / "base" / name
    data = kept.read_bytes()
    kept.unlink()
    kept.write_bytes(data[:-3] + b"x" + data[-2:])

    with pytest.raises(IntegrityError, match="was changed since the job began"):
        merges.publish(folder)


@pytest.mark.parametrize("key", ["repeats", "workers"])
def test_a_base_whose_summary_lacks_something_begins_no_job(merges, key):
    merges.full()
    path = summary_path(merges.output)
    summary = json.loads(path.read_bytes())
    del summary[key]
    path.write_text(json.dumps(summary))

    with pytest.raises(IntegrityError, match=f"is damaged: it has no (list )?{key}"):
        merges.begin_since()


def test_a_base_whose_summary_is_damaged_meanwhile_is_not_merged(merges):
    merges.full()
    folder = merges.begin_since()
    path = summary_path(folder.path / "base" / "manifest")
    summary = json.loads(path.read_bytes())
    del summary["counts"]["remarks"]
    path.write_text(json.dumps(summary))

    with pytest.raises(IntegrityError, match=r"is damaged: it has no counts\.remarks"):
        merges.publish(folder)


@pytest.mark.parametrize("name", ["merge.plan", "merge.json"])
def test_a_plan_that_is_damaged_is_not_carried_out(merges, name):
    merges.full()
    change_some(merges)
    folder = merges.begin_since()
    (folder.path / name).write_bytes((folder.path / name).read_bytes().replace(b"1", b"2"))

    with pytest.raises((IntegrityError, MessageError)):
        merges.publish(folder)


def test_a_damaged_part_of_a_merge_is_named(merges):
    merges.full()
    change_some(merges)
    folder = merges.begin_since()
    path = part_path(folder.parts, 0)
    path.write_bytes(path.read_bytes().replace(b'"mtime_ns": 1', b'"mtime_ns": 2', 1))

    with pytest.raises(BadPartError):
        merges.publish(folder)


def test_after_a_death_at_any_step_the_next_attempt_publishes_and_the_earlier_manifest_is_always_there(
    settings, tmp_path
):
    merges = Merges(settings, tmp_path / "in", tmp_path / "undisturbed")
    merges.write(a="cat", b="bad", c="dog")
    merges.full()
    earlier = merges.output.read_bytes()
    merges.write(b="fixed", d="new")
    merges.since()
    expected = {name: path.read_bytes() for name, path in published(merges).items()}
    step, dies = 0, True

    while dies:
        merges.outbox = tmp_path / f"outbox-{step}"
        merges.outbox.mkdir()
        merges.write(b="bad")
        (merges.root / "d.jpg").unlink()
        merges.full()
        merges.write(b="fixed", d="new")
        folder = merges.begin_since()
        dies = dies_at_step(step, lambda: merges.publish(folder), merges.outbox)  # noqa: B023 called at once
        whole = [path for path in (merges.output, Path(f"{merges.output}.1")) if path.exists()]
        assert earlier in [path.read_bytes() for path in whole]
        assert all(path.read_bytes() in (earlier, expected["out.csv"]) for path in whole)

        merges.publish(folder)

        found = {name: path.read_bytes() for name, path in published(merges).items()}
        assert (found.keys(), found["out.csv"], found["out.csv.1"]) == (expected.keys(), expected["out.csv"], earlier)
        assert merges.differences() == merges.differences(f"{merges.output}.1") == []
        step += 1

    assert step > 12


@pytest.mark.parametrize("step", range(2))
def test_a_finalizer_that_was_frozen_between_two_renames_changes_nothing_of_a_later_job(
    settings, tmp_path, monkeypatch, step
):
    merges = Merges(settings, tmp_path / "in", tmp_path / "outbox")
    merges.write(a="cat", b="bad", c="dog")
    merges.full()
    folder = merges.begin_since()
    rename, renames, found = Path.rename, [], {}

    def freeze(self, target):
        renamed = rename(self, target)
        if self.parent == merges.outbox:
            renames.append(self)
            if len(renames) == step + 1:
                merges.publish(folder)  # by another finalizer, before a job that takes the place of its manifest
                merges.write(b="fixed")
                merges.retry(folder.job)
                found.update({name: path.read_bytes() for name, path in published(merges).items()})
        return renamed

    monkeypatch.setattr(Path, "rename", freeze)
    with pytest.raises(PublishError):
        publish_manifest(folder, folder.request(), None, FakeFinalizeLease(fence=1))

    assert {name: path.read_bytes() for name, path in published(merges).items()} == found
    assert merges.differences() == []


def published(merges):
    return {path.name: path for path in merges.outbox.iterdir()}


def test_without_hard_links_earlier_manifests_are_copied(merges, monkeypatch):
    merges.full()
    before = merges.output.read_bytes()
    change_some(merges)
    monkeypatch.setattr(os, "link", lambda *_, **__: (_ for _ in ()).throw(PermissionError(1, "no links here")))

    merges.since()

    assert names(merges) == FILES
    assert Path(f"{merges.output}.1").read_bytes() == before
    assert merges.differences() == []


def test_a_link_to_the_manifest_stays_and_the_earlier_one_lies_beside_it(merges, tmp_path):
    merges.full()
    (tmp_path / "elsewhere").mkdir()
    for path in list(merges.outbox.iterdir()):
        path.rename(tmp_path / "elsewhere" / path.name)
        path.symlink_to(tmp_path / "elsewhere" / path.name)
    change_some(merges)

    merges.since()

    assert names(merges) == FILES
    assert merges.output.is_symlink()
    assert not Path(f"{merges.output}.1").is_symlink()
    assert merges.differences() == merges.differences(f"{merges.output}.1") == []


def test_the_head_of_a_json_manifest_counts_all_rows(settings, tmp_path):
    merges = Merges(settings, tmp_path / "in", tmp_path / "outbox", "json")
    merges.write(a="cat", b="bad")
    merges.full()
    merges.write(c="bad")

    merges.since()

    document = json.loads(merges.output.read_bytes())
    assert (document["num_images"], document["num_failed"], len(document["predictions"])) == (3, 2, 3)
