"""The attempts at a training: processes that work on it one after another, and the names of their checkpoints.

Each attempt has a number and a file of that number; the file of a later one ends it. A process that was frozen, or cut
off from the server, may live beside its successor: it writes to names of its own, which the successor does not read,
and ends itself before its next checkpoint.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_CHECKPOINT = re.compile(r"([a-z-]+)\.(\d+)\.(\d+)\.checkpoint")


class SupersededError(Exception):
    """A later attempt works on the training: this process must write nothing more."""


def attempt_number(attempt: Path | None) -> int:
    """The number of the attempt with this file; 0 without one."""
    return 0 if attempt is None else int(attempt.stem)


def check_last(attempt: Path | None) -> None:
    """Raises SupersededError if a later attempt has begun, OSError if that cannot be found out."""
    if attempt is None:
        return
    numbers = [int(path.stem) for path in attempt.parent.iterdir() if path.stem.isdecimal()]
    if max(numbers, default=0) > attempt_number(attempt):
        raise SupersededError(f"attempt {max(numbers)} has begun")


@dataclass(frozen=True, slots=True, order=True)
class CheckpointName:
    """The name of a checkpoint; those that count more are greater.

    attempt: that wrote it. step: the steps that were done. stage: of the training, such as `scratch`.
    """

    attempt: int
    step: int
    stage: str

    def __str__(self) -> str:
        return f"{self.stage}.{self.attempt}.{self.step}.checkpoint"

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """The reverse of `str`; None for any other name."""
        match = _CHECKPOINT.fullmatch(name)
        return cls(int(match[2]), int(match[3]), match[1]) if match else None


def checkpoints_in(folder: Path) -> Iterator[CheckpointName]:
    """The names of all checkpoints in a folder, which need not exist."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    yield from filter(None, map(CheckpointName.parse, names))


def has_progressed(folder: Path, attempt: int) -> bool:
    """Whether this attempt has saved a checkpoint, other than that of the very beginning."""
    return any(name.attempt == attempt and name.step > 0 for name in checkpoints_in(folder))
