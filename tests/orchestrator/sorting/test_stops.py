"""Stopped at any change to the disk, a sort and an unsort can be gone on with, and undone (`benchmarks.sorting`)."""

import contextlib
import os
import shutil
from pathlib import Path

import pytest

from orchestrator.contract.errors import NotFoundError
from tests.support.sorting import OLD_NS, Tree, answered, failed, make_old, make_tree, snapshot
from tests.support.stopping import stopped_at

ROWS = [
    answered("a.jpg", "cat"),
    answered("x/a.jpg", "cat"),
    answered(os.fsdecode(b"x/caf\xe9\n.jpg"), ".."),
    failed("bad.jpg"),
    failed("gone.jpg", "missing"),
    answered("q.jpg", "CAT"),
]
EVERY = 3  # the benchmark takes every step
OTHER_FILE_SYSTEM = Path("/dev/shm")


@pytest.fixture(autouse=True)
def _processes_are_stopped_and_no_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written counts as kept: syncing is a hundred times slower than all else here."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def folder(tmp_path: Path, request: pytest.FixtureRequest):
    """Where trees are made; for moves `away`, a target on another file system."""
    yield tmp_path / "t"
    shutil.rmtree(OTHER_FILE_SYSTEM / tmp_path.name, ignore_errors=True)


def new_tree(folder: Path, *, existing: bool, elsewhere: Path | None) -> Tree:
    """The same tree each time, with times of long ago; existing: the target holds something."""
    for place in (folder, elsewhere):
        if place is not None and place.exists():
            shutil.rmtree(place)
    tree = make_tree(folder, ROWS, home=folder.parent / "home")
    if elsewhere is not None:
        elsewhere.mkdir()
        tree.target = elsewhere / "sorted"
        os.utime(elsewhere, ns=(OLD_NS, OLD_NS))
    if existing:
        (tree.target / "CAT").mkdir(parents=True)
        (tree.target / "CAT/q.jpg").write_bytes(b"mine")
        make_old(tree.target)
    os.utime(tree.root.parent, ns=(OLD_NS, OLD_NS))
    return tree


def all_of(tree: Tree) -> dict:
    return {"source": snapshot(tree.root.parent), "target": snapshot(tree.target.parent)}


@pytest.mark.parametrize("mode", ["link", "copy", "move", "away"])
def test_whatever_is_stopped_wherever_an_unsort_puts_everything_back(folder, mode):
    elsewhere = OTHER_FILE_SYSTEM / folder.parent.name if mode == "away" else None
    if elsewhere and (not OTHER_FILE_SYSTEM.is_dir() or OTHER_FILE_SYSTEM.stat().st_dev == folder.parent.stat().st_dev):
        pytest.skip("there is no second file system to write to")
    mode = "move" if mode == "away" else mode
    existing = mode == "copy"
    tree = new_tree(folder, existing=existing, elsewhere=elsewhere)
    with stopped_at(None) as sorting:
        tree.sort(mode)
    sorted_names = snapshot(tree.target).keys()
    with stopped_at(None) as unsorting:
        tree.unsort()
    assert sorting.num_steps > 50
    assert unsorting.num_steps > 20

    for at in range(0, sorting.num_steps + unsorting.num_steps, EVERY):
        tree = new_tree(folder, existing=existing, elsewhere=elsewhere)
        before = all_of(tree)
        if at < sorting.num_steps:
            with stopped_at(at):
                tree.sort(mode)
        else:
            tree.sort(mode)
            with stopped_at(at - sorting.num_steps):
                tree.unsort()
        if at % 2:
            tree.sort(mode)
            assert snapshot(tree.target).keys() == sorted_names
        with contextlib.suppress(NotFoundError):  # the sort had not begun, or was undone
            assert tree.unsort().num_left == 0
        assert all_of(tree) == before
