"""The fastest engine for a model on this machine: built once, measured once, stored beside the model version.

Promise: a job's manifest is the same bytes on the same kind of hardware. So every process on such hardware uses the
first choice that was stored beside the version, and it is deleted only with its folder.
"""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from modeling.errors import is_out_of_memory, reason_of, takes_no_writes, trouble_of
from modeling.images.progress import Report, unreported
from modeling.inference.classifier import Classifier
from modeling.inference.engines.choice import Choice, choice_path, known_graphs, network_key, read_choice, write_choice
from modeling.inference.engines.engine import Engine
from modeling.inference.engines.graphs import NetworkGraph, read_int8
from modeling.inference.engines.hardware import hardware_key
from modeling.inference.engines.precision import Precision, WantedPrecision
from modeling.inference.engines.torch_engine import CudaGraphEngine, TorchEngine
from modeling.inference.find_engine import (
    Option,
    check_answers,
    checked,
    few_random_images,
    find,
    lacks_room,
    with_engine,
)
from modeling.networks.build import select_device
from modeling.registry.card import INT8_FILE, ModelCard
from modeling.registry.store import ModelVersion
from modeling.registry.version_folder import locked

logger = logging.getLogger(__name__)

_FROM_GRAPH = ("openvino fp32", "openvino bf16")


@dataclass(frozen=True, slots=True)
class _Memory:
    """Where choices are stored: one for the version, one for all networks that compute as fast on such hardware.

    The version's own is final. The other saves measuring: an engine's speed depends on the architecture and the image
    size, and not on the weights. Whether its answers are right does; so they are checked for each version.
    """

    own: Path
    shared: Path

    @classmethod
    def of(
        cls, version: ModelVersion, device: torch.device, precision: WantedPrecision, shared: Path | None = None
    ) -> "_Memory":
        hardware = hardware_key(device)
        network = network_key(version.card(), hardware, has_int8=(version.path / INT8_FILE).is_file())
        own = choice_path(version.artifacts, precision, hardware)
        return cls(own, choice_path(shared or version.shared_artifacts, precision, network))


def load_fastest(
    version: ModelVersion,
    device: str = "cpu",
    *,
    precision: WantedPrecision = "auto",
    report: Report = unreported,
    shared: Path | None = None,
) -> Classifier:
    """The model version with the engine that is fastest on this device in the wanted precision.

    report: receives what is measured, which takes seconds. shared: the folder with the choices for an architecture; by
    default that of the version's store.

    Raises:
        ModelFormatError: the model is damaged.
        ModelingError: the precision is not available for this model here; says why.
    """
    classifier = Classifier.load(version.path, device)
    memory = _Memory.of(version, classifier.device, precision, shared)
    with _artifacts_folder(version) as folder:
        loading = _Loading(classifier, version, folder, precision, memory)
        return loading.remembered() or loading.measured(report)


def load_remembered(
    version: ModelVersion, device: str = "cpu", *, precision: WantedPrecision = "auto"
) -> Classifier | None:
    """The same without measuring: None where `load_fastest` would measure. Raises what that raises."""
    memory = _Memory.of(version, select_device(device), precision)
    if read_choice(memory.own) is None and read_choice(memory.shared) is None:
        return None
    classifier = Classifier.load(version.path, device)
    with _artifacts_folder(version) as folder:
        return _Loading(classifier, version, folder, precision, memory).remembered()


def measure_engines(version: ModelVersion, device: str = "cpu") -> Iterator[tuple[str, Engine | str]]:
    """Every engine for a model on this machine, by name: ready for use, or why it cannot be used."""
    classifier = Classifier.load(version.path, device)
    with _artifacts_folder(version) as folder:
        for option in _options(classifier, version, _graph(classifier, folder), "auto"):
            try:
                engine = option.make()
                check_answers(classifier, engine, option.precision, few_random_images(classifier))
            except Exception as err:  # whatever a compiler raises: other engines remain
                yield option.name, reason_of(err)
            else:
                yield option.name, engine


