"""The fastest engine for a model on this machine: built once, measured once, stored beside the model version.

Promise: a job's manifest is the same bytes on the same kind of hardware. So every process on such hardware uses the
first choice that was stored, and it is deleted only with its folder.
"""

# Shapes: B images of a batch, L labels.
import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modeling.durable import replace_durably
from modeling.errors import ModelingError, trouble_of
from modeling.inference.classifier import Classifier
from modeling.inference.engines.choice import (
    GPU,
    Choice,
    Precision,
    WantedPrecision,
    choice_path,
    known_graphs,
    read_choice,
)
from modeling.inference.engines.engine import Engine
from modeling.inference.engines.graphs import NetworkGraph, read_int8
from modeling.inference.engines.hardware import hardware_key, hardware_name
from modeling.inference.engines.torch_engine import CudaGraphEngine, TorchEngine
from modeling.inference.timing import (
    best_batch_size,
    compute_logits,
    images_per_sec,
    random_images,
    speeds_by_batch_size,
)
from modeling.registry.card import INT8_FILE, ModelCard
from modeling.registry.store import ModelVersion
from modeling.registry.version_folder import locked

logger = logging.getLogger(__name__)

_MANY, _FEW = 32, 8  # images in the batch that compares engines: torch may take a second for many
_ON_GPU = 64  # images: with smaller batches a GPU waits for kernel launches
_ODD = 3  # images: a batch size that no engine is prepared for
_SMALL_PIXELS = 64 * 64
FAST_ENOUGH = 20_000  # images/s by torch alone: reading and decoding are slower; building an engine takes seconds
_FROM_GRAPH = ("openvino fp32", "openvino bf16")
_MIN_SPEEDUP = 1.1  # an engine with a smaller one is not worth its rounding
_TOLERANCE = {"fp32": 1e-3, "bf16": 0.05, "fp16": 0.05, "int8": float("inf")}  # int8 was checked against its own bound


@dataclass(frozen=True, slots=True, eq=False)
class _Option:
    """An engine that could be used: its name, its precision, and how to build it."""

    name: str
    precision: Precision
    make: Callable[[], Engine]


def load_fastest(version: ModelVersion, device: str = "cpu", *, precision: WantedPrecision = "auto") -> Classifier:
    """The model version with the engine that is fastest on this device in the wanted precision.

    Raises:
        ModelFormatError: the model is damaged.
        ModelingError: the precision is not available for this model here; says why.
    """
    classifier = Classifier.load(version.path, device)
    with _artifacts_folder(version) as folder:
        return _with_engine(classifier, version, folder, precision)


def measure_engines(version: ModelVersion, device: str = "cpu") -> Iterator[tuple[str, Engine | str]]:
    """Every engine for a model on this machine, by name: ready for use, or why it cannot be used."""
    classifier = Classifier.load(version.path, device)
    with _artifacts_folder(version) as folder:
        for option in _options(classifier, version, _graph(classifier, folder), "auto"):
            try:
                engine = option.make()
                _check_answers(classifier, engine, option.precision, _random_images(classifier)[:_ODD])
            except Exception as err:  # whatever a compiler raises: other engines remain
                yield option.name, _reason(err)
            else:
                yield option.name, engine


def _with_engine(classifier: Classifier, version: ModelVersion, folder: Path, precision: WantedPrecision) -> Classifier:
    """The classifier with the stored engine, or with the one found now."""
    path = choice_path(folder, precision, hardware_key(classifier.device))
    graph = _graph(classifier, folder)
    options = _options(classifier, version, graph, precision)
    if (remembered := read_choice(path)) is not None:
        for option in options:
            if option.name == remembered.engine and (made := _make(classifier, option, remembered, graph)):
                if graph.sha256 not in (None, remembered.graph_sha256):
                    _remember(path, replace(remembered, graph_sha256=graph.sha256))
                return made
    choice, found = _find(classifier, options, precision)
    if choice.engine in _FROM_GRAPH:
        choice = replace(choice, graph_sha256=graph.sha256)
    logger.info("%s: %s on %s: %s", version.ref, choice.engine, choice.hardware, choice.images_per_sec)
    _remember(path, choice)
    return found


def _remember(path: Path, choice: Choice) -> None:
    try:
        replace_durably(path, (json.dumps(asdict(choice), indent=2, sort_keys=True) + "\n").encode())
    except OSError as err:
        logger.warning("the choice cannot be remembered in %s: %s", path.parent, err.strerror)


