"""Which images are new or have changed, in any order and under any name; and what is refused."""

import json
import os
import random

import pytest

from orchestrator.contract.errors import IntegrityError, NotFoundError, UsageError
from orchestrator.contract.jobs.parts import part_path
from orchestrator.contract.jobs.rows import summary_path
from orchestrator.contract.jobs.sidecar import sidecar_path
from orchestrator.jobs.merging.changed import Changes, changed_since_parts, compare_lines
from orchestrator.jobs.results import find_latest
from tests.support.fakes import PIN
from tests.support.manifests import read_sidecar
from tests.support.merges import Merges

OTHER_MODEL = PIN.model_copy(update={"digest": "e" * 64, "number": 2})
OTHER_PREPROCESSING = PIN.model_copy(update={"preprocessing_digest": "q" * 64})
ODD = ["line\nend.jpg", os.fsdecode(b"caf\xe9.jpg"), "e\u0301.jpg", '=q",\r\n].jpg', "a\\x41.jpg", " space .jpg"]


@pytest.fixture
def merges(settings, tmp_path):
    merges = Merges(settings, tmp_path / "in", tmp_path / "outbox")
    merges.write(a="cat", b="bad", c="dog", d="moving")
    for name in ODD:
        merges.put(f"sub/{name}", "owl")
    return merges


def counts(merges, name=None):
    """Rows taken over, new, changed among these, and left out."""
    facts = merges.published(name).summary["merge"]
    return facts["num_kept"], facts["num_new"], facts["num_changed"], facts["num_gone"]


def since(merges):
    """Counts of an incremental run beside its base, whose manifest must be that of a full run."""
    output = merges.outbox / "since.csv"
    merges.since(output=output)
    merges.full(merges.outbox / "full.csv")
    assert output.read_bytes() == (merges.outbox / "full.csv").read_bytes()
    assert merges.differences(output) == []
    return counts(merges, output)


# What has changed


def test_an_unchanged_folder_has_nothing_to_classify(merges):
    merges.full()

    assert since(merges) == (10, 0, 0, 0)


@pytest.mark.parametrize("name", ["sub/" + name for name in ODD] + ["a.jpg"])
def test_images_of_any_name_are_seen_to_change_and_to_go(merges, name):
    merges.full()
    merges.put(name, "changed")
    assert since(merges) == (9, 1, 1, 0)

    for path in merges.outbox.glob("*"):
        path.unlink()
    merges.full()
    (merges.root / name).unlink()
    assert since(merges) == (9, 0, 0, 1)


def test_a_file_of_the_same_size_with_another_time_has_changed(merges):
    merges.full()
    os.utime(merges.root / "c.jpg", ns=(1, 1))

    assert since(merges) == (9, 1, 1, 0)


def test_an_image_that_could_not_be_read_is_tried_again(settings, tmp_path):
    merges = Merges(settings, tmp_path / "in", tmp_path / "outbox", listed=["a.jpg", "gone.jpg"])
    merges.write(a="cat")
    merges.full()
    assert since(merges) == (1, 1, 1, 0)

    for path in merges.outbox.glob("*"):
        path.unlink()
    merges.full()
    merges.write(gone="found")
    assert since(merges) == (1, 1, 1, 0)
    assert merges.labels(merges.outbox / "since.csv")["gone.jpg"] == "found"


def test_a_folder_becomes_a_file_and_a_file_a_folder(merges):
    merges.full()
    (merges.root / "a.jpg").unlink()
    merges.put("a.jpg/inner.jpg", "new")
    merges.put("sub-1/x.jpg", "new")

    assert since(merges) == (9, 2, 0, 1)


