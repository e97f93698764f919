"""Checkpoints: the complete state of a run in one file, so that it can resume as if it had never stopped.

The order of images and all random numbers follow from the seed and the step (optimizer.seed_of), so no random state is
saved. Each checkpoint has a name of its own, and the one before it stays: if the disk damages the last one, its trailer
shows it, and the run resumes from the one before.
"""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch

from modeling.durable import decode_json, replaced_durably, sync_file
from modeling.errors import ModelFormatError
from modeling.training.attempt import CheckpointName, attempt_number, check_last, checkpoints_in

CHECKPOINT_VERSION = 2
_NUM_KEPT = 2
_TRAILER_BYTES = 256


class CheckpointVersionError(ModelFormatError):
    """A checkpoint of another version of Pigeonhole."""


class Checkpoints:
    """The checkpoints of one stage of a training.

    attempt: the file of the attempt that this process makes (see modeling.training.attempt). run: a fingerprint of what
    is trained; only checkpoints with the same one are used.
    """

    def __init__(self, folder: Path, stage: str, *, run: str, attempt: Path | None = None) -> None:
        self._folder = folder
        self._stage = stage
        self._run = run
        self._attempt = attempt

    def newest(self) -> Path | None:
        """The last checkpoint that was saved; None if there is none."""
        names = self._names()
        return self._folder / str(names[0]) if names else None

    def load(self, on_note: Callable[[str], None] = lambda text: None) -> dict[str, Any] | None:
        """The state of the last checkpoint that is whole and belongs to this run; None if there is none.

        on_note: receives why a later one was not used. A damaged one is renamed.

        Raises:
            OSError: the storage is away. This says nothing about the checkpoint.
        """
        for name in self._names():
            path = self._folder / str(name)
            try:
                state = read_checkpoint(path)
            except FileNotFoundError:
                continue  # another attempt has just removed it
            except CheckpointVersionError as err:
                on_note(f"{err}; it is kept as {_put_aside(path, '.other-version').name}")
            except ModelFormatError as err:
                on_note(f"{err}; it is kept as {_put_aside(path, '.damaged').name}")
            else:
                if state["run"] == self._run:
                    return state
                on_note(f"{path} belongs to another training: its images, options or weights differ; not used")
        return None

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write the state; the checkpoint before stays, earlier ones are removed.

        Raises:
            SupersededError: a later attempt works on this training.
            OSError: the disk is full or another write error occurs; the checkpoint before stays.
        """
        check_last(self._attempt)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._remove_all_but(_NUM_KEPT - 1)  # before, so that the disk need not hold three of them
        path = self._folder / str(CheckpointName(attempt_number(self._attempt), step, self._stage))
        write_checkpoint(path, {"run": self._run, **state}, before_rename=lambda: check_last(self._attempt))

    def _remove_all_but(self, num_kept: int) -> None:
        """Remove older checkpoints and unfinished ones of this attempt and of earlier ones, not of later ones."""
        for name in self._names()[num_kept:]:
            if name.attempt <= attempt_number(self._attempt):
                (self._folder / str(name)).unlink(missing_ok=True)
        for path in self._folder.glob(".*.checkpoint.*.tmp"):  # of processes that were killed
            written = CheckpointName.parse(path.name[1:].rsplit(".", 2)[0])
            if written is not None and written.attempt <= attempt_number(self._attempt):
                path.unlink(missing_ok=True)

    def _names(self) -> list[CheckpointName]:
        """This stage's checkpoints, the last one first."""
        return sorted((name for name in checkpoints_in(self._folder) if name.stage == self._stage), reverse=True)


def write_checkpoint(path: Path, state: dict[str, Any], *, before_rename: Callable[[], None] = lambda: None) -> None:
    """Write the state to a file, whole or not at all.

    before_rename: called once the state is on the disk and before the file gets its name; may raise.
    """
    with replaced_durably(path, mode=None) as file:
        hashing = _HashingFile(file)
        _write(hashing, state)
        trailer = {"checkpoint_version": CHECKPOINT_VERSION, "sha256": hashing.digest.hexdigest()}
        file.write(json.dumps(trailer).encode().ljust(_TRAILER_BYTES))
        sync_file(file)
        before_rename()


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The state in the file.

    Raises:
        ModelFormatError: the file is damaged. CheckpointVersionError: it is of another version.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END) - _TRAILER_BYTES
        if size < 0:
            raise ModelFormatError(f"{path}: the checkpoint is damaged (it is cut off)")
        file.seek(size)
        trailer = decode_json(file.read(), f"{path}: the checkpoint is damaged")
        found = trailer.get("checkpoint_version") if isinstance(trailer, dict) else None
        if found != CHECKPOINT_VERSION:
            raise CheckpointVersionError(
                f"{path}: the checkpoint has version {found!r}, this Pigeonhole reads version {CHECKPOINT_VERSION}"
            )
        file.seek(0)
        if _digest_of(file, size) != trailer.get("sha256"):  # torch does not check the sums in its files
            raise ModelFormatError(f"{path}: the checkpoint is damaged (its content is not what was written)")
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def _digest_of(file: IO[bytes], size: int) -> str:
    digest = hashlib.sha256()
    while size > 0 and (block := file.read(min(size, 1 << 20))):
        digest.update(block)
        size -= len(block)
    return digest.hexdigest()


def _put_aside(path: Path, suffix: str) -> Path:
    return path.replace(path.with_name(path.name + suffix))


class _HashingFile:
    """A file for torch to write to, and the digest of what it writes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def _write(file: Any, state: dict[str, Any]) -> None:
    """Save the state; torch's zip writer reports a full disk as a RuntimeError without the reason."""
    try:
        torch.save(state, file)
    except RuntimeError as err:
        cause = err.__context__
        raise cause if isinstance(cause, OSError) else OSError(str(err)) from err