def _graph(classifier: Classifier, folder: Path) -> NetworkGraph:
    return NetworkGraph(classifier.network, classifier.card, folder, known_graphs(folder))


def _make(classifier: Classifier, option: _Option, remembered: Choice, graph: NetworkGraph) -> Classifier | None:
    """The classifier as it was chosen; None if that cannot be built any more."""
    for _ in range(2):
        try:
            return _on(classifier, option.make().for_batch_size(remembered.batch_size), remembered)
        except Exception as err:  # whatever a library raises: the stored graph may be damaged
            if trouble_of(err):
                raise
            logger.warning("%s is built anew: %s", option.name, _reason(err))
            graph.forget()
    return None


def _options(
    classifier: Classifier, version: ModelVersion, graph: NetworkGraph, precision: WantedPrecision
) -> Sequence[_Option]:
    """All engines of the wanted precision; torch in full precision is first."""
    found = [_Option("torch fp32", "fp32", lambda: classifier.reference)]
    if classifier.device.type == "cuda":
        half: Precision = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        found.append(_Option(f"torch {half}", half, lambda: _torch(classifier, half)))
        found.append(_Option(f"torch {half} graphs", half, lambda: CudaGraphEngine(_torch(classifier, half))))
    else:
        found += _openvino_options(version, classifier.card, graph)
    return [option for option in found if precision in ("auto", option.precision)]


def _openvino_options(version: ModelVersion, card: ModelCard, graph: NetworkGraph) -> list[_Option]:
    from modeling.inference.engines.openvino_engine import OpenVinoEngine, has_bf16

    def plain(precision: Precision) -> _Option:
        make = partial(OpenVinoEngine, precision=precision)
        return _Option(f"openvino {precision}", precision, lambda: make(graph.read()))

    found = [plain("fp32")] + ([plain("bf16")] if has_bf16() else [])
    if (version.path / INT8_FILE).is_file():
        found.append(_Option("openvino int8", "int8", lambda: OpenVinoEngine(read_int8(version.path, card), "int8")))
    return found


def _torch(classifier: Classifier, precision: Precision) -> TorchEngine:
    return TorchEngine(classifier.network, classifier.preprocessing, classifier.device, precision)


def _find(classifier: Classifier, options: Sequence[_Option], precision: WantedPrecision) -> tuple[Choice, Classifier]:
    """The fastest engine, its best batch size, and its decoder."""
    found = _compare(classifier, options, precision)
    images_BHWC = _random_images(classifier)[:_ODD]
    expected_BL = classifier.reference.logits(images_BHWC)

    def sized(size: int) -> Classifier:
        engine = found.engine.for_batch_size(size)
        if engine is not classifier.reference:
            _check_logits(engine.logits(images_BHWC[:size]), expected_BL[:size], found.precision)
        return classifier.on(engine)

    sizes = speeds_by_batch_size(sized, _clock(found.engine))
    choice = Choice(
        engine=found.name,
        batch_size=best_batch_size(sizes),
        hardware=hardware_name(classifier.device),
        images_per_sec=found.speeds,
        batch_sizes={str(size): round(speed, 1) for size, speed in sizes.items()},
        refused=found.refused,
    )
    if classifier.device.type == "cuda":
        choice = _with_decoder(choice, classifier)
    return choice, _on(classifier, found.engine.for_batch_size(choice.batch_size), choice)


@dataclass(frozen=True, slots=True, eq=False)
class _Fastest:
    """The engine that was found; speeds: images per second of all engines; refused: why others cannot be used."""

    name: str
    precision: Precision
    engine: Engine
    speeds: dict[str, float]
    refused: dict[str, str]


def _compare(classifier: Classifier, options: Sequence[_Option], precision: WantedPrecision) -> _Fastest:
    """Build each engine, check its logits and time it; the fastest, unless an earlier one is about as fast.

    Raises:
        ModelingError: no engine can be used.
    """
    speeds: dict[str, float] = {}
    refused: dict[str, str] = {}
    best: tuple[float, _Option, Engine] | None = None
    for option in options:
        if best is not None and best[0] > FAST_ENOUGH:
            break
        try:
            engine = option.make()
            speed = _speed(classifier, engine, option.precision)
        except Exception as err:  # whatever a compiler raises: torch remains
            if trouble_of(err):
                raise  # the choice is final: no engine loses its place because files or memory are short now
            logger.warning("%s cannot be used: %s", option.name, _reason(err))
            refused[option.name] = _reason(err)
            continue
        speeds[option.name] = round(speed, 1)
        if best is None or speed > _MIN_SPEEDUP * best[0]:
            best = (speed, option, engine)
    if best is None:
        raise ModelingError(_unavailable(precision, refused, classifier.card))
    _, option, engine = best
    return _Fastest(option.name, option.precision, engine, speeds, refused)


