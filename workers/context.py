"""What the pool child of a worker works with, for jobs of every kind."""

import gc
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakValueDictionary

from modeling.images.progress import Report, unreported
from modeling.inference.engines.precision import WantedPrecision
from modeling.registry.store import ModelStore
from orchestrator.contract.access import explain_os_error
from orchestrator.contract.errors import PigeonholeError
from orchestrator.contract.jobs.history import note_trouble
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.recovering_ledger import Patience, RecoveringLedger
from orchestrator.contract.jobs.requests import ModelPin
from orchestrator.contract.ledger.ledger import Ledger
from orchestrator.contract.settings import Settings
from workers.device_gate import DeviceGate, slots_of_device
from workers.source_folder import SourceFolder

if TYPE_CHECKING:
    from modeling.inference.classifier import Classifier
    from modeling.inference.push_predictor import PushPredictor

logger = logging.getLogger(__name__)

_T = TypeVar("_T")
_Key = tuple[str, WantedPrecision]  # a model's digest, and the wanted precision

PATIENCE_S = 120.0  # a server that is away for longer ends the slice; the parts on the disk are kept
MODELS_KEPT = 4
SOURCES_KEPT = 64


class HomeAccessError(PigeonholeError):
    """This worker has no right to a job's folder; another worker may have it."""


class ModelCache:
    """Loaded models by digest, shared by all threads; the least recently used is dropped when there are too many."""

    def __init__(self, store: ModelStore, device: str, *, batch_size: int | None = None) -> None:
        """batch_size: the configured one; by default each model's own."""
        self._store = store
        self._device = device
        self._batch_size = batch_size
        self._lock = threading.Lock()
        self._models: OrderedDict[_Key, Future[Classifier]] = OrderedDict()
        self._prepared: OrderedDict[_Key, Future[PushPredictor]] = OrderedDict()
        self._in_memory: WeakValueDictionary[_Key, Classifier] = WeakValueDictionary()

    def get(self, pin: ModelPin, precision: WantedPrecision = "auto", *, report: Report = unreported) -> "Classifier":
        """The classifier of a pinned model version on the fastest engine of that precision, loaded once.

        A thread that asks for a model which is being loaded waits for that model only. report: receives what takes
        seconds, if this thread loads.

        Raises:
            ModelNotFoundError: if the store has no such version.
            ModelFormatError: if the version in the store is not the one that was pinned.
            ModelingError: if no engine has the precision.
        """
        return self._once(self._models, (pin.digest, precision), lambda: self._found_or_loaded(pin, precision, report))

    def get_for_pushes(
        self, pin: ModelPin, precision: WantedPrecision = "auto", *, report: Report = unreported
    ) -> "PushPredictor":
        """The same classifier, prepared once for pushed images; this takes seconds. Raises what `get` raises."""
        classifier = self.get(pin, precision, report=report)
        report(f"preparing {pin.ref} for pushed images")
        return self._once(self._prepared, (pin.digest, precision), lambda: _prepare(classifier))

    def drop_others(self) -> None:
        """Keep only the model that was used last, and those that lines use: memory is short."""
        self._drop_least_used(1)

    def _found_or_loaded(self, pin: ModelPin, precision: WantedPrecision, report: Report) -> "Classifier":
        """One that was dropped is in memory as long as a line uses it."""
        key = (pin.digest, precision)
        classifier = self._in_memory.get(key)
        if classifier is None:
            classifier = self._in_memory[key] = self._load(pin, precision, report)
        return classifier

    def _load(self, pin: ModelPin, precision: WantedPrecision, report: Report) -> "Classifier":
        def say(words: str) -> None:
            logger.info("model %s: %s", pin.ref, words)
            report(words)

        say(f"loading {pin.ref}")
        from modeling.inference.choose_engine import load_fastest  # imports torch, so only when a model is loaded

        version = self._store.resolve_pinned(pin.ref, pin.digest)
        classifier = load_fastest(version, self._device, precision=precision, report=say)
        return classifier.for_batch_size(self._batch_size) if self._batch_size else classifier

    def _once(self, made: "OrderedDict[_Key, Future[_T]]", key: _Key, make: Callable[[], _T]) -> _T:
        """What was made for a key; the first thread makes it, others wait."""
        with self._lock:
            is_first = key not in made
            future = made.setdefault(key, Future())
            made.move_to_end(key)
        try:
            if is_first:
                self._make(made, key, future, make)
            return future.result()
        finally:
            del future  # an error's traceback refers to this frame, which must not refer to the error

    def _make(
        self, made: "OrderedDict[_Key, Future[_T]]", key: _Key, future: "Future[_T]", make: Callable[[], _T]
    ) -> None:
        """Make it; an error is raised in all threads that wait for it, and the next call makes it again."""
        try:
            future.set_result(make())
        except BaseException as err:
            with self._lock:
                if made.get(key) is future:
                    del made[key]
            future.set_exception(err)
        else:
            self._drop_least_used(MODELS_KEPT)
        finally:
            del future

    def _drop_least_used(self, num_kept: int) -> None:
        """Drop the least recently used models, and exclude the others from garbage collection.

        Rows are many new objects, so Python collects garbage often and visits all objects each time: torch and the
        models have hundreds of thousands, which took a sixth of the time of a job of tiny images. So all objects
        that exist when a model has been loaded are frozen until a model is dropped.
        """
        with self._lock:
            loaded = [key for key, future in self._models.items() if future.done()]  # others are waited for
            too_many = loaded[:-num_kept]
            for key in too_many:
                del self._models[key]
                self._prepared.pop(key, None)
        if too_many:
            gc.unfreeze()
            gc.collect()
        gc.freeze()


