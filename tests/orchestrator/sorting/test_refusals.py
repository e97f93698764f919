"""What a sort refuses, and what it says then; nothing is changed."""

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from modeling.inference.prediction import Prediction
from orchestrator.contract.errors import IntegrityError, NotFoundError, UsageError
from orchestrator.contract.jobs.rows import Row, summary_path
from orchestrator.contract.jobs.sidecar import sidecar_path
from orchestrator.sorting.journal import JOURNAL
from orchestrator.sorting.locked import InUseError, open_locked
from tests.support.sorting import ROWS, Tree, answered, make_tree, snapshot, write_manifest
from tests.support.stopping import stopped_at


@pytest.mark.parametrize(("mode", "by"), [("copy", "label"), ("link", "decision")])
def test_another_sort_into_the_same_folder_is_refused(tree, mode, by):
    tree.sort()

    with pytest.raises(UsageError, match=r"is sorted --by label --link already; undo it"):
        tree.sort(mode, by)


def test_the_sort_of_another_manifest_into_the_same_folder_is_refused(tree):
    tree.sort()
    write_manifest(tree.manifest, tree.root, ROWS[:3])

    with pytest.raises(UsageError, match=r"holds the sort of another manifest"):
        tree.sort()


def test_the_second_of_two_sorts_at_once_is_refused(tree):
    tree.sort()
    descriptor = open_locked(f"{tree.target}/{JOURNAL}", os.O_RDWR)

    for call in (tree.sort, tree.unsort):
        with pytest.raises(InUseError, match=r"another `results sort` or `unsort` works in"):
            call()
    os.close(descriptor)
    assert tree.unsort().num_undone == 5


def test_a_target_in_the_source_and_the_source_in_the_target_are_refused(tree, tmp_path):
    before = snapshot(tmp_path)

    for target in (tree.root, tree.root / "sorted", tree.root / "march", tree.root / "march/../x"):
        with pytest.raises(UsageError, match=r"lies in the source"):
            replace(tree, target=target).sort()
    with pytest.raises(UsageError, match=r"lies in the target"):
        replace(tree, target=tmp_path).sort()
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("mode", ["link", "copy", "move"])
@pytest.mark.parametrize("root", ["in", "."])
def test_the_answers_of_a_list_are_sorted_into_any_folder_below_its_root(tmp_path, mode, root):
    tree = listed(make_tree(tmp_path, ROWS), tmp_path / root)
    before = snapshot(tree.root)
    tree = replace(tree, target=tmp_path / root / "sorted")

    assert tree.sort(mode).tally.num_sorted == 5
    assert tree.sort(mode).was_finished
    assert tree.unsort().num_undone == 5
    assert snapshot(tree.root) == before
    assert not tree.target.exists()


def test_a_target_that_holds_images_of_a_list_is_refused(tmp_path):
    tree = listed(make_tree(tmp_path, ROWS), tmp_path)
    (tmp_path / "linked").symlink_to("in")
    before = snapshot(tmp_path)

    for target in (tmp_path, tree.root, tree.root / "march", tmp_path / "linked"):
        with pytest.raises(UsageError, match=r"holds images of the manifest, such as 'in/"):
            replace(tree, target=target).sort()
    assert snapshot(tmp_path) == before


def listed(tree: Tree, root: Path) -> Tree:
    """The same images as a list on standard input names them, relative to another root."""
    inner = os.path.relpath(tree.root, root)
    rows = [replace(row, path=os.path.normpath(f"{inner}/{row.path}")) for row in ROWS]
    write_manifest(tree.manifest, root, rows)
    summary = json.loads(summary_path(tree.manifest).read_text())
    summary_path(tree.manifest).write_text(json.dumps(summary | {"source": "-"}))
    return tree


def test_a_target_that_cannot_be_one_is_refused(tree, tmp_path):
    for target, why in ((tree.manifest, "is not a folder"), (tmp_path / "no/way", "there is no folder")):
        with pytest.raises(UsageError, match=why):
            replace(tree, target=target).sort()
    tree.settings.home.mkdir()
    with pytest.raises(UsageError, match="lies in the home"):
        replace(tree, target=tree.settings.home / "x").sort()


def test_a_manifest_changed_by_hand_is_refused(tree):
    tree.manifest.write_text(tree.manifest.read_text().replace("cat", "cow"))

    with pytest.raises(IntegrityError, match=r"was changed after it was published"):
        tree.sort()
    assert not tree.target.exists()


def test_a_sidecar_changed_by_hand_or_of_other_images_is_refused(tree):
    sidecar = sidecar_path(tree.manifest)
    lines = sidecar.read_bytes().splitlines(keepends=True)
    sidecar.write_bytes(b"".join(lines[::-1]))

    with pytest.raises(IntegrityError, match=r"out.csv.sources was changed after it was published"):
        tree.sort()
    summary = json.loads(summary_path(tree.manifest).read_text())
    summary["sidecar"]["sha256"] = hashlib.sha256(sidecar.read_bytes()).hexdigest()
    summary_path(tree.manifest).write_text(json.dumps(summary))
    with pytest.raises(IntegrityError, match=r"the sidecar has the line of 'gone.jpg' in place of 'a.jpg'"):
        tree.sort()


def test_a_summary_without_a_root_is_refused(tree):
    summary = json.loads(summary_path(tree.manifest).read_text())
    del summary["root"]
    summary_path(tree.manifest).write_text(json.dumps(summary))

    with pytest.raises(UsageError, match=r"names no root"):
        tree.sort()


def test_a_source_that_is_away_or_empty_is_an_error_before_anything_is_done(tree, tmp_path):
    tree.root.rename(tmp_path / "away")
    with pytest.raises(NotFoundError, match=r"is not there; mount it"):
        tree.sort()

    tree.root.mkdir()
    with pytest.raises(NotFoundError, match=r"none of the first 4 images of"):
        tree.sort()
    assert not tree.target.exists()


def test_a_sort_does_not_go_on_while_its_source_is_not_mounted(tree, tmp_path):
    with stopped_at(60):
        tree.sort("move")
    tree.root.rename(tmp_path / "away")
    tree.root.mkdir()

    with pytest.raises(NotFoundError, match=r"is another folder than before, and empty; is it mounted\?"):
        tree.sort("move")
    tree.root.rmdir()
    (tmp_path / "away").rename(tree.root)
    assert tree.sort("move").tally.num_sorted == 5


def test_a_manifest_without_decisions_cannot_be_sorted_by_them(tmp_path):
    tree = make_tree(tmp_path, [answered("a.jpg", "cat")])

    with pytest.raises(UsageError, match=r"birds@1 has no calibration.*sort --by label"):
        tree.sort(by="label,decision")


def test_rows_that_no_job_writes_are_refused(tmp_path):
    tree = make_tree(tmp_path, [answered("a.jpg", "cat")], name="out.jsonl")
    write_manifest(tree.manifest, tree.root, [Row("a.jpg", Prediction(("cat",), (float("nan"),)))])

    with pytest.raises(IntegrityError, match="no job writes such a row"):
        tree.sort()