def _speed(classifier: Classifier, engine: Engine, precision: Precision) -> float:
    """Images per second of an engine whose logits are those of torch, at its batch size and at others."""
    images_BHWC = _random_images(classifier)
    sized = engine.for_batch_size(len(images_BHWC))
    _check_answers(classifier, engine, precision, images_BHWC[:_ODD])
    _check_answers(classifier, sized, precision, images_BHWC)
    return images_per_sec(partial(compute_logits, sized), images_BHWC, sized.num_streams)


def _clock(engine: Engine) -> Callable[[], float] | None:
    """The seconds of one stream that OpenVINO computes; None for torch, whose threads wait for each other."""
    return (lambda: time.process_time() / engine.num_streams) if engine.name.startswith("openvino") else None


def _with_decoder(choice: Choice, classifier: Classifier) -> Choice:
    """The choice with the decoder that is fastest on this machine."""
    from modeling.inference.nvjpeg import fastest_decoder  # imports nvJPEG, which only GPUs need

    name, speeds, refused = fastest_decoder(classifier.preprocessing, classifier.device, choice.batch_size)
    return replace(choice, decoder=name, decoded_per_sec=speeds, refused=choice.refused | refused)


def _on(classifier: Classifier, engine: Engine, choice: Choice) -> Classifier:
    """The classifier as it was chosen."""
    if choice.decoder != GPU:
        return classifier.on(engine, choice.batch_size, choice.speed)
    from modeling.inference.nvjpeg import NvJpeg

    batch_decoder = NvJpeg(classifier.preprocessing, classifier.device)
    return classifier.on(engine, choice.batch_size, choice.speed, batch_decoder)


def _unavailable(precision: str, refused: dict[str, str], card: ModelCard) -> str:
    if refused:
        return f"precision {precision} cannot be used: {'; '.join(f'{name}: {why}' for name, why in refused.items())}"
    hints = {"int8": f"the model {card.why_no_int8()}", "bf16": "this processor has no instructions for it"}
    hint = hints.get(precision, "no engine offers it")
    return f"precision {precision} cannot be used here: {hint}; give --precision auto"


def _reason(err: Exception) -> str:
    return f"{type(err).__name__}: {' '.join(str(err).split())}"[:300]


def _check_answers(
    classifier: Classifier, engine: Engine, precision: Precision, images_BHWC: NDArray[np.uint8]
) -> None:
    """Check that an engine's logits are those of torch, except for rounding.

    Raises:
        ModelingError: they are not; says by how much.
    """
    if engine is classifier.reference:
        return
    _check_logits(engine.logits(images_BHWC), classifier.reference.logits(images_BHWC), precision)


def _check_logits(found_BL: Tensor, expected_BL: Tensor, precision: Precision) -> None:
    found_BL, expected_BL = found_BL.cpu(), expected_BL.cpu()
    difference = float((found_BL - expected_BL).abs().max() / expected_BL.abs().max().clamp(min=1e-6))
    if not difference <= _TOLERANCE[precision]:
        raise ModelingError(f"logits differ by {difference:.2g} of the largest, {_TOLERANCE[precision]:g} is allowed")


def _random_images(classifier: Classifier) -> NDArray[np.uint8]:
    height, width, _ = classifier.preprocessing.shape
    if classifier.device.type == "cuda":
        return random_images(classifier.preprocessing, _ON_GPU)
    return random_images(classifier.preprocessing, _MANY if height * width <= _SMALL_PIXELS else _FEW)


@contextmanager
def _artifacts_folder(version: ModelVersion) -> Iterator[Path]:
    """The folder of a version's artifacts, locked; a temporary one if the store cannot be written to."""
    folder = version.artifacts
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(folder))
        except OSError as err:
            if trouble_of(err):
                raise
            logger.warning("%s cannot keep engines (%s); they are built anew in every process", folder, err.strerror)
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pigeonhole-engines-")))
        yield folder
