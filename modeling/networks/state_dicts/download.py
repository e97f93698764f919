"""torchvision's pre-trained weights: downloaded once, with their preprocessing."""

import contextlib
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import torch

from modeling.errors import ModelingError
from modeling.images.preprocessing import Preprocessing
from modeling.images.progress import OnProgress
from modeling.networks.dynamo import deferred_compiler_import
from modeling.networks.state_dicts.files import State


def download_state(enum: str, member: str, on_progress: OnProgress) -> State:
    """torchvision's weights from its cache or from the network; the file must match the hash in its name.

    on_progress: receives the number of bytes downloaded and, if the server states it, the total.

    Raises:
        ModelingError: the download failed, or the file does not match its hash.
    """
    weights = _torchvision_weights(enum, member)
    try:
        with contextlib.redirect_stdout(sys.stderr), _reported_progress(on_progress):  # stdout may be reserved for data
            state: State = weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as err:
        reason = " ".join(str(getattr(err, "reason", None) or err).split()).rstrip(".")
        file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
        raise ModelingError(
            f"the weights {member} cannot be downloaded ({reason}); download {weights.url} on a machine with network "
            f"access and pass it with --from-weights FILE, or copy it to {file}"
        ) from err
    return state


@contextlib.contextmanager
def _reported_progress(on_progress: OnProgress) -> Iterator[None]:
    """In this block, torch.hub reports downloads to `on_progress` instead of drawing a progress bar."""

    class ProgressBar:
        """The part of tqdm's interface that torch.hub uses."""

        def __init__(self, total: int | None = None, **_: object) -> None:
            self._total, self._done = total, 0

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None: ...

        def update(self, num_bytes: int) -> None:
            self._done += num_bytes
            on_progress(self._done, self._total)

    drawn = vars(torch.hub)["tqdm"]
    vars(torch.hub)["tqdm"] = ProgressBar
    try:
        yield
    finally:
        vars(torch.hub)["tqdm"] = drawn


def torchvision_preprocessing(enum: str, member: str, image_size: int | None) -> Preprocessing:
    """The preprocessing of torchvision's weights; another `image_size` (px) crops the same proportion."""
    transforms = _torchvision_weights(enum, member).transforms()
    side = image_size or transforms.crop_size[0]
    resize = max(side, round(transforms.resize_size[0] * side / transforms.crop_size[0]))
    return Preprocessing("RGB", side, side, resize, tuple(transforms.mean), tuple(transforms.std))


def _torchvision_weights(enum: str, member: str) -> Any:
    with deferred_compiler_import():
        from torchvision import models  # slow to import
    return getattr(models, enum)[member]
