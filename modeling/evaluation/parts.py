"""Which images of a data set to evaluate: all, or those of one part of the model's own split or of official parts."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from modeling.data.dataset import PART_NAMES, TRAIN, Dataset
from modeling.data.layout import DataPart
from modeling.data.splits import read_split
from modeling.errors import DataError, ImageError, ModelFormatError
from modeling.evaluation.labels import Indices
from modeling.evaluation.predict import NUM_AHEAD, image_sha256
from modeling.images.loader import load_ahead
from modeling.registry.card import ModelCard

SPLIT_FILE = "split.csv"  # in a model's folder, where its training wrote one

PartOf = Mapping[str, str]
"""The part of the model's split that an image belongs to, by the image's sha256."""


def parts_of(model: Path) -> PartOf | None:
    """The part of each image in a model's split; None where the model has no split.

    Raises:
        ModelFormatError: the file is damaged.
    """
    path = model / SPLIT_FILE
    if not path.exists():
        return None
    try:
        return {row.sha256: row.part for row in read_split(path) if row.part in PART_NAMES}
    except DataError as err:
        raise ModelFormatError(str(err)) from err


def count_trained_on(split: PartOf | None, sha256: Iterable[str]) -> int | None:
    """The number of images with these digests that the model was trained on; None where it has no split."""
    return None if split is None else sum(split.get(digest) == PART_NAMES[TRAIN] for digest in sha256)


def lacks_record(card: ModelCard, num_trained_on: int | None) -> bool:
    """Whether Pigeonhole trained the model, and its folder has no split: it was exported and imported again."""
    return num_trained_on is None and "data" in card.training


def choose_images(dataset: Dataset, part: DataPart, split: PartOf | None) -> Indices:
    """Indices of the images in `part`, ascending.

    The model's split, which knows images by their content, says to which part an image belongs; where it knows none
    of these images, their official parts do.

    Raises:
        DataError: neither has images in that part.
    """
    if part == "all":
        return np.arange(dataset.num_images)
    known = _parts_by_split(dataset, split) if split else None
    if known is not None:
        chosen = [index for index, name in enumerate(known) if name == part]
    elif dataset.parts_N is not None:
        chosen = np.flatnonzero(dataset.parts_N == PART_NAMES.index(part)).tolist()
    else:
        reason = "the model's training has seen none of its images"
        if split is None:
            reason = "the model has no record of its training images (an export carries none)"
        raise DataError(
            f"{dataset.shown} has no {part} part: {reason}, and they are in no folders named train, val and test; "
            "evaluate all of them"
        )
    if not chosen:
        raise DataError(f"{dataset.shown} has no images in the {part} part; evaluate all of them")
    return np.array(chosen, dtype=np.int64)


def _parts_by_split(dataset: Dataset, split: PartOf) -> list[str | None] | None:
    """Each image's part in the model's split; None where it knows no image. Reads every file."""

    def part_of(index: int) -> str | None:
        try:
            return split.get(image_sha256(dataset, index))
        except ImageError:  # an unreadable image is in no part; an evaluation of all of them reports it
            return None

    parts = list(load_ahead(range(dataset.num_images), part_of, num_ahead=NUM_AHEAD))
    return parts if any(parts) else None
