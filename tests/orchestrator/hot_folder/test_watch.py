"""When something in `in/` is complete, and what is never taken."""

import os

import pytest

from orchestrator.hot_folder.folders import MARKER
from orchestrator.hot_folder.watch import FOLDER_SETTLES_S, SMALL_SETTLES_S, Ready, Watcher
from tests.support.manual_clock import ManualClock


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def watcher(tmp_path, clock):
    return Watcher(tmp_path, 1, clock)


def poll(watcher, clock, after_s=1.0):
    clock.now += after_s
    return watcher.poll()


def test_a_file_is_ready_when_two_polls_see_the_same(tmp_path, watcher, clock):
    (tmp_path / "a.jpg").write_bytes(b"half")

    assert poll(watcher, clock) == []
    (tmp_path / "a.jpg").write_bytes(b"half and more")
    assert poll(watcher, clock) == []
    assert watcher.num_waiting == 1
    assert poll(watcher, clock) == [Ready("a.jpg", "image")]
    assert poll(watcher, clock) == []


def test_a_file_that_is_replaced_by_one_of_the_same_size_is_looked_at_anew(tmp_path, watcher, clock):
    (tmp_path / "a.jpg").write_bytes(b"one")
    poll(watcher, clock)
    (tmp_path / "new").write_bytes(b"two")
    os.utime(tmp_path / "new", ns=(0, (tmp_path / "a.jpg").stat().st_mtime_ns))
    (tmp_path / "new").rename(tmp_path / "a.jpg")

    assert poll(watcher, clock) == []


def test_what_could_not_be_claimed_is_given_again(tmp_path, watcher, clock):
    (tmp_path / "a.jpg").write_bytes(b"one")
    poll(watcher, clock)
    [ready] = poll(watcher, clock)
    watcher.forget(ready.name)
    poll(watcher, clock)

    assert poll(watcher, clock) == [ready]


@pytest.mark.parametrize(
    "name",
    [".hidden", "~$a.docx", "a.jpg.tmp", "a.PART", "Thumbs.db", "desktop.ini", "@eaDir", "a.jpg.filepart", "._a.jpg"],
)
def test_unfinished_files_and_what_systems_leave_are_left_alone(tmp_path, watcher, clock, name):
    (tmp_path / name).write_bytes(b"x")

    assert [poll(watcher, clock, SMALL_SETTLES_S) for _ in range(3)] == [[], [], []]
    assert watcher.num_waiting == 0


def test_the_countdown_of_a_folder_starts_again_with_each_file(tmp_path, watcher, clock):
    (tmp_path / "batch" / "inner").mkdir(parents=True)
    assert poll(watcher, clock) == poll(watcher, clock, FOLDER_SETTLES_S) == []  # empty: somebody is about to fill it
    (tmp_path / "batch" / "inner" / "0.jpg").write_bytes(b"x")
    poll(watcher, clock)
    poll(watcher, clock, FOLDER_SETTLES_S - 1)
    (tmp_path / "batch" / "inner" / "1.jpg").write_bytes(b"x")

    assert poll(watcher, clock) == []
    assert poll(watcher, clock, FOLDER_SETTLES_S - 1) == []
    assert poll(watcher, clock) == [Ready("batch", "folder")]


def test_a_folder_that_holds_a_hot_folder_is_left_alone(tmp_path, watcher, clock):
    (tmp_path / "batch" / "inner").mkdir(parents=True)
    (tmp_path / "batch" / "inner" / MARKER).write_bytes(b"{}")
    (tmp_path / "batch" / "inner" / "0.jpg").write_bytes(b"x")

    assert poll(watcher, clock) == poll(watcher, clock, FOLDER_SETTLES_S) == []


def test_a_folder_that_cannot_be_read_waits_one_look_and_is_named_until_it_can(tmp_path, watcher, clock, monkeypatch):
    (tmp_path / "batch" / "inner").mkdir(parents=True)
    (tmp_path / "batch" / "inner" / "0.jpg").write_bytes(b"x")
    scandir, found = os.scandir, []

    def refuse(path):
        if str(path).endswith("inner"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        for _ in range(2):
            assert poll(watcher, clock) == []
            found.append((watcher.num_waiting, watcher.unreadable))
    poll(watcher, clock)
    found.append((watcher.num_waiting, watcher.unreadable))

    assert found == [(1, {}), (0, {"batch": "Permission denied"}), (1, {})]
    assert poll(watcher, clock, FOLDER_SETTLES_S) == [Ready("batch", "folder")]


def test_a_small_file_gets_a_minute_to_be_written(tmp_path, watcher, clock):
    (tmp_path / "a.jpg").touch()

    assert poll(watcher, clock) == poll(watcher, clock) == []
    assert poll(watcher, clock, SMALL_SETTLES_S) == [Ready("a.jpg", "image")]


def test_the_oldest_come_first_and_each_has_its_kind(tmp_path, watcher, clock):
    for number, name in enumerate(("b.zip", "a.jpg")):
        (tmp_path / name).write_bytes(b"x")
        os.utime(tmp_path / name, (number, number))
    (tmp_path / "link.jpg").symlink_to("a.jpg")
    os.utime(tmp_path / "link.jpg", (3, 3), follow_symlinks=False)
    poll(watcher, clock)

    assert [(ready.name, ready.kind) for ready in poll(watcher, clock)] == [
        ("b.zip", "zip"), ("a.jpg", "image"), ("link.jpg", "other"),
    ]  # fmt: skip