class _Loading:
    """One load of a version, under the lock of its artifacts."""

    def __init__(
        self,
        classifier: Classifier,
        version: ModelVersion,
        folder: Path,
        precision: WantedPrecision,
        memory: _Memory,
    ) -> None:
        """folder: of the artifacts."""
        self._classifier = classifier
        self._version = version
        self._precision = precision
        self._memory = memory
        self._lacking = False  # as in `Found`, of what was to be used as before
        self._graph = _graph(classifier, folder)
        self._options = _options(classifier, version, self._graph, precision)

    def remembered(self) -> Classifier | None:
        """The version's own choice, else the one of such networks if its answers are right; None: neither."""
        if (own := read_choice(self._memory.own)) is not None:
            for option in self._options:
                if option.name == own.engine and (made := self._make(option, own)):
                    if self._graph.sha256 not in (None, own.graph_sha256):
                        _remember(self._memory.own, replace(own, graph_sha256=self._graph.sha256))
                    return made
        if (shared := read_choice(self._memory.shared)) is not None:
            for option in self._options:
                if option.name == shared.engine and (made := self._adopt(option, shared)):
                    return made
        return None

    def measured(self, report: Report) -> Classifier:
        """The fastest engine, found now."""
        found = find(self._classifier, self._options, self._precision, report)
        choice = found.choice
        logger.info("%s: %s on %s: %s", self._version.ref, choice.engine, choice.hardware, choice.images_per_sec)
        if found.lacking or self._lacking:
            return found.classifier  # a choice is final: this one is for now, and the next process measures again
        self._remember_own(choice)
        if not found.by_weights and read_choice(self._memory.shared) is None:
            _remember(self._memory.shared, choice)
        return found.classifier

    def _make(self, option: Option, own: Choice) -> Classifier | None:
        """The classifier as it was chosen; None if that cannot be built any more.

        Raises MemoryError where others hold a GPU's memory now: another engine would change the choice, and the rows.
        """
        for _ in range(2):
            try:
                return with_engine(self._classifier, option.make().for_batch_size(own.batch_size), own)
            except Exception as err:  # whatever a library raises: the stored graph may be damaged
                if trouble_of(err) or takes_no_writes(err):
                    raise
                if is_out_of_memory(err):
                    raise MemoryError(str(err)) from err
                logger.warning("%s is built anew: %s", option.name, reason_of(err))
                self._graph.forget()
        return None

    def _adopt(self, option: Option, shared: Choice) -> Classifier | None:
        """The classifier with the engine that was fastest for another such network, if its answers are right."""
        try:
            engine = checked(self._classifier, option.make(), option.precision, shared.batch_size)
            made = with_engine(self._classifier, engine, shared)
        except Exception as err:  # whatever a library raises: then all engines are measured
            if trouble_of(err):
                raise
            logger.warning("%s: %s cannot be used as before: %s", self._version.ref, option.name, reason_of(err))
            self._lacking |= lacks_room(err)
            return None
        self._remember_own(shared)
        return made

    def _remember_own(self, choice: Choice) -> None:
        from_graph = choice.engine in _FROM_GRAPH
        _remember(self._memory.own, replace(choice, graph_sha256=self._graph.sha256 if from_graph else None))


def _remember(path: Path, choice: Choice) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_choice(path, choice)
    except OSError as err:
        logger.warning("the choice cannot be remembered in %s: %s", path.parent, err.strerror)


def _graph(classifier: Classifier, folder: Path) -> NetworkGraph:
    return NetworkGraph(classifier.network, classifier.card, folder, known_graphs(folder))


def _options(
    classifier: Classifier, version: ModelVersion, graph: NetworkGraph, precision: WantedPrecision
) -> Sequence[Option]:
    """All engines of the wanted precision; torch in full precision is first."""
    found = [Option("torch fp32", "fp32", lambda: classifier.reference)]
    if classifier.device.type == "cuda":
        half: Precision = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        found.append(Option(f"torch {half}", half, lambda: _torch(classifier, half)))
        found.append(Option(f"torch {half} graphs", half, lambda: CudaGraphEngine(_torch(classifier, half))))
    else:
        found += _openvino_options(version, classifier.card, graph)
    return [option for option in found if precision in ("auto", option.precision)]


def _openvino_options(version: ModelVersion, card: ModelCard, graph: NetworkGraph) -> list[Option]:
    from modeling.inference.engines.openvino_engine import OpenVinoEngine, has_bf16

    def plain(precision: Precision) -> Option:
        make = partial(OpenVinoEngine, precision=precision)
        return Option(f"openvino {precision}", precision, lambda: make(graph.read()))

    found = [plain("fp32")] + ([plain("bf16")] if has_bf16() else [])
    if (version.path / INT8_FILE).is_file():
        found.append(Option("openvino int8", "int8", lambda: OpenVinoEngine(read_int8(version.path, card), "int8")))
    return found


def _torch(classifier: Classifier, precision: Precision) -> TorchEngine:
    return TorchEngine(classifier.network, classifier.preprocessing, classifier.device, precision)


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