@pytest.mark.parametrize("seed", range(20))
def test_random_changes_of_a_folder_give_the_manifest_of_a_full_run(settings, tmp_path, seed):
    chance = random.Random(seed)
    merges = Merges(settings, tmp_path / "in", tmp_path / "outbox")
    names = ("b.jpg", "a.jpg", "-.jpg", *ODD)
    pool = [f"{folder}{name}" for folder in ("", "b/", "b-/", "b/c/", "a!/") for name in names]
    for path in chance.sample(pool, 20):
        merges.put(path, chance.choice(["cat", "dog", "bad", "moving"]))
    merges.full()
    before = set(merges.paths())
    for path in chance.sample(pool, 8):
        if path in before and chance.random() < 0.5:
            (merges.root / path).unlink()
        else:
            merges.put(path, chance.choice(["new", "bad"]))

    kept, new, changed, gone = since(merges)

    after = set(merges.paths())
    assert (kept + new, gone, new - changed) == (len(after), len(before - after), len(after - before))


@pytest.mark.parametrize("seed", range(10))
def test_lists_in_any_order_with_repetitions_give_the_manifest_of_a_full_run(settings, tmp_path, seed):
    chance = random.Random(seed)
    names = [f"{number}.jpg" for number in range(12)] + ODD
    merges = Merges(settings, tmp_path / "in", tmp_path / "outbox", listed=chance.choices(names, k=25))
    for name in names[3:]:
        merges.put(name, chance.choice(["cat", "bad"]))
    merges.full()
    merges.listed = chance.choices(names, k=25)
    for name in chance.sample(names, 4):
        merges.put(name, "new")

    kept, new, _, _ = since(merges)

    assert kept + new == 25


def test_a_list_may_follow_a_folder_and_a_folder_a_list(merges):
    merges.full()
    merges.listed = [*reversed(merges.paths()), "a.jpg"]
    assert since(merges) == (11, 0, 0, 0)

    merges.since()
    merges.listed = None
    (merges.outbox / "since.csv").unlink()
    (merges.outbox / "full.csv").unlink()
    assert since(merges) == (10, 0, 0, 1)  # one of the two rows of a.jpg is left out


# Contents


def test_with_digests_a_file_that_was_only_touched_is_taken_over_with_its_new_time(settings, tmp_path):
    merges = Merges(settings, tmp_path / "in", tmp_path / "outbox", checksum=True)
    merges.write(a="cat", b="dog", c="moving")
    merges.full()
    os.utime(merges.root / "c.jpg", ns=(7, 7))
    os.utime(merges.root / "a.jpg", ns=(8, 8))

    assert since(merges) == (3, 0, 0, 0)
    since_lines, full_lines = (sidecar_path(merges.outbox / name) for name in ("since.csv", "full.csv"))
    assert [line.as_read[1] for line in read_sidecar(since_lines)][::2] == [8, 7]
    assert since_lines.read_bytes() == full_lines.read_bytes()


def test_with_digests_another_content_of_the_same_size_and_time_has_changed(settings, tmp_path):
    merges = Merges(settings, tmp_path / "in", tmp_path / "outbox", checksum=True)
    merges.write(a="cat", b="dog")
    merges.full()
    before = (merges.root / "a.jpg").stat()
    merges.write(a="owl")
    os.utime(merges.root / "a.jpg", ns=(before.st_atime_ns, before.st_mtime_ns))

    assert since(merges) == (1, 1, 1, 0)


def test_digests_cannot_be_compared_with_a_manifest_that_has_none(merges):
    merges.full()
    merges.checksum = True

    with pytest.raises(UsageError, match="no digests to compare with: it was made without --checksum"):
        merges.since()


# What is refused


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"model": PIN.model_copy(update={"digest": "e" * 64, "number": 2})},
            "has rows of fake@1, which is not fake@2",
        ),
        ({"model": OTHER_PREPROCESSING}, "has rows of another preprocessing"),
        ({"top_k": 1}, "was made with --top-k 2, not 1"),
        ({"precision": "fp32"}, "was made with --precision auto, not fp32"),
        ({"follow_symlinks": True}, "was made with --follow-symlinks False, not True"),
        ({"output_format": "json"}, "was made with --format csv, not json"),
        ({"root": "/elsewhere"}, "has images below '.*/in', not below '/elsewhere'"),
    ],
)
def test_rows_that_would_be_others_are_refused(merges, changes, told):
    merges.full()
    build = merges.request
    merges.request = lambda output, **more: build(output, **(changes | more))

    with pytest.raises(UsageError, match=told):
        merges.since()