def _prepare(classifier: "Classifier") -> "PushPredictor":
    from modeling.inference.push_predictor import prepare_for_pushes

    return prepare_for_pushes(classifier)


@dataclass
class WorkerContext:
    """What a worker's functions need: plain values and functions, so that tests need no Celery.

    ledger: sends each call once, for leases and reports that are repeated anyway.
    device: as torch names it. gate: whose turn it is on that device.
    ring: takes a queue and a job.
    draining: whether the worker takes no more work. hurried: whether it then hands back what it cannot finish soon.
    """

    settings: Settings
    ledger: Ledger
    models: ModelCache
    worker: str
    device: str
    ring: Callable[[str, str], None]
    draining: Callable[[], bool] = field(default=lambda: False)
    hurried: Callable[[], bool] = field(default=lambda: True)
    _sources: OrderedDict[str, SourceFolder] = field(default_factory=OrderedDict)
    gate: DeviceGate = field(init=False)

    def __post_init__(self) -> None:
        self.gate = DeviceGate(slots_of_device(self.device))

    def folder(self, job: str) -> JobFolder:
        """The folder of a job that exists on this machine.

        Raises NotFoundError where it does not, HomeAccessError where this worker has no right to it.
        """
        try:
            folder = JobFolder.open(self.settings, job)
            folder.request_file.open("rb").close()
        except PermissionError as err:
            raise HomeAccessError(f"worker {self.worker} has no right to job {job}: {explain_os_error(err)}") from err
        return folder

    def source_folder(self, job: str, root: str) -> SourceFolder:
        """What this process knows of a job's source folder, from earlier slices too."""
        source = self._sources.pop(job, None) or SourceFolder(root)
        self._sources[job] = source
        if len(self._sources) > SOURCES_KEPT:
            self._sources.popitem(last=False)
        return source

    def report_trouble(self, job: str, trouble: str) -> None:
        """Enter into the job's history and record what keeps it from making progress.

        Raises one of SERVER_ERRORS where the server is away.
        """
        note_trouble(JobFolder(self.settings, job), trouble, by=self.worker)
        self.ledger.report_trouble(job, trouble)

    @property
    def recovering_ledger(self) -> RecoveringLedger:
        """The ledger that waits for a server that is away, for `PATIENCE_S` or until the worker must stop."""
        return RecoveringLedger(self.ledger, self.settings, Patience(PATIENCE_S, self.draining))
