"""The fastest engine for a model on this machine: built once, measured once, remembered beside the model version.

Promise: a job's manifest is the same bytes on the same kind of hardware. So the first choice, once written down, is
everybody's on such hardware, and it is deleted only with the folder that holds it.
"""

# Shapes: B images of a batch, L labels.
import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modeling.card import INT8_FILE
from modeling.classifier import Classifier
from modeling.durable import replace_durably
from modeling.engines.engine import Engine
from modeling.engines.hardware import hardware_key, hardware_name
from modeling.engines.torch_engine import TorchEngine
from modeling.errors import ModelFormatError, ModelingError
from modeling.precision import Precision, WantedPrecision
from modeling.shelf import locked
from modeling.store import ModelVersion

logger = logging.getLogger(__name__)

BATCH = 32
_SMALL_PIXELS = 64 * 64  # of larger images fewer are timed: torch alone may take a second for `BATCH`
_FEW = 8
FAST_ENOUGH = 20_000  # images/s by torch alone: reading and decoding take longer, and building an engine seconds
GRAPH_FILE = "network.onnx"
_MEASURE_S = 0.4
_CLEARLY = 1.1  # an engine that is faster by less than this is not worth its rounding
_TOLERANCE = {"fp32": 1e-3, "bf16": 0.05, "fp16": 0.05, "int8": float("inf")}  # int8 was held to its own bound


@dataclass(frozen=True, slots=True)
class Choice:
    """What was found.

    images_per_sec: of batches of random images, by engine. refused: why an engine is not used.
    """

    engine: str
    hardware: str
    images_per_sec: dict[str, float] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A dict that JSON can hold."""
        return asdict(self)


@dataclass(frozen=True, slots=True, eq=False)
class _Option:
    """An engine that could be used: its name, its precision, and how to make it ready."""

    name: str
    precision: Precision
    make: Callable[[], Engine]


def load_fastest(version: ModelVersion, device: str = "cpu", *, precision: WantedPrecision = "auto") -> Classifier:
    """The model version with the engine that answers fastest on this device, in the precision that is wanted.

    Raises:
        ModelFormatError: the model is damaged.
        ModelingError: the precision cannot be had for this model here; says why.
    """
    classifier = Classifier.load(version.path, device)
    with _workshop(version) as folder:
        return _with_engine(classifier, version, folder, precision)


def measure_engines(version: ModelVersion, device: str = "cpu") -> Iterator[tuple[str, Engine | str]]:
    """Every engine that there is for a model here, by name: ready for use, or why it cannot be used."""
    classifier = Classifier.load(version.path, device)
    with _workshop(version) as folder:
        for option in _options(classifier, version, folder, "auto"):
            try:
                engine = option.make()
                _check_answers(classifier, engine, option.precision)
            except Exception as err:  # whatever a compiler raises: others are left
                yield option.name, _reason(err)
            else:
                yield option.name, engine


def _with_engine(classifier: Classifier, version: ModelVersion, folder: Path, precision: WantedPrecision) -> Classifier:
    """The classifier with the remembered engine, or with the one found now."""
    path = folder / f"{precision}-{hardware_key(classifier.device)}.json"
    options = _options(classifier, version, folder, precision)
    remembered = _read(path)
    for option in options:
        if remembered is not None and remembered.engine == option.name:
            return classifier.on(option.make())
    choice, engine = _find(classifier, options, precision)
    logger.info("%s: %s on %s: %s", version.ref, choice.engine, choice.hardware, choice.images_per_sec)
    try:
        replace_durably(path, (json.dumps(choice.to_json(), indent=2, sort_keys=True) + "\n").encode())
    except OSError as err:
        logger.warning("the choice cannot be remembered in %s: %s", folder, err.strerror)
    return classifier.on(engine)


def _options(
    classifier: Classifier, version: ModelVersion, folder: Path, precision: WantedPrecision
) -> Sequence[_Option]:
    """All engines of the wanted precision, torch in full precision first."""
    found = [_Option("torch fp32", "fp32", lambda: classifier.reference)]
    if classifier.device.type == "cuda":
        half: Precision = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        found.append(_Option(f"torch {half}", half, lambda: _torch(classifier, half)))
    else:
        found += _openvino_options(classifier, version, folder)
    return [option for option in found if precision in ("auto", option.precision)]


def _openvino_options(classifier: Classifier, version: ModelVersion, folder: Path) -> list[_Option]:
    from modeling.engines.openvino_engine import OpenVinoEngine, has_bf16

    def plain(precision: Precision) -> _Option:
        return _Option(
            f"openvino {precision}", precision, lambda: OpenVinoEngine(_graph(classifier, folder), precision)
        )

    found = [plain("fp32")] + ([plain("bf16")] if has_bf16() else [])
    if (version.path / INT8_FILE).is_file():
        found.append(_Option("openvino int8", "int8", lambda: OpenVinoEngine(_int8(classifier, version), "int8")))
    return found


def _int8(classifier: Classifier, version: ModelVersion) -> Path:
    """The version's quantised network, checked against its card."""
    path = version.path / INT8_FILE
    expected = classifier.card.training.get("int8", {}).get("sha256")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if digest != expected:
        raise ModelFormatError(f"{path}: sha256 is {digest}, the card says {expected}")
    return path


