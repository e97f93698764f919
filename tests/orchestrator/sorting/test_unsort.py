"""An unsort puts back what a sort has changed, and leaves what somebody has changed since."""

import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.contract.errors import MessageError, NotFoundError, UsageError
from orchestrator.sorting import changes, copying
from orchestrator.sorting import unsort as unsort_module
from orchestrator.sorting.begin import StoppedError
from orchestrator.sorting.journal import JOURNAL, Journal
from tests.support.invoke import invoke
from tests.support.sorting import OLD_NS, Tree, answered, failed, make_old, make_tree, snapshot, write_manifest

ROWS = [
    answered("a.jpg", "cat"),
    answered("march/a.jpg", "cat"),
    answered("march/deep/é,b.jpg", "dog"),
    failed("bad.jpg"),
]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return make_tree(tmp_path / "t", ROWS, home=tmp_path / "home")


def change(path: Path) -> None:
    """Write something else of the same size, a moment later."""
    before = path.stat()
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


@pytest.mark.parametrize("mode", ["link", "copy", "move"])
@pytest.mark.parametrize("existing", [False, True])
def test_everything_is_as_before_with_names_and_times(tree, mode, existing):
    if existing:
        (tree.target / "cat").mkdir(parents=True)
        (tree.target / "cat/a.jpg").write_bytes(b"mine")
        make_old(tree.target)
    os.utime(tree.root.parent, ns=(OLD_NS, OLD_NS))
    before = snapshot(tree.root.parent)

    tree.sort(mode)
    result = tree.unsort()

    assert (result.num_undone, result.num_left) == (4, 0)
    assert snapshot(tree.root.parent) == before


@pytest.mark.parametrize("mode", ["copy", "move"])
def test_what_was_changed_since_is_left_and_named_until_it_is_in_order(tree, mode):
    tree.sort(mode)
    change(tree.target / "cat/a.jpg")

    first = tree.unsort()

    assert (first.num_undone, first.left) == (3, [("cat/a.jpg", "a.jpg", "changed")])
    assert tree.names() == {"cat/a.jpg"}
    lines = [json.loads(line) for line in (tree.target / JOURNAL).read_text().splitlines()]
    assert [line["to"] for line in lines if "to" in line] == ["cat/a.jpg"]
    assert tree.unsort(dry_run=True).num_left == 1
    with pytest.raises(UsageError, match=r"holds files that an unsort has left"):
        tree.sort(mode)
    (tree.target / "cat/a.jpg").rename(tree.root / "a.jpg")
    assert tree.unsort().num_left == 0
    assert not tree.target.exists()


def test_another_file_in_the_place_of_a_link_is_left(tree):
    tree.sort()
    (tree.target / "cat/a.jpg").unlink()
    (tree.target / "cat/a.jpg").write_bytes(b"mine")

    assert tree.unsort().left == [("cat/a.jpg", "a.jpg", "changed")]
    assert (tree.target / "cat/a.jpg").read_bytes() == b"mine"


def test_a_link_that_somebody_removed_is_nothing_to_undo(tree):
    tree.sort()
    (tree.target / "cat/a.jpg").unlink()

    assert tree.unsort().num_left == 0
    assert not tree.target.exists()


def test_a_moved_image_whose_place_is_taken_is_left(tree):
    tree.sort("move")
    (tree.root / "a.jpg").write_bytes(b"another")

    assert tree.unsort().left == [("cat/a.jpg", "a.jpg", "changed")]
    assert (tree.root / "a.jpg").read_bytes() == b"another"
    assert (tree.target / "cat/a.jpg").read_bytes() == b"image 0"


def test_a_moved_image_that_somebody_took_away_is_named(tree, tmp_path):
    tree.sort("move")
    (tree.target / "cat/a.jpg").rename(tmp_path / "a.jpg")

    assert tree.unsort().left == [("cat/a.jpg", "a.jpg", "gone")]


def test_files_of_the_user_in_folders_that_the_sort_made_stay_with_their_folders(tree):
    tree.sort()
    (tree.target / "cat/mine.txt").write_text("mine")
    (tree.target / "empty").mkdir()

    assert tree.unsort().num_left == 0
    assert sorted(path.name for path in tree.target.rglob("*")) == ["cat", "empty", "mine.txt"]


def test_the_time_of_the_folder_around_stays_where_somebody_put_something_there_since(tree):
    tree.sort()
    (tree.root.parent / "new.txt").write_text("mine")
    os.utime(tree.root.parent, ns=(OLD_NS, OLD_NS))
    tree.unsort()

    assert tree.root.parent.stat().st_mtime_ns > OLD_NS


