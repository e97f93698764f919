"""Finds the images of a manifest that show the same picture, as the data check of a training does."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from struct import Struct
from typing import BinaryIO

import numpy as np

from modeling.data.cache import CachedFacts, FactsCache
from modeling.data.duplicates import contents_of, group_images
from modeling.data.facts import THUMBNAIL_BYTES
from modeling.data.scan import ImageCheck, check_file
from modeling.data.scratch import ScratchFile, in_file
from modeling.errors import ImageError
from modeling.images.loader import load_ahead
from modeling.images.progress import OnProgress, Progress
from orchestrator.duplicates.groups import Found
from orchestrator.jobs.results import Published
from orchestrator.jobs.row_images import image_file, image_root, placed_rows
from orchestrator.jobs.where import Where

_DIGEST_BYTES = 32
_PLACE, _SIZE = Struct("=q"), Struct("=2i")
_FILES_PER_TASK = 16
_TASKS_AHEAD = 256

PlacedPath = tuple[int, str]
"""A row's place in the manifest, and its path."""


@dataclass
class ReadImages:
    """What is kept of each image that was read, in files without a name.

    scratch: the folder of these files, of about 1.6 kB for each image. errors: images that could not be read, by code.
    """

    scratch: Path
    errors: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.places = ScratchFile(self.scratch, np.int64, 1)  # of its row
        self.sizes = ScratchFile(self.scratch, np.int32, 2)
        self.digests = ScratchFile(self.scratch, np.uint8, _DIGEST_BYTES)
        self.thumbnails = ScratchFile(self.scratch, np.uint8, THUMBNAIL_BYTES)

    def add(self, place: int, check: ImageCheck) -> None:
        digest, (facts, error) = check
        if facts is None:
            self.errors[error[0] if error else "unreadable"] += 1
            return
        self.places.write(_PLACE.pack(place))
        self.sizes.write(_SIZE.pack(*facts.size))
        self.digests.write(bytes.fromhex(digest))
        self.thumbnails.write(facts.thumbnail)

    def group(self) -> Found:
        """Compare all images."""
        contents = contents_of(self.digests.mapped())
        grouping = group_images(contents, self.thumbnails.mapped(), self.sizes.mapped(), in_file(self.scratch))
        return Found(self.places.mapped()[:, 0], grouping, dict(sorted(self.errors.items())))


def read_images(
    published: Published, file: BinaryIO, scratch: Path, progress: OnProgress, where: Where | None = None
) -> ReadImages:
    """Read and decode every image of a manifest, or those of the rows that fit.

    file: the manifest, open at its start. progress: receives how many images were read, of how many.

    Raises NotFoundError if the source is away, IntegrityError if the manifest is damaged.
    """
    root = image_root(published)
    images = ReadImages(scratch)
    num_images = published.summary["counts"]["num_images"] if where is None else None
    shown = Progress(progress)
    rows = ((place, row.path) for place, row in placed_rows(published, file) if where is None or where.fits(row))
    for num_read, (place, check) in enumerate(_checks(root, rows), start=1):
        images.add(place, check)
        shown.update(num_read, num_images)
    return images


def _checks(root: str, rows: Iterable[PlacedPath]) -> Iterator[tuple[int, ImageCheck]]:
    """The check of each image, in order; threads read and decode ahead."""
    uncached = FactsCache(None)

    def check(chunk: list[PlacedPath]) -> list[tuple[int, ImageCheck]]:
        return [(place, _check(root, path, uncached)) for place, path in chunk]

    for checks in load_ahead(_chunks(iter(rows)), check, num_ahead=_TASKS_AHEAD):
        yield from checks


def _chunks(rows: Iterator[PlacedPath]) -> Iterator[list[PlacedPath]]:
    while chunk := list(islice(rows, _FILES_PER_TASK)):
        yield chunk


def _check(root: str, path: str, cache: FactsCache) -> ImageCheck:
    try:
        return check_file(image_file(root, path), cache)
    except ImageError as err:
        return "", CachedFacts(None, (err.code, err.message))
