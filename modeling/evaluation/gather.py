"""A model's answers to the images of a data set, read and decoded in threads ahead of the network."""

# Shapes: N images with an answer, B images of a batch, L labels, H height, W width, C channels.
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from modeling.data.dataset import Dataset
from modeling.data.images import load_image
from modeling.errors import DataError, ImageError
from modeling.images.decode import decode_image
from modeling.images.loader import load_ahead, read_image_file
from modeling.images.pixels import Pixels
from modeling.images.preprocessing import Preprocessing
from modeling.images.progress import OnProgress, Progress
from modeling.metrics.answers import Answers

if TYPE_CHECKING:
    from modeling.inference.classifier import Classifier

BATCH = 64  # images in one forward pass
NUM_AHEAD = 2 * BATCH  # decoded images that may wait: some 20 MB at 224 px
_LABELS_SHOWN = 20

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An image that has no answer, and why."""

    name: str
    error_code: str
    error: str


@dataclass(frozen=True, slots=True, eq=False)
class Gathered:
    """Answers with the place of each image in the data set, and the images that could not be read.

    sha256: of each answered image, as `image_sha256` has it; empty where nobody asked.
    """

    answers: Answers
    indices_N: Indices
    unreadable: tuple[Unreadable, ...]
    sha256: tuple[str, ...]


def gather(
    classifier: "Classifier",
    dataset: Dataset,
    indices: Indices,
    *,
    hashed: bool = False,
    on_progress: OnProgress = lambda num_done, num_images: None,
) -> Gathered:
    """What the model answers to the images at `indices`, in that order.

    Raises:
        DataError: images of a class that the model does not know, or none that can be read.
    """
    targets = model_targets(dataset, indices, classifier.labels)
    progress = Progress(on_progress)
    num_done = 0

    def load(index: int) -> _Loaded:
        return _load(dataset, index, classifier.preprocessing, hashed=hashed)

    loaded = zip(range(len(indices)), load_ahead(indices.tolist(), load, num_ahead=NUM_AHEAD), strict=True)
    answered = _Answered()
    while batch := list(islice(loaded, BATCH)):
        answered.add(batch, classifier)
        num_done += len(batch)
        progress.update(num_done, len(indices))
    unreadable = tuple(
        Unreadable(dataset.name(int(indices[place])), error.code, error.message) for place, error in answered.failed
    )
    if not answered.places:
        raise DataError(_nothing_to_read(dataset, unreadable))
    indices_N = indices[answered.places]
    names = tuple(dataset.name(index) for index in indices_N.tolist())
    answers = Answers(classifier.labels, names, targets[answered.places], np.concatenate(answered.logits))
    return Gathered(answers, indices_N, unreadable, tuple(answered.hashes) if hashed else ())


def model_targets(dataset: Dataset, indices: Indices, labels: Sequence[str]) -> Indices:
    """The class of each image as an index into a model's labels, matched by name.

    Raises:
        DataError: a class that has images and that the model does not know.
    """
    places = {label: place for place, label in enumerate(labels)}
    targets = dataset.targets_N[indices]
    unknown = [dataset.labels[target] for target in np.unique(targets) if dataset.labels[target] not in places]
    if unknown:
        raise DataError(
            f"{dataset.path} has images of {_some(unknown)}, which the model does not know; it knows {_some(labels)}"
        )
    return np.array([places.get(label, -1) for label in dataset.labels], dtype=np.int64)[targets]


def image_sha256(dataset: Dataset, index: int) -> str:
    """Hex digest of an image's file, or of its pixels where the data set holds those.

    Raises:
        ImageError: the file cannot be read.
    """
    if dataset.pixels_NHWC is not None:
        return hashlib.sha256(dataset.pixels_NHWC[index].tobytes()).hexdigest()
    return hashlib.sha256(read_image_file(dataset.files[index])).hexdigest()


@dataclass(frozen=True, slots=True)
class _Loaded:
    """Pixels HWC, or why there are none."""

    image: Pixels | ImageError
    sha256: str = ""


def _load(dataset: Dataset, index: int, preprocessing: Preprocessing, *, hashed: bool) -> _Loaded:
    """Runs in a thread; one bad image costs its neighbours nothing. The file is read once."""
    sha256 = ""
    try:
        if dataset.pixels_NHWC is not None:
            sha256 = image_sha256(dataset, index) if hashed else ""
            return _Loaded(load_image(dataset, index, preprocessing), sha256)
        data = read_image_file(dataset.files[index])
        sha256 = hashlib.sha256(data).hexdigest() if hashed else ""
        return _Loaded(decode_image(data, preprocessing), sha256)
    except ImageError as err:
        return _Loaded(err, sha256)


@dataclass(slots=True)
class _Answered:
    """What has been answered so far; a place is an image's among those asked for."""

    places: list[int] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)
    logits: list[NDArray[np.float32]] = field(default_factory=list)  # BL each
    failed: list[tuple[int, ImageError]] = field(default_factory=list)

    def add(self, batch: Sequence[tuple[int, _Loaded]], classifier: "Classifier") -> None:
        """Ask the model about the readable ones of a batch."""
        pixels = []
        for place, loaded in batch:
            if isinstance(loaded.image, ImageError):
                self.failed.append((place, loaded.image))
                continue
            self.places.append(place)
            self.hashes.append(loaded.sha256)
            pixels.append(loaded.image)
        if pixels:
            self.logits.append(classifier.logits(np.stack(pixels)))


def _nothing_to_read(dataset: Dataset, unreadable: Sequence[Unreadable]) -> str:
    if not unreadable:
        return f"{dataset.path} holds no images to evaluate"
    first = unreadable[0]
    return f"{dataset.path}: none of {len(unreadable)} images can be read; {first.name}: {first.error}"


def _some(labels: Sequence[str]) -> str:
    """Labels in words; of many the first."""
    shown = ", ".join(repr(label) for label in labels[:_LABELS_SHOWN])
    return shown + (f" and {len(labels) - _LABELS_SHOWN} more" if len(labels) > _LABELS_SHOWN else "")
