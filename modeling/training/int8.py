"""Quantises a trained network to int8, and publishes the result only if its answers are close to the network's.

Static post-training quantisation as in Jacob et al. 2018 (arXiv:1712.05877): one scale per channel for weights, and
scales for activations from their minimum and maximum on some training images. The quantised network is published if
at least 99.5 % of the validation images keep their label and validation accuracy falls by at most 0.3 percentage
points; otherwise only the figures are reported.
"""

# Shapes: B images of a batch, M chosen images, H height, W width, C channels, L labels.
import contextlib
import copy
import hashlib
import io
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from modeling.data.images import Indices
from modeling.errors import DataError
from modeling.images.pixels import Pixels
from modeling.images.progress import Emit
from modeling.inference.classifier import Classifier
from modeling.inference.engines.openvino_engine import OpenVinoEngine
from modeling.networks.onnx_graph import write_graph
from modeling.training.data import TrainingData
from modeling.training.model_folder import Model, TrainedNetwork

MIN_AGREEMENT = 0.995
MAX_FALL = 0.003  # of accuracy, in [0, 1]
CALIBRATION_IMAGES = 256
_BATCH = 16
_OPERATORS = ["Conv", "Gemm", "MatMul", "Add", "Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool"]

Load = Callable[[int], Pixels | None]


@dataclass(frozen=True, slots=True)
class Quality:
    """How int8 compares with full precision on the validation images; shares in [0, 1].

    sha256: of the ONNX file, if it is kept.
    """

    num_calibration: int
    num_validation: int
    agreement: float
    accuracy: float
    accuracy_full: float
    kept: bool
    sha256: str | None = None

    def __str__(self) -> str:
        verdict = "published with the model" if self.kept else "refused: the model has no quantised network"
        return (
            f"int8: {self.agreement:.2%} of {self.num_validation} validation images get the same label "
            f"({MIN_AGREEMENT:.1%} required), accuracy {self.accuracy_full:.4f} before, {self.accuracy:.4f} after "
            f"(may fall by {MAX_FALL}): {verdict}"
        )


def quantise(
    classifier: Classifier,
    load: Load,
    *,
    calibration_M: Indices,
    validation_M: Indices,
    targets_M: NDArray[np.int64],
    logits_ML: NDArray[np.float32],
) -> tuple[Quality, bytes | None]:
    """Quantise a network; returns its quality, and the ONNX file if the quality is sufficient.

    load: returns pixels HWC of an image of the data set by its index; None if it is lost. targets_M, logits_ML: of the
    validation images; the logits are in full precision.
    """
    with tempfile.TemporaryDirectory(prefix="pigeonhole-int8-") as folder:
        whole, small = Path(folder, "whole.onnx"), Path(folder, "int8.onnx")
        write_graph(classifier.network, classifier.card, whole)
        write_int8(whole, small, load, calibration_M)
        engine = OpenVinoEngine(small, "int8")
        batches = [(rows, engine.logits(images_BHWC)) for rows, images_BHWC in _batches(load, validation_M)]
        data = small.read_bytes()
    if not batches:
        raise DataError("int8: no validation image can be read any more; leave the images as they are and train again")
    best_M = np.concatenate([logits_BL.argmax(dim=1).numpy() for _, logits_BL in batches])
    kept_M = np.concatenate([rows for rows, _ in batches])
    targets_M, full_M = targets_M[kept_M], logits_ML[kept_M].argmax(axis=1)
    agreement = float((best_M == full_M).mean())
    accuracy, accuracy_full = float((best_M == targets_M).mean()), float((full_M == targets_M).mean())
    kept = agreement >= MIN_AGREEMENT and accuracy >= accuracy_full - MAX_FALL
    quality = Quality(
        num_calibration=len(calibration_M),
        num_validation=len(kept_M),
        agreement=round(agreement, 6),
        accuracy=round(accuracy, 6),
        accuracy_full=round(accuracy_full, 6),
        kept=kept,
        sha256=hashlib.sha256(data).hexdigest() if kept else None,
    )
    return quality, data if kept else None


def _batches(load: Load, indices_M: Sequence[int] | Indices) -> Iterator[tuple[list[int], NDArray[np.uint8]]]:
    """The images that are not lost, as places in `indices_M` and their pixels."""
    for start in range(0, len(indices_M), _BATCH):
        places = range(start, min(start + _BATCH, len(indices_M)))
        loaded = [(place, load(int(indices_M[place]))) for place in places]
        found = [(place, image_HWC) for place, image_HWC in loaded if image_HWC is not None]
        if found:
            yield [place for place, _ in found], np.stack([image_HWC for _, image_HWC in found])


def write_int8(source: Path, target: Path, load: Load, calibration_M: Indices) -> None:
    """Quantise the ONNX file `source`, calibrated on some images; does not check the quality."""
    from modeling.networks.onnxruntime_library import quantization  # slow to import

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
        """Provides the calibration images in batches."""

        def __init__(self) -> None:
            self._batches = _batches(load, calibration_M)

        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            batch = next(self._batches, None)
            return None if batch is None else {"images": batch[1]}

    with contextlib.redirect_stdout(io.StringIO()), _without_warnings():
        quantization.quantize_static(
            str(source),
            str(target),
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
            op_types_to_quantize=_OPERATORS,
        )


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Suppress onnxruntime's warning, sent to the root logger, to preprocess the graph first."""
    root, refuse = logging.getLogger(), lambda record: record.levelno > logging.WARNING
    root.addFilter(refuse)
    try:
        yield
    finally:
        root.removeFilter(refuse)


def add_int8(model: Model, data: TrainingData, trained: TrainedNetwork, emit: Emit) -> Model:
    """Add the quantised network to the model if it is accurate enough; its card gets the figures in any case.

    Events: a `note` if it is kept, else a `warning`, with the figures.
    """
    train_M, validation_M = data.split.train, data.split.validation
    if not len(validation_M):
        emit({"event": "warning", "text": "int8: refused, because there are no validation images to check it with"})
        return model
    chosen = np.linspace(0, len(train_M) - 1, min(CALIBRATION_IMAGES, len(train_M))).astype(np.int64)
    quality, network = quantise(
        Classifier(copy.deepcopy(trained.network), model.card, torch.device("cpu")),
        lambda index: data.lost.read(index, trained.preprocessing),
        calibration_M=train_M[chosen],
        validation_M=validation_M,
        targets_M=data.dataset.targets_N[validation_M],
        logits_ML=trained.logits_of(validation_M),
    )
    emit({"event": "note" if quality.kept else "warning", "text": str(quality)})
    card = replace(model.card, training=model.card.training | {"int8": asdict(quality)})
    return replace(model, card=card, int8=network)
