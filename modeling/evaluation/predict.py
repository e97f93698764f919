"""What a model answers to the images of a data set, read and decoded in threads ahead of the network."""

# Shapes: N images with an answer, B images of a batch, L labels, H height, W width, C channels.
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from modeling.data.dataset import Dataset
from modeling.data.images import load_image
from modeling.errors import DataError, ImageError
from modeling.evaluation.labels import Indices, model_targets
from modeling.images.formats import MAX_PIXELS
from modeling.images.loader import load_ahead, read_image_file
from modeling.images.pixels import Pixels
from modeling.images.progress import OnProgress, Progress
from modeling.inference.decoders import DEVICE_CHUNK, DEVICE_THREADS, Chunk, Decoders
from modeling.metrics.answers import Answers

if TYPE_CHECKING:
    from modeling.inference.classifier import Classifier

REFERENCE_BATCH = 64  # images in one forward pass of the reference; other engines have the size that jobs use
NUM_AHEAD = 128  # decoded images that may wait: some 20 MB at 224 px


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An image that has no answer, and why."""

    name: str
    error_code: str
    error: str


@dataclass(frozen=True, slots=True, eq=False)
class DatasetAnswers:
    """Answers with the index of each image in the data set, and the images that could not be read.

    sha256: of each answered image, as `image_sha256` has it; empty where it was not wanted.
    """

    answers: Answers
    indices_N: Indices
    unreadable: tuple[Unreadable, ...]
    sha256: tuple[str, ...]

    def only(self, indices: Indices) -> Answers:
        """The answers to those images that are among `indices` of the data set."""
        kept_N = np.flatnonzero(np.isin(self.indices_N, indices))
        answers = self.answers
        names = tuple(answers.names[place] for place in kept_N.tolist())
        return Answers(answers.labels, names, answers.targets_N[kept_N], answers.logits_NL[kept_N])


def predict_dataset(
    classifier: "Classifier",
    dataset: Dataset,
    indices: Indices,
    *,
    hashed: bool = False,
    on_progress: OnProgress = lambda num_done, num_images: None,
) -> DatasetAnswers:
    """What the model answers to the images at `indices`, whose labels it knows, in that order.

    Raises:
        DataError: none of them can be read.
    """
    targets = model_targets(dataset, indices, classifier.labels)
    progress = Progress(on_progress)
    loader = _Loader(dataset, classifier, hashed=hashed)
    found = _Found(np.empty((len(indices), len(classifier.labels)), np.float32))  # memory is taken as it is filled
    for batch, logits_BL in _answered(classifier, loader.load(indices.tolist())):
        found.add(batch, logits_BL)
        progress.update(found.num_images, len(indices))
    unreadable = tuple(
        Unreadable(dataset.name(int(indices[place])), error.code, error.message) for place, error in found.failed
    )
    if not found.places:
        raise DataError(_nothing_to_read(dataset, unreadable))
    indices_N = indices[found.places]
    names = tuple(dataset.name(index) for index in indices_N.tolist())
    answers = Answers(classifier.labels, names, targets[found.places], found.logits_NL[: len(found.places)])
    return DatasetAnswers(answers, indices_N, unreadable, tuple(found.hashes) if hashed else ())


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


class _Loader:
    """Reads and decodes as jobs do; one bad image costs its neighbours nothing. Each file is read once."""

    def __init__(self, dataset: Dataset, classifier: "Classifier", *, hashed: bool) -> None:
        self._dataset = dataset
        self._preprocessing = classifier.preprocessing
        self._by_device = classifier.batch_decoder is not None and dataset.pixels_NHWC is None
        self._decoders = Decoders(classifier.preprocessing, MAX_PIXELS, batch_decoder=classifier.batch_decoder)
        self._hashed = hashed

    def load(self, indices: Sequence[int]) -> Iterator[_Loaded]:
        """The images in order; in threads, a bounded way ahead."""
        if not self._by_device:
            return load_ahead(indices, self._load, num_ahead=NUM_AHEAD)
        chunks = (indices[start : start + DEVICE_CHUNK] for start in range(0, len(indices), DEVICE_CHUNK))
        loaded = load_ahead(chunks, self._load_files, num_ahead=DEVICE_THREADS, num_threads=DEVICE_THREADS)
        return chain.from_iterable(loaded)

    def _load(self, index: int) -> _Loaded:
        if self._dataset.pixels_NHWC is None:
            return self._load_files([index])[0]
        sha256 = image_sha256(self._dataset, index) if self._hashed else ""
        try:
            return _Loaded(load_image(self._dataset, index, self._preprocessing), sha256)
        except ImageError as err:
            return _Loaded(err, sha256)

    def _load_files(self, indices: Sequence[int]) -> list[_Loaded]:
        """Read and decode files, on the device first if it has a decoder."""
        hashes: list[str] = []

        def read(index: int) -> bytes:
            hashes.append("")
            data = read_image_file(self._dataset.files[index])
            hashes[-1] = hashlib.sha256(data).hexdigest() if self._hashed else ""
            return data

        chunk = self._decoders.decode_all([partial(read, index) for index in indices], Chunk())
        return [_Loaded(image, sha256) for image, sha256 in zip(chunk.images, hashes, strict=True)]


_Batch = list[_Loaded]
_Logits = NDArray[np.float32]


def _answered(classifier: "Classifier", loaded: Iterator[_Loaded]) -> Iterable[tuple[_Batch, _Logits | None]]:
    """Batches in order, each with the logits BL of its readable images; as many at once as the engine has streams."""
    is_reference = classifier.engine.name == classifier.reference.name
    size = REFERENCE_BATCH if is_reference else classifier.batch_size
    batches = iter(lambda: list(islice(loaded, size)), [])

    def answer(batch: _Batch) -> tuple[_Batch, _Logits | None]:
        pixels = [each.image for each in batch if not isinstance(each.image, ImageError)]
        return batch, classifier.logits(np.stack(pixels)) if pixels else None

    streams = classifier.num_streams
    return map(answer, batches) if streams == 1 else load_ahead(batches, answer, num_ahead=streams, num_threads=streams)


@dataclass(slots=True)
class _Found:
    """What has been answered so far; a place is an image's among those asked for."""

    logits_NL: _Logits  # filled as far as there are places
    num_images: int = 0
    places: list[int] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)
    failed: list[tuple[int, ImageError]] = field(default_factory=list)

    def add(self, batch: _Batch, logits_BL: _Logits | None) -> None:
        """Take a batch with the logits of its readable images."""
        start = len(self.places)
        for place, loaded in enumerate(batch, start=self.num_images):
            if isinstance(loaded.image, ImageError):
                self.failed.append((place, loaded.image))
            else:
                self.places.append(place)
                self.hashes.append(loaded.sha256)
        self.num_images += len(batch)
        if logits_BL is not None:
            self.logits_NL[start : start + len(logits_BL)] = logits_BL


def _nothing_to_read(dataset: Dataset, unreadable: Sequence[Unreadable]) -> str:
    if not unreadable:
        return f"{dataset.shown} holds no images to evaluate"
    first = unreadable[0]
    return f"{dataset.shown}: none of {len(unreadable)} images can be read; {first.name}: {first.error}"
