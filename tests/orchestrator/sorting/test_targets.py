"""Targets that are full, read-only, on another file system, or that do not hold every name."""

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.contract.errors import UsageError
from orchestrator.sorting import sort as sort_module
from orchestrator.sorting.begin import StoppedError
from orchestrator.sorting.copying import UnfitError
from orchestrator.sorting.journal import Batch
from orchestrator.sorting.plan import Planner, Wanted
from orchestrator.sorting.target import Target, probed
from tests.support.sorting import Tree, answered, make_tree, snapshot, write_manifest

ROWS = [answered(f"{number}.jpg", "cat") for number in range(8)]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = make_tree(tmp_path, ROWS)
    for path in tree.root.iterdir():
        os.truncate(path, 20_000)
    write_manifest(tree.manifest, tree.root, ROWS)
    return tree


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Mounts a tmpfs of a size, in bytes."""
    place = tmp_path / "mounted"
    place.mkdir()

    def mount(size: int) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"cannot mount a file system: {done.stderr.strip()}")
        return place

    yield mount
    subprocess.run(["umount", str(place)], capture_output=True)


def remount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)


@pytest.mark.parametrize("mode", ["copy", "move"])
def test_a_full_target_says_how_far_it_came_and_the_sort_goes_on_or_is_undone(tree, mount, mode, monkeypatch):
    monkeypatch.setitem(sort_module.BATCH_ROWS, mode, 2)
    before = snapshot(tree.root)
    tree.target = mount(120_000) / "sorted"

    with pytest.raises(
        StoppedError, match=r"No space left on device.*at least 4 of 8 rows are sorted: run the command again"
    ):
        tree.sort(mode)
    assert tree.unsort().num_left == 0
    assert snapshot(tree.root) == before
    with pytest.raises(StoppedError):
        tree.sort(mode)
    remount(tree.target.parent, "size=1000000")
    assert tree.sort(mode).went_on
    assert len(tree.names()) == 8
    assert tree.unsort().num_undone == 8
    assert snapshot(tree.root) == before


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize("exists", [False, True])
def test_a_read_only_target_is_refused_at_once_and_in_a_dry_run(tree, mount, exists, dry_run):
    tree.target = mount(100_000) / "sorted"
    if exists:
        tree.target.mkdir()
    remount(tree.target.parent, "ro")

    with pytest.raises(StoppedError, match=r"nothing can be sorted into .*Read-only file system.*mount it for writing"):
        tree.sort(dry_run=dry_run)


def test_a_target_that_this_user_may_not_write_to_is_refused_in_a_dry_run(tree, monkeypatch):
    allowed = os.access
    parent = str(tree.target.parent)
    monkeypatch.setattr(
        os, "access", lambda path, mode, **how: allowed(path, mode, **how) and not (path == parent and mode & os.W_OK)
    )

    with pytest.raises(StoppedError, match=rf"nothing can be sorted into .*Permission denied: '{parent}' belongs to"):
        tree.sort(dry_run=True)


def test_a_target_that_cannot_be_made_is_the_error_also_where_folders_cannot_be_synced(tree, monkeypatch):
    refuse_once_begun(tree, monkeypatch, errno.EINVAL)

    with pytest.raises(StoppedError, match=r"nothing can be sorted into .*Disk quota exceeded"):
        tree.sort()
    assert list((tree.settings.home / "sorts").iterdir()) == []


def test_a_target_that_cannot_be_made_is_the_error_also_where_that_cannot_be_undone(tree, monkeypatch):
    with monkeypatch.context() as patched:
        refuse_once_begun(tree, patched, errno.EIO)
        with pytest.raises(StoppedError, match=r"nothing can be sorted into .*Disk quota exceeded"):
            tree.sort()

    assert tree.sort().tally.num_sorted == 8
    assert tree.unsort().num_left == 0
    assert (tree.target.exists(), list((tree.settings.home / "sorts").iterdir())) == (False, [])


def refuse_once_begun(tree: Tree, monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    """The target cannot be made, and the folder around it cannot be synced, with this error."""
    mkdir, fsync, around = os.mkdir, os.fsync, tree.target.parent.stat()

    def make(path: str, mode: int = 0o777) -> None:
        if path == str(tree.target):
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), path)
        mkdir(path, mode)

    def synced(descriptor: int) -> None:
        if os.path.samestat(os.fstat(descriptor), around):
            raise OSError(error, os.strerror(error))
        fsync(descriptor)

    monkeypatch.setattr(os, "mkdir", make)
    monkeypatch.setattr(os, "fsync", synced)


def test_a_read_only_source_is_refused_for_a_move_and_linked_and_copied_as_any_other(tree, mount, tmp_path):
    tree = make_tree(mount(1_000_000) / "t", ROWS, home=tmp_path / "home")
    tree.target = tmp_path / "sorted"
    remount(tree.root.parent.parent, "ro")

    with pytest.raises(UsageError, match=r"nothing can be moved out of .* use --link or --copy"):
        tree.sort("move")
    for mode in ("link", "copy"):
        assert tree.sort(mode).tally.num_sorted == 8
        assert tree.unsort().num_left == 0


@pytest.mark.parametrize("mode", ["link", "copy", "move"])
def test_a_target_on_another_file_system_takes_links_copies_and_moves(tree, mount, mode):
    before = snapshot(tree.root)
    tree.target = mount(1_000_000) / "sorted"

    assert tree.sort(mode).tally.num_sorted == 8
    assert (tree.target / "cat/3.jpg").read_bytes().startswith(b"image 3")
    assert len(list(tree.root.iterdir())) == (0 if mode == "move" else 8)
    assert tree.unsort().num_undone == 8
    assert snapshot(tree.root) == before


def test_an_image_with_attributes_that_the_target_does_not_hold_is_not_moved_there(tree, mount, monkeypatch):
    tree.target = mount(1_000_000) / "sorted"
    monkeypatch.setattr(os, "setxattr", _refuse)
    monkeypatch.setattr(os, "listxattr", lambda path: ["user.note"] if str(path).endswith("/3.jpg") else [])
    monkeypatch.setattr(os, "getxattr", lambda path, name: b"mine")

    tally = tree.sort("move").tally

    assert tally.named == [("3.jpg", "attributes")]
    assert [path.name for path in tree.root.iterdir()] == ["3.jpg"]
    assert tree.unsort().num_undone == 7


def test_a_copy_that_cannot_be_read_back_keeps_its_original(tree, mount, monkeypatch):
    tree.target = mount(1_000_000) / "sorted"
    monkeypatch.setattr("orchestrator.sorting.copying.same_content", lambda first, second: False)

    assert tree.sort("move").tally.left == {"copy differs": 8}
    assert len(list(tree.root.iterdir())) == 8
    assert tree.names() == set()


def test_a_file_that_changes_while_it_is_copied_is_left(tree, monkeypatch):
    sent = os.copy_file_range

    def write_meanwhile(reading: int, writing: int, count: int) -> int:
        with (tree.root / "3.jpg").open("ab") as file:
            file.write(b"more")
        return sent(reading, writing, count)

    monkeypatch.setattr(os, "copy_file_range", write_meanwhile)

    assert ("3.jpg", "changed") in tree.sort("copy").tally.named
    assert UnfitError("changed").reason == "changed"
    assert not list(tree.target.glob("cat/.*"))


def test_a_target_without_symbolic_links_is_refused_with_what_works(tree, monkeypatch):
    before = snapshot(tree.root.parent)
    monkeypatch.setattr(os, "symlink", _refuse)

    with pytest.raises(UsageError, match=r"takes no symbolic links \(Operation not permitted\); use --copy or --move"):
        tree.sort()
    assert snapshot(tree.root.parent).keys() - before.keys() == {"home", "home/sorts"}
    assert tree.sort("copy").tally.num_sorted == 8


def test_without_hard_links_files_are_moved_by_renaming(tree, monkeypatch):
    monkeypatch.setattr(os, "link", _refuse)

    assert tree.sort("move").tally.num_sorted == 8
    assert tree.unsort().num_undone == 8
    assert tree.sort("copy").tally.num_sorted == 8


def test_names_are_tried_and_this_file_system_is_found_to_keep_them(tmp_path):
    with probed(str(tmp_path)) as target:
        assert target.holds("a:b")
        assert target.link_refusal is None
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_changes_names_is_found_by_trying(tmp_path, monkeypatch):
    opened = os.open

    def open_folded(path: object, flags: int, *args: int, **more: int) -> int:
        if not flags & os.O_EXCL:
            return opened(path, flags, *args, **more)
        name = Path(str(path))
        return opened(name.with_name(name.name.lower().rstrip(". ")), flags, *args, **more)

    monkeypatch.setattr(os, "open", open_folded)
    with probed(str(tmp_path)) as target:
        assert not target.is_faithful
        assert [target.holds(name) for name in ("Plain name.JPG", "é.jpg", "end.", "É.jpg")] == [
            True,
            True,
            False,
            False,
        ]


def test_names_that_the_target_does_not_hold_are_replaced_and_those_that_it_confuses_differ(tmp_path):
    rows = [
        answered(name, "a: b") for name in ("x/1:2.jpg", "x/A.jpg", "y/a.jpg", "y/end.", os.fsdecode(b"y/\xe9.jpg"))
    ]
    tree = make_tree(tmp_path, rows)
    target = Target(False, lambda name: name.isascii() and ":" not in name and not name.endswith("."), None)
    planner = Planner(Wanted(str(tree.root), str(tree.target), "label", "link"), ["a: b"], [], target, {})
    batch = planner.new_batch()

    for number, row in enumerate(rows, start=1):
        planner.plan(batch, number, row, None)

    names = [Path(entry.target).name.partition("~")[0] for entry in batch.entries.values()]
    assert names == ["1_2", "A.jpg", "a", "end_", "_"]
    assert {Path(entry.target).parent.name.partition("~")[0] for entry in batch.entries.values()} == {"a_ b"}
    assert isinstance(batch, Batch)


def _refuse(*args: object, **kwargs: object) -> None:
    raise PermissionError(1, "Operation not permitted")


def test_a_sort_and_its_undoing_leave_nothing_in_the_home(tree):
    tree.sort()
    tree.unsort()

    assert list((tree.settings.home / "sorts").iterdir()) == []
    shutil.rmtree(tree.settings.home)