def _torch(classifier: Classifier, precision: Precision) -> Engine:
    return TorchEngine(classifier.network, classifier.preprocessing, classifier.device, precision)


def _graph(classifier: Classifier, folder: Path) -> Path:
    """The network as an ONNX file, written if it is not there yet."""
    path = folder / GRAPH_FILE
    if not path.exists():
        from modeling.exchange.onnx_export import write_graph  # slow to import

        temporary = folder / f".{GRAPH_FILE}.{os.getpid()}"
        write_graph(classifier, temporary)
        temporary.replace(path)
    return path


def _find(classifier: Classifier, options: Sequence[_Option], precision: WantedPrecision) -> tuple[Choice, Engine]:
    """Make each engine ready, check its answers and time it; the fastest, unless a safer one is about as fast."""
    speeds: dict[str, float] = {}
    refused: dict[str, str] = {}
    best: tuple[float, str, Engine] | None = None
    for option in options:
        if best is not None and best[0] > FAST_ENOUGH:
            break
        try:
            engine = option.make()
            _check_answers(classifier, engine, option.precision)
            speed = images_per_sec(engine, _random_images(classifier))
        except Exception as err:  # whatever a compiler raises: torch is left
            logger.warning("%s cannot be used: %s", option.name, _reason(err))
            refused[option.name] = _reason(err)
            continue
        speeds[option.name] = round(speed, 1)
        if best is None or speed > _CLEARLY * best[0]:
            best = (speed, option.name, engine)
    if best is None:
        raise ModelingError(_unavailable(precision, refused))
    return Choice(best[1], hardware_name(classifier.device), speeds, refused), best[2]


def _unavailable(precision: str, refused: dict[str, str]) -> str:
    if refused:
        return f"precision {precision} cannot be used: {'; '.join(f'{name}: {why}' for name, why in refused.items())}"
    hint = {
        "int8": "the model has no int8 weights; train it with --int8, which says if quantising keeps the bound",
        "bf16": "this processor has no instructions for it",
    }.get(precision, "no engine offers it")
    return f"precision {precision} cannot be used here: {hint}; give --precision auto"


def _reason(err: Exception) -> str:
    return f"{type(err).__name__}: {' '.join(str(err).split())}"[:300]


def _check_answers(classifier: Classifier, engine: Engine, precision: Precision) -> None:
    """See that an engine answers as torch does, but for rounding.

    Raises:
        ModelingError: it does not; says by how much.
    """
    if engine is classifier.reference:
        return
    images_BHWC = _random_images(classifier)[:5]
    expected_BL, found_BL = classifier.reference.logits(images_BHWC).cpu(), engine.logits(images_BHWC).cpu()
    difference = float((found_BL - expected_BL).abs().max() / expected_BL.abs().max().clamp(min=1e-6))
    if not difference <= _TOLERANCE[precision]:
        raise ModelingError(f"logits differ by {difference:.2g} of the largest, {_TOLERANCE[precision]:g} is allowed")


def images_per_sec(engine: Engine, images_BHWC: np.ndarray[Any, np.dtype[np.uint8]]) -> float:
    """Images a second with every stream of an engine at work: the best of some rounds."""
    from concurrent.futures import ThreadPoolExecutor

    best_s, begun = float("inf"), time.perf_counter()
    with ThreadPoolExecutor(engine.num_streams) as pool:
        batches = [images_BHWC] * engine.num_streams
        answer = lambda images: engine.logits(images).cpu()  # noqa: E731 waits for a GPU
        list(pool.map(answer, batches))  # the first pass of a shape is slow
        while best_s == float("inf") or time.perf_counter() - begun < _MEASURE_S:
            started = time.perf_counter()
            list(pool.map(answer, batches))
            best_s = min(best_s, time.perf_counter() - started)
    return len(batches) * len(images_BHWC) / best_s


def _random_images(classifier: Classifier) -> np.ndarray[Any, np.dtype[np.uint8]]:
    height, width, _ = classifier.preprocessing.shape
    shape = (BATCH if height * width <= _SMALL_PIXELS else _FEW, *classifier.preprocessing.shape)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def _read(path: Path) -> Choice | None:
    """A remembered choice; none where there is none, or one that cannot be read."""
    try:
        return Choice(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


@contextmanager
def _workshop(version: ModelVersion) -> Iterator[Path]:
    """The folder of a version's artifacts, locked; one for this process alone where the store cannot be written to."""
    folder = version.artifacts
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(folder))
        except OSError as err:
            logger.warning("%s cannot keep engines (%s); they are built anew in every process", folder, err.strerror)
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pigeonhole-engines-")))
        yield folder