def test_folders_of_the_source_that_were_removed_when_they_were_empty_come_back(tree):
    before = {name: facts[2] for name, facts in snapshot(tree.root).items()}
    tree.sort("move")
    shutil.rmtree(tree.root / "march")

    assert tree.unsort().num_left == 0
    assert {name: facts[2] for name, facts in snapshot(tree.root).items()} == before


def test_a_source_that_is_away_or_not_mounted_is_an_error_and_nothing_is_moved(tree, tmp_path):
    tree.sort("move")
    tree.root.rename(tmp_path / "away")
    before = snapshot(tree.target)

    with pytest.raises(NotFoundError, match=r"is not there; mount it"):
        tree.unsort()
    tree.root.mkdir()
    with pytest.raises(NotFoundError, match=r"is another folder than before, and empty; is it mounted\?"):
        tree.unsort()
    assert snapshot(tree.target) == before


def test_a_dry_run_changes_nothing(tree):
    tree.sort("move")
    change(tree.target / "cat/a.jpg")
    before = snapshot(tree.root.parent)

    result = tree.unsort(dry_run=True)

    assert (result.num_undone, result.num_left) == (3, 1)
    assert snapshot(tree.root.parent) == before


def test_a_folder_without_a_journal_is_named(tree):
    tree.target.mkdir()

    with pytest.raises(NotFoundError, match=r"holds no journal of a sort"):
        tree.unsort()


@pytest.mark.parametrize(
    "line",
    [
        '{"row": 1, "from": "a.jpg", "to": "../out.csv", "size": 1, "mtime_ns": 1, "mode": 1, "uid": 0, "gid": 0}',
        '{"row": 1, "from": "/etc/passwd", "to": "cat/a.jpg"}',
        '{"folder": "..", "label": "x", "made": true, "mtime_ns": null}',
        '{"row": "1", "from": "a.jpg", "to": "cat/a.jpg"}',
        '{"else": 1}',
        "[1]",
        "no JSON",
    ],
)
def test_a_journal_that_no_sort_has_written_is_refused(tree, line):
    tree.sort()
    with (tree.target / JOURNAL).open("a") as file:
        file.write(line + "\n")

    with pytest.raises(MessageError, match=r"is damaged: no sort writes the line"):
        tree.unsort()


@pytest.mark.parametrize(
    ("old", "new"), [('"pigeonhole_sort": 1', '"pigeonhole_sort": 2'), ('"mode": "link"', '"mode": 1')]
)
def test_a_head_of_another_version_or_damaged_is_refused(tree, old, new):
    tree.sort()
    journal = tree.target / JOURNAL
    journal.write_text(journal.read_text().replace(old, new, 1))

    with pytest.raises(MessageError, match=r"is not a journal of a sort of version 1|is damaged: mode"):
        tree.unsort()


def test_the_command_names_what_it_leaves_and_exits_with_1(tree, monkeypatch):
    monkeypatch.setenv("PIGEONHOLE_HOME", str(tree.settings.home))
    tree.sort("move")
    change(tree.target / "cat/a.jpg")

    result = invoke("results", "unsort", tree.target)
    as_json = invoke("results", "unsort", tree.target, "--json")

    assert result.exit_code == 1
    assert "left: cat/a.jpg (from a.jpg) was changed since" in result.stderr
    assert json.loads(as_json.stdout)["left"] == [{"path": "cat/a.jpg", "source": "a.jpg", "reason": "changed"}]


def test_times_of_folders_of_other_users_stay_as_they_are(tree, monkeypatch):
    set_time = os.utime

    def refuse_folders(path: object, **times: tuple[int, int]) -> None:
        if isinstance(path, str) and Path(path).is_dir():
            raise PermissionError(1, "Operation not permitted")
        set_time(path, **times)

    tree.sort("move")
    monkeypatch.setattr(os, "utime", refuse_folders)

    assert tree.unsort().num_left == 0
    assert (tree.root / "march/a.jpg").exists()


def test_an_error_names_the_place_that_cannot_be_written(tree, monkeypatch):
    tree.sort("move")

    def refuse(source: str, target: str, **more: bool) -> None:
        raise PermissionError(13, "Permission denied", source, None, target)

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, "rename", refuse)

    with pytest.raises(StoppedError, match=rf"Permission denied: '{tree.root}/a.jpg'.*0 images are undone"):
        tree.unsort()


def test_nothing_in_the_target_is_open_when_it_is_removed(tree, monkeypatch):
    removed = os.rmdir

    def remove(path: str, **more: int) -> None:
        opened = [str(descriptor.resolve()) for descriptor in Path("/proc/self/fd").iterdir()]
        assert path != str(tree.target) or not any(place.startswith(path) for place in opened)
        removed(path, **more)

    tree.sort()
    monkeypatch.setattr(os, "rmdir", remove)
    tree.unsort()

    assert not tree.target.exists()


