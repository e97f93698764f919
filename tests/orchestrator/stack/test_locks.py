"""Locks that a process inherits and keeps as long as it lives."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from orchestrator.stack.locks import find_holders, is_locked, take_lock


@pytest.fixture(params=["folder", "file"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """What is locked: a folder, or a file that does not exist yet."""
    if request.param == "folder":
        (tmp_path / "it").mkdir()
    return tmp_path / "it"


def start_with(lock: int) -> "subprocess.Popen[bytes]":
    """A process that inherits a descriptor and waits for the end of its input."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock,))
    os.close(lock)
    return child


def test_a_lock_is_its_process_and_ends_with_it(path: Path):
    lock = take_lock(path)
    assert lock is not None
    child = start_with(lock)

    assert is_locked(path)
    assert take_lock(path) is None
    assert find_holders(path) == [(child.pid, psutil.Process(child.pid).create_time())]

    child.kill()
    child.communicate()
    assert not is_locked(path)
    assert find_holders(path) == []


def test_who_only_looks_at_a_file_holds_no_lock(path: Path):
    lock = take_lock(path)
    assert lock is not None
    onlooker = start_with(os.open(path, os.O_RDONLY))

    assert find_holders(path) == []  # the holder itself is not counted

    onlooker.kill()
    onlooker.communicate()
    os.close(lock)


def test_nothing_is_locked_where_nothing_is(tmp_path: Path):
    assert not is_locked(tmp_path / "missing")
    assert find_holders(tmp_path / "missing") == []
    assert not (tmp_path / "missing").exists()


def test_where_folders_cannot_be_locked_a_file_in_them_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    flock = fcntl.flock

    def of_files_only(descriptor: int, operation: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").is_dir():
            raise OSError(errno.EBADF, "Bad file descriptor")
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", of_files_only)
    lock = take_lock(tmp_path)
    assert lock is not None
    child = start_with(lock)

    assert take_lock(tmp_path) is None
    assert [pid for pid, _ in find_holders(tmp_path)] == [child.pid]
    assert [entry.name for entry in tmp_path.iterdir()] == ["lock"]

    child.kill()
    child.communicate()


def test_a_link_in_the_place_of_a_lock_is_not_followed(tmp_path: Path):
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(OSError, match="symbolic links"):
        take_lock(tmp_path / "lock")
    assert not (tmp_path / "elsewhere").exists()