def test_a_manifest_that_was_changed_by_hand_is_refused(merges):
    first = merges.full()
    merges.output.write_bytes(merges.output.read_bytes().replace(b"cat", b"dog"))

    with pytest.raises(IntegrityError, match=r"out\.csv was changed after its job had written it: its sha256"):
        merges.since()
    with pytest.raises(IntegrityError, match=r"out\.csv was changed after its job had written it: its sha256"):
        merges.retry(first.job)


def test_a_sidecar_that_was_changed_by_hand_is_refused(merges):
    merges.full()
    sidecar = sidecar_path(merges.output)
    sidecar.write_bytes(sidecar.read_bytes()[:-1])

    with pytest.raises(IntegrityError, match=r"out\.csv\.sources was changed after"):
        merges.since()


def test_a_manifest_without_a_sidecar_is_refused(merges):
    first = merges.full()
    sidecar_path(merges.output).unlink()

    with pytest.raises(NotFoundError, match=r"the sidecar '.*out\.csv\.sources' is missing; without it nobody knows"):
        merges.since()
    with pytest.raises(NotFoundError, match=r"the sidecar '.*' is missing"):
        merges.retry(first.job)


def test_a_retry_where_nothing_failed_is_refused(merges):
    merges.write(b="fine")
    first = merges.full()

    with pytest.raises(UsageError, match=r"no image of .* has failed; there is nothing to try again"):
        merges.retry(first.job)


def test_a_retry_of_a_code_that_no_image_has_names_those_that_some_have(merges):
    first = merges.full()

    with pytest.raises(UsageError, match="has failed with missing or empty; it has corrupt 1"):
        merges.retry(first.job, "missing", "empty")


def test_a_job_whose_manifest_another_job_replaced_has_no_latest_attempt(merges):
    first = merges.full()
    for path in merges.outbox.iterdir():
        path.unlink()
    merges.full()

    with pytest.raises(NotFoundError, match=f"the manifest of job {first.job} was replaced by that of job"):
        find_latest(merges.settings, first.job)


def test_a_summary_without_attempts_that_make_sense_is_refused(merges):
    first = merges.full()
    merges.write(b="fixed")
    merges.retry(first.job)
    path = summary_path(merges.output)
    summary = json.loads(path.read_bytes())
    summary["attempts"][0]["rows"] = "1-999999999999"
    path.write_text(json.dumps(summary))
    merges.write(e="new")

    with pytest.raises(IntegrityError, match="names row 999999999999 of 10"):
        merges.since()


# Finished parts, and their files as they are now


def test_images_of_finished_parts_that_have_changed_or_gone_are_counted(merges):
    folder = merges.begin(merges.request(merges.output))
    assert changed_since_parts(folder) == Changes(10, 0, None)

    merges.write(c="other")
    (merges.root / "sub" / ODD[1]).unlink()

    assert changed_since_parts(folder) == Changes(10, 2, "c.jpg")


def test_only_whole_parts_are_compared_and_only_images_that_could_be_read(settings, tmp_path):
    merges = Merges(settings, tmp_path / "in", tmp_path / "outbox", listed=[f"{number}.jpg" for number in range(9)])
    for number in range(1, 9):
        merges.put(f"{number}.jpg", "cat")
    folder = merges.begin(merges.request(merges.output))
    part_path(folder.parts, 1).unlink()
    part_path(folder.parts, 2).write_bytes(b"damaged")
    seen = []

    assert changed_since_parts(folder, seen.append) == Changes(3, 0, None)
    assert seen == []
    part = part_path(folder.parts, 0)
    part.write_bytes(part.read_bytes().replace(b'"size": ', b'"size"; '))
    assert changed_since_parts(folder) == Changes()


def test_comparing_many_images_says_how_far_it_is(merges):
    merges.full()
    lines = sidecar_path(merges.output).read_bytes().splitlines(keepends=True)
    seen = []

    assert compare_lines(lines * 500, str(merges.root), seen.append) == Changes(5000, 0, None)
    assert seen == [2048, 4096]
