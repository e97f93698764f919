"""Checkpoints: the complete state of a run in one file, so that it can resume as if it had never stopped.

The order of images and all random numbers follow from the seed and the step (optimizer.seed_of), so no random state is
saved.
"""

from pathlib import Path
from typing import Any

import torch

from modeling.durable import replaced_durably
from modeling.errors import ModelFormatError

CHECKPOINT_VERSION = 1


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write the state atomically: the previous checkpoint stays until this one is on disk.

    Raises:
        OSError: the disk is full or another write error occurs.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_durably(path, mode=None) as file:
        _write(file, {"checkpoint_version": CHECKPOINT_VERSION, **state})


def _write(file: Any, state: dict[str, Any]) -> None:
    """Save the state; torch's zip writer reports a full disk as a RuntimeError without the reason."""
    try:
        torch.save(state, file)
    except RuntimeError as err:
        cause = err.__context__
        raise cause if isinstance(cause, OSError) else OSError(str(err)) from err


def load_checkpoint(path: Path, *, run: str) -> dict[str, Any] | None:
    """The state of the checkpoint of the run with that fingerprint; None if there is none.

    Raises:
        ModelFormatError: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if state["checkpoint_version"] != CHECKPOINT_VERSION or state["run"] != run:
            return None
    except Exception as err:  # a damaged zip can raise anything
        raise ModelFormatError(f"{path}: the checkpoint is damaged ({err}); remove it to train from the start") from err
    return state
