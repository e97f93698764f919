"""Prepares data for training: loads, scans and splits them, chooses the preprocessing and decodes the images."""

# Shapes: N images, M chosen images, H height, W width, C channels.
import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from modeling.data.dataset import Dataset
from modeling.data.forms.joined import open_datasets
from modeling.data.images import DecodedImages, ImageFiles, Images, Indices
from modeling.data.lost import LostImages
from modeling.data.report import DataReport
from modeling.data.scan import scan_dataset
from modeling.data.splits import Split, split_dataset
from modeling.images.cost import before_opening, for_opened
from modeling.images.formats import MAX_PIXELS
from modeling.images.heif import open_image
from modeling.images.loader import load_ahead
from modeling.images.pixels import Pixels
from modeling.images.preprocessing import Preprocessing
from modeling.images.progress import Emit, Progress, quiet_phase
from modeling.images.quotas import memory_left
from modeling.networks.architectures import Architecture
from modeling.training.fit.inputs import AnyImages, FitInputs
from modeling.training.request import MIN_IMAGE_SIZE, TrainRequest
from modeling.training.started import load_started, save_started

MAX_TENSOR_BYTES = 8 << 30  # larger data sets are decoded again in every epoch
_SHARE_OF_MEMORY = 0.4
_SAMPLE = 200  # images that are read to choose size and mode
_NUM_MEASURED, _MEASURED_BYTES = 2000, 1 << 30  # larger data sets are sampled for mean and deviation
_SMALL = 64  # px: the side up to which images keep their size, and the default side for larger images
_DECODED_AHEAD = 1024  # images; results are written in place, so waiting results are small
_MARGIN = 256 / 224  # photographs are decoded larger by this factor, for augmentation to crop from


@dataclass(frozen=True, slots=True, eq=False)
class TrainingData:
    """The data of a training: the data set, its data report, its split, and the images lost since."""

    dataset: Dataset
    report: DataReport
    split: Split
    lost: LostImages

    def without_lost(self) -> "TrainingData":
        """The data without the lost images, which the report and the split name."""
        finding = self.lost.finding()
        if finding is None:
            return self
        report = replace(self.report, findings=(finding, *self.report.findings))
        return replace(self, report=report, split=self.lost.left())


def load_data(request: TrainRequest, emit: Emit, *, keep: bool = False) -> TrainingData:
    """Open, scan and split the data; or those that an earlier attempt started with.

    keep: whether to keep them for a later attempt, in the request's work folder.

    Raises:
        DataError: no network can be trained on them.
    """
    started = load_started(request, emit)
    if started is None:
        data = _opened(request, emit)
        if keep:
            save_started(request, data.dataset, data.report, data.split, emit)
    else:
        data = TrainingData(*started)
    for finding in data.report.findings:
        if finding.severity == "warning":
            emit({"event": "warning", "text": finding.message})
    emit({"event": "data"} | data_facts(data))
    data.lost.report(emit)
    return data


def _opened(request: TrainRequest, emit: Emit) -> TrainingData:
    quiet_phase(emit, "looking for images")
    dataset = open_datasets((request.data, *request.joined), request.layout)
    report = scan_dataset(dataset, emit, request.cache)
    split = split_dataset(dataset, report, seed=request.seed, validation=request.validation, test=request.test)
    return TrainingData(dataset, report, split, LostImages(dataset, split, report.digests))


def data_facts(data: TrainingData) -> dict[str, Any]:
    """Facts about the data, for the `data` event and the model's card."""
    dataset, split = data.dataset, data.split
    used = np.concatenate([split.train, split.validation, split.test])
    counts = np.bincount(dataset.targets_N[used], minlength=len(dataset.labels)).tolist()
    return {
        "path": dataset.shown,
        "kind": dataset.kind,
        **({"sources": [asdict(source) for source in dataset.sources]} if dataset.sources else {}),
        "classes": dict(zip(dataset.labels, counts, strict=True)),
        "num_images": len(used),
        "num_skipped": len(split.unreadable),
        "num_ignored": dataset.num_ignored,
        "num_train": len(split.train),
        "num_validation": len(split.validation),
        "num_test": len(split.test),
    } | ({"num_lost": len(split.lost)} if len(split.lost) else {})


def choose_preprocessing(dataset: Dataset, architecture: Architecture, image_size: int | None) -> Preprocessing:
    """Choose size and mode for the network and the data; mean and std are measured later.

    If the network has a default size, it is used. Otherwise pixels keep their size, files keep theirs if all have the
    same small size, and all others become 64 x 64. The mode is grey if all images are grey. `image_size` overrides the
    size.
    """
    mode, (height, width) = _own_mode_and_size(dataset)
    if min(height, width) < MIN_IMAGE_SIZE or max(height, width) > _SMALL:
        height = width = _SMALL
    if architecture.image_size is not None:
        height = width = architecture.image_size
    height, width = image_size or height, image_size or width
    resize = None
    if architecture.resize is not None and architecture.image_size is not None:
        resize = max(height, round(architecture.resize * height / architecture.image_size))
    return Preprocessing(mode, height, width, resize)


def _own_mode_and_size(dataset: Dataset) -> tuple[Literal["L", "RGB"], tuple[int, int]]:
    """Mode and (height, width) of the images; (0, 0) if sizes differ."""
    if dataset.pixels_NHWC is not None:
        _, height, width, channels = dataset.pixels_NHWC.shape
        return "L" if channels == 1 else "RGB", (height, width)
    sizes, grey = _sample(dataset.files)
    width, height = next(iter(sizes)) if len(sizes) == 1 else (0, 0)
    return "L" if grey else "RGB", (height, width)


