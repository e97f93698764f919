"""Checkpoints: everything a run needs to go on as if it had never stopped, in one file.

A step's order and chance follow from seed and position (schedule.seed_of), so no random state needs saving.
"""

from pathlib import Path
from typing import Any

import torch

from modeling.durable import replaced_durably
from modeling.errors import ModelFormatError

CHECKPOINT_VERSION = 1


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write the state, whole or not at all: the one before stays until this one is on disk.

    Raises:
        OSError: the disk is full, or refuses otherwise.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_durably(path, mode=None) as file:
        _write(file, {"checkpoint_version": CHECKPOINT_VERSION, **state})


def _write(file: Any, state: dict[str, Any]) -> None:
    """Save; torch's zip writer reports a full disk as a RuntimeError that hides the reason."""
    try:
        torch.save(state, file)
    except RuntimeError as err:
        cause = err.__context__
        raise cause if isinstance(cause, OSError) else OSError(str(err)) from err


def load_checkpoint(path: Path, *, run: str) -> dict[str, Any] | None:
    """The state in a checkpoint of the run with that fingerprint; None where there is no checkpoint of it.

    Raises:
        ModelFormatError: the file is damaged.
    """
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if state["checkpoint_version"] != CHECKPOINT_VERSION or state["run"] != run:
            return None
    except Exception as err:  # a damaged zip raises anything
        raise ModelFormatError(f"{path}: the checkpoint is damaged ({err}); remove it to train from the start") from err
    return state
