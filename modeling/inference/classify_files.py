"""The library's way to predictions: load a model, then classify files or bytes."""

import os
import stat
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from modeling.errors import ImageError, ModelNameError, ModelNotFoundError
from modeling.images.formats import MAX_PIXELS
from modeling.inference.bisection import Predictor
from modeling.inference.decoders import Source
from modeling.inference.engines.precision import WantedPrecision
from modeling.inference.pipeline import predict_units
from modeling.inference.prediction import Prediction
from modeling.registry.card import CARD_FILE
from modeling.registry.store import ModelStore, ModelVersion

if TYPE_CHECKING:
    from modeling.inference.classifier import Classifier


def load_model(path: str | Path, device: str = "cpu", precision: WantedPrecision = "auto") -> "Classifier":
    """The model in a folder, ready to classify, on the engine that is fastest on this device.

    path: the folder that `train` has written, or a published model: `models/birds@2`, `models/birds@champion`,
        `models/birds` (the latest version), where `models` is a folder of published models, such as
        `~/.pigeonhole/models`.
    device: `cpu`, `cuda` or `cuda:1`. precision: `auto` chooses it with the engine.

    The first call on a machine measures the engines. It stores the result in a folder `.engines` beside the model's
    folder, which is safe to delete.

    Raises:
        ModelNotFoundError: no such folder or published model.
        ModelFormatError: the model is damaged.
        ModelingError: no such device, or the precision is not available for this model on it.
    """
    from modeling.inference.choose_engine import load_fastest  # torch

    return load_fastest(_find_version(Path(path).expanduser().absolute()), device, precision=precision)


def classify_files(
    images: Iterable[str | Path | bytes],
    model: Predictor,
    *,
    top_k: int = 5,
    decode_threads: int = 0,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[Prediction]:
    """One prediction for each image, in the order of the images; they are read and decoded ahead by threads.

    images: paths of files, or the bytes of encoded images; any iterable; it is pulled at most a few batches ahead.
    top_k: how many of the best labels a prediction has. decode_threads: 0: as many as measure best.
    max_pixels: an image with more is not decoded.

    An image that cannot be read or predicted has a prediction with an `error_code` and an `error`, and no labels.

    Raises:
        TypeError: an image is neither a path nor bytes.
        ValueError: top_k is less than 1.
    """
    if isinstance(images, str | Path | bytes):
        raise TypeError(f"images must be a list or another iterable of paths or bytes, not one {_kind(images)}")
    if top_k < 1:
        raise ValueError(f"top_k must be at least 1, not {top_k}")
    unit = map(_source_of, images)
    return _flatten([unit], model, top_k, decode_threads, max_pixels)


def _flatten(
    units: Iterable[Iterable[Source]], model: Predictor, top_k: int, decode_threads: int, max_pixels: int
) -> Iterator[Prediction]:
    for result in predict_units(units, model, top_k=top_k, decode_threads=decode_threads, max_pixels=max_pixels):
        yield from result.predictions


def _source_of(image: str | Path | bytes) -> Source:
    if isinstance(image, bytes):
        return lambda: image
    if isinstance(image, str | Path):
        return partial(_read_file, image)
    raise TypeError(f"an image must be a path (str or Path) or bytes, not {_kind(image)}")


def _kind(value: object) -> str:
    return type(value).__name__


def _read_file(path: str | Path) -> bytes:
    """The bytes of a file; it is looked at before it is opened, since opening a pipe would wait for its writer.

    Raises:
        ImageError: missing, not_a_file or permission.
        OSError: anything else that the system reports.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 a third of the time of Path's
            raise ImageError("not_a_file", f"{path} is not a regular file")
        with open(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError) as err:
        raise ImageError("missing", f"there is no file {path}") from err
    except PermissionError as err:
        raise ImageError("permission", f"{path} may not be read") from err
    except ValueError as err:
        raise ImageError("missing", f"no file can have this name: {err}") from err


def _find_version(path: Path) -> ModelVersion:
    """The model in a folder, or the published model that the last part of a path names.

    Raises:
        ModelNotFoundError: neither.
    """
    if (path / CARD_FILE).is_file():
        return ModelVersion.at(path)
    try:
        return ModelStore(path.parent).resolve(path.name)
    except (ModelNameError, ModelNotFoundError) as err:
        raise ModelNotFoundError(f"{path} is neither a folder with a {CARD_FILE} nor a published model: {err}") from err