def _sample(files: Sequence[Path]) -> tuple[set[tuple[int, int]], bool]:
    """Sizes (width, height) of an evenly spaced sample of files, and whether all of the sample are grey."""
    sizes: set[tuple[int, int]] = set()
    grey = True
    for path in files[:: max(1, len(files) // _SAMPLE)]:
        try:
            data = path.read_bytes()
            with before_opening(data, MAX_PIXELS), open_image(data) as image:
                sizes.add(image.size)
                with for_opened(image, data, MAX_PIXELS):
                    grey = grey and _is_grey(image)
        except Exception:  # noqa: S112  # broken files can raise anything; the scan has reported them
            continue
    return sizes, grey and bool(sizes)


def _is_grey(image: Image.Image) -> bool:
    if image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I"):
        return True
    if max(image.size) > _SMALL * 16:
        return False  # decoding large colour images takes too long here
    red, green, blue = image.convert("RGB").split()
    return red.tobytes() == green.tobytes() == blue.tobytes()


def make_fit_inputs(data: TrainingData, preprocessing: Preprocessing, emit: Emit, *, photographs: bool) -> FitInputs:
    """The inputs of a run: images decoded with the model's preprocessing; training photographs get a margin."""
    split = data.split
    if photographs:
        train_images = load_images(data, with_margin(preprocessing), split.train, emit)
        images = load_images(data, preprocessing, np.sort(np.concatenate([split.validation, split.test])), emit)
    else:
        used = np.sort(np.concatenate([split.train, split.validation, split.test]))
        train_images = images = load_images(data, preprocessing, used, emit)
    data.lost.report(emit)
    targets_N, contents = data.dataset.targets_N, _contents(data)
    return FitInputs(train_images, images, targets_N, split, preprocessing, contents, data.lost)


def _contents(data: TrainingData) -> str:
    """sha256 over the digests of the training and validation images."""
    used = np.concatenate([data.split.train, data.split.validation]).tolist()
    return hashlib.sha256("\n".join(data.report.digests[index] for index in used).encode()).hexdigest()


def with_margin(preprocessing: Preprocessing) -> Preprocessing:
    """The preprocessing of images that augmentation crops from: a larger size without the final crop."""
    if preprocessing.resize is None:
        height, width = (round(side * _MARGIN) for side in (preprocessing.height, preprocessing.width))
        return replace(preprocessing, height=height, width=width)
    return replace(preprocessing, height=preprocessing.resize, width=preprocessing.resize)


def load_images(data: TrainingData, preprocessing: Preprocessing, indices_M: Indices, emit: Emit) -> Images:
    """The chosen images, decoded into memory; if they do not fit, they are decoded on demand.

    Raises:
        DataError: too many images are lost.
    """
    size_bytes = len(indices_M) * int(np.prod(preprocessing.shape))
    if size_bytes > min(MAX_TENSOR_BYTES, int(_SHARE_OF_MEMORY * memory_left())):
        text = f"{size_bytes >> 20} MiB of pixels do not fit in memory: decoding again in every epoch"
        emit({"event": "note", "text": text})
        return ImageFiles(partial(data.lost.pixels, preprocessing=preprocessing), preprocessing)
    return DecodedImages(_decode(data, preprocessing, indices_M, emit), indices_M, data.dataset.num_images)


def _decode(data: TrainingData, preprocessing: Preprocessing, indices_M: Indices, emit: Emit) -> Pixels:
    """Decode the chosen images in threads to pixels MHWC."""
    own = data.dataset.pixels_NHWC
    if own is not None and own.shape[1:] == preprocessing.shape and preprocessing.resize is None:
        return own if len(indices_M) == len(own) else own[indices_M]
    pixels_MHWC = np.zeros((len(indices_M), *preprocessing.shape), dtype=np.uint8)

    def decode(row: int) -> None:
        pixels_MHWC[row] = data.lost.pixels(int(indices_M[row]), preprocessing)

    progress = Progress(lambda done, total: emit({"event": "decode", "num_done": done, "num_images": total}))
    total = len(indices_M)
    for num_done, _ in enumerate(load_ahead(range(total), decode, num_ahead=_DECODED_AHEAD), start=1):
        progress.update(num_done, total)
    return pixels_MHWC


def channel_statistics(images: AnyImages, indices_M: Indices) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over the chosen images, for pixels in [0, 1].

    Exact for up to 1 GiB of pixels, else over about 2,000 evenly spaced images. The limit is fixed, so that the amount
    of free memory does not change a model.
    """
    first_BHWC: Any = next(iter(images.batches([indices_M[:1]])))
    if len(indices_M) * int(np.prod(first_BHWC.shape)) > _MEASURED_BYTES:
        indices_M = indices_M[:: max(1, len(indices_M) // _NUM_MEASURED)]
    counts_C: list[Any] = []
    for pixels_BHWC in images.batches(indices_M[start : start + 1024] for start in range(0, len(indices_M), 1024)):
        channels = pixels_BHWC.shape[3]
        counts_C = counts_C or [np.zeros(256, dtype=np.int64) for _ in range(channels)]
        for channel in range(channels):
            counts_C[channel] += np.bincount(pixels_BHWC[..., channel].ravel(), minlength=256)
    levels = np.arange(256) / 255.0
    means, stds = [], []
    for counts in counts_C:
        shares = counts / counts.sum()
        mean = float(shares @ levels)
        means.append(round(mean, 6))
        stds.append(round(max(float(np.sqrt(shares @ (levels - mean) ** 2)), 1 / 255), 6))
    return tuple(means), tuple(stds)