def test_two_sorts_out_of_one_folder_do_not_write_to_one_name(tmp_path, monkeypatch):
    tree = make_tree(tmp_path / "t", [answered(name, "cat") for name in ("a.jpg", "b.jpg")], home=tmp_path / "home")
    write_manifest(tree.manifest, tree.root, [answered("a.jpg", "cat")])
    other = replace(tree, manifest=tmp_path / "other.csv", target=tmp_path / "other")
    write_manifest(other.manifest, tree.root, [answered("b.jpg", "cat")])
    before = snapshot(tree.root)
    tree.sort("move")
    other.sort("move")
    monkeypatch.setattr(changes, "name_once", refuse_other_file_systems)
    named = copying.name_once

    def name_after_the_other(temporary: str, target: str) -> None:
        monkeypatch.setattr(copying, "name_once", named)
        other.unsort()
        named(temporary, target)

    monkeypatch.setattr(copying, "name_once", name_after_the_other)

    assert tree.unsort().num_undone == 1
    assert snapshot(tree.root) == before


def test_an_image_that_is_changed_while_it_goes_back_to_another_file_system_stays_beside_what_went_back(
    tree, monkeypatch
):
    tree.sort("move")
    monkeypatch.setattr(changes, "name_once", refuse_other_file_systems)
    synced = unsort_module.sync

    def change_and_sync(folder: str) -> None:
        if folder == str(tree.root):
            change(tree.target / "cat/a.jpg")
        synced(folder)

    monkeypatch.setattr(unsort_module, "sync", change_and_sync)
    result = tree.unsort()

    assert (result.num_undone, result.left) == (3, [("cat/a.jpg", "a.jpg", "changed")])
    assert (tree.target / "cat/a.jpg").read_bytes() == b"0 egami"
    assert (tree.root / "a.jpg").read_bytes() == b"image 0"


def refuse_other_file_systems(source: str, target: str) -> None:
    raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), source, None, target)


def test_an_image_that_may_not_be_put_back_is_left_and_the_others_go_back(tree, monkeypatch):
    tree.sort("move")
    may = os.access
    named = changes.name_once

    def refuse(source: str, target: str) -> None:
        if target.startswith(f"{tree.root}/march/"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), source, None, target)
        named(source, target)

    monkeypatch.setattr(changes, "name_once", refuse)
    monkeypatch.setattr(os, "access", lambda path, mode: "/march" not in str(path) and may(path, mode))
    result = tree.unsort()

    assert result.num_undone == 2
    assert {(source, why) for _, source, why in result.left} == {
        ("march/a.jpg", "permission"),
        ("march/deep/é,b.jpg", "permission"),
    }
    monkeypatch.undo()
    assert tree.unsort().num_left == 0
    assert not tree.target.exists()


def test_what_a_kill_left_of_a_copy_goes_from_the_source_although_the_image_was_changed_since(tree):
    tree.sort("move")
    mark = json.loads((tree.target / JOURNAL).read_text().partition("\n")[0])["mark"]
    (tree.root / f".pigeonhole-sort.{mark}.1.tmp").write_bytes(b"ima")
    change(tree.target / "cat/a.jpg")

    assert tree.unsort().left == [("cat/a.jpg", "a.jpg", "changed")]
    assert [path.name for path in tree.root.rglob(".*")] == []


def test_what_replaces_an_image_while_it_is_moved_is_not_lost(tree, tmp_path, monkeypatch):
    link = os.link

    def link_and_replace(source: str, target: str, **more: bool) -> None:
        link(source, target, **more)
        if source == f"{tree.root}/a.jpg":
            (tmp_path / "new.jpg").write_bytes(b"edited")
            (tmp_path / "new.jpg").rename(source)

    monkeypatch.setattr(os, "link", link_and_replace)

    assert ("a.jpg", "changed") in tree.sort("move").tally.named
    assert (tree.root / "a.jpg").read_bytes() == b"edited"
    assert tree.unsort().num_left == 0
    assert (tree.root / "a.jpg").read_bytes() == b"edited"


def test_an_image_that_is_listed_twice_is_not_gone_after_a_kill(tmp_path, monkeypatch):
    tree = make_tree(tmp_path, [answered("a.jpg", "cat"), answered("a.jpg", "cat")])

    def stop(journal: Journal, lines: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "append_later", stop)
    with pytest.raises(KeyboardInterrupt):
        tree.sort("move")
    result = tree.unsort()

    assert (result.num_undone, result.left) == (1, [])
    assert [path.name for path in tree.root.iterdir()] == ["a.jpg"]
