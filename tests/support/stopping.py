"""Stops a piece of code at one of its changes to the disk, as a kill would: nothing that follows has an effect.

Or lets that change fail, once, with an error of the system.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

_CHANGES = (
    "write", "fsync", "mkdir", "rmdir", "unlink", "remove", "rename", "replace", "link", "symlink", "utime", "chmod",
    "fchmod", "chown", "fchown", "ftruncate", "setxattr", "copy_file_range",
)  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Stopped(BaseException):
    """The code was stopped; no handler of errors takes it."""


class Stopper:
    """Counts changes. at: the number of the change, from 0, that is not made, or of a write that is made in part.

    error: an errno: only that change fails, with an OSError.
    """

    def __init__(self, at: int | None, error: int | None = None) -> None:
        self.at = at
        self._error = error
        self.num_steps = 0
        self._opened: list[int] = []

    @property
    def stopped(self) -> bool:
        return self._error is None and self.at is not None and self.num_steps > self.at

    def step(self) -> None:
        self.num_steps += 1
        if self.stopped:
            raise Stopped
        if self._error is not None and self.num_steps == (self.at or 0) + 1:
            raise OSError(self._error, os.strerror(self._error))

    def change(self, call: Callable[..., Any], name: str) -> Callable[..., Any]:
        def changed(*args: Any, **kwargs: Any) -> Any:
            if name == "write" and self.num_steps == self.at and len(args[1]) > 1:
                call(args[0], bytes(args[1])[: len(args[1]) // 2])
            self.step()
            return None if name == "fsync" else call(*args, **kwargs)  # processes are killed here, not machines

        return changed

    def open(self, call: Callable[..., int]) -> Callable[..., int]:
        def opened(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
            if flags & _WRITING:
                self.step()
            descriptor = call(path, flags, *args, **kwargs)
            self._opened.append(descriptor)
            return descriptor

        return opened

    def close_all(self) -> None:
        """Close what the code has left open, so that its locks are free."""
        for descriptor in self._opened:
            if _is_open(descriptor):
                os.close(descriptor)


@contextlib.contextmanager
def stopped_at(at: int | None) -> Iterator[Stopper]:
    """In this block, code is stopped at a change to the disk; None: changes are only counted."""
    with _counting(Stopper(at)) as stopper:
        yield stopper


@contextlib.contextmanager
def failing_at(at: int, error: int) -> Iterator[Stopper]:
    """In this block, one change to the disk fails with this errno; the next ones do not."""
    with _counting(Stopper(at, error)) as stopper:
        yield stopper


@contextlib.contextmanager
def _counting(stopper: Stopper) -> Iterator[Stopper]:
    changed: dict[str, Any] = {name: stopper.change(getattr(os, name), name) for name in _CHANGES}
    with mock.patch.multiple(os, **changed, open=stopper.open(os.open)):
        try:
            with contextlib.suppress(Stopped):
                yield stopper
        finally:
            if stopper.stopped:
                stopper.close_all()


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
