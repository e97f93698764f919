"""What ends a process that finishes nothing."""

import os

import pytest

from tests.support.fakes import exit_code_of
from workers import hang_guard
from workers.hang_guard import HANG, HangGuard


def ends(descriptor: int) -> int:
    def end() -> None:
        guard = HangGuard()
        with guard.writing_to(descriptor):
            guard.end(70)

    return exit_code_of(end)


def test_a_process_writes_where_its_threads_are_before_it_ends(tmp_path):
    descriptor = os.open(tmp_path / "frames", os.O_WRONLY | os.O_CREAT)

    assert ends(descriptor) == 70

    assert (tmp_path / "frames").read_bytes().startswith(HANG)
    assert b"test_hang_guard.py" in (tmp_path / "frames").read_bytes()


def test_a_full_disk_keeps_no_process_from_its_end():
    assert ends(os.open("/dev/full", os.O_WRONLY)) == 70


@pytest.mark.timeout(60)
def test_a_disk_that_hangs_keeps_no_process_from_its_end(monkeypatch):
    monkeypatch.setattr(hang_guard, "WRITE_S", 0.1)
    _, writing = os.pipe()  # nobody reads it
    os.set_blocking(writing, False)
    try:
        while True:
            os.write(writing, bytes(4096))
    except BlockingIOError:
        os.set_blocking(writing, True)

    assert ends(writing) == 70
