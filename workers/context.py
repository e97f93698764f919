"""What the pool child of a worker works with, for jobs of every kind."""

import gc
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from modeling.inference.engines.choice import WantedPrecision
from modeling.registry.store import ModelStore
from orchestrator.contract.access import explain_os_error
from orchestrator.contract.errors import PigeonholeError
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.recovering_ledger import Patience, RecoveringLedger
from orchestrator.contract.jobs.requests import ModelPin
from orchestrator.contract.ledger.ledger import Ledger
from orchestrator.contract.settings import Settings
from workers.source_folder import SourceFolder

if TYPE_CHECKING:
    from modeling.inference.classifier import Classifier

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
        self._models: OrderedDict[tuple[str, WantedPrecision], Future[Classifier]] = OrderedDict()

    def get(self, pin: ModelPin, precision: WantedPrecision = "auto") -> "Classifier":
        """The classifier of a pinned model version on the fastest engine of that precision, loaded once.

        A thread that asks for a model which is being loaded waits for that model only.

        Raises:
            ModelNotFoundError: if the store has no such version.
            ModelFormatError: if the version in the store is not the one that was pinned.
            ModelingError: if no engine has the precision.
        """
        key = (pin.digest, precision)
        with self._lock:
            to_load = key not in self._models
            loading = self._models.setdefault(key, Future())
            self._models.move_to_end(key)
        try:
            if to_load:
                self._load(key, loading, pin)
            return loading.result()
        finally:
            del loading  # an error's traceback refers to this frame, which must not refer to the error

    def _load(self, key: tuple[str, WantedPrecision], loading: "Future[Classifier]", pin: ModelPin) -> None:
        """Load a model; an error is raised in all threads that wait for it, and the next call loads it again."""
        try:
            from modeling.inference.choose_engine import load_fastest  # imports torch, so only when a model is loaded

            version = self._store.resolve_pinned(pin.ref, pin.digest)
            classifier = load_fastest(version, self._device, precision=key[1])
            loading.set_result(classifier.for_batch_size(self._batch_size) if self._batch_size else classifier)
        except BaseException as err:
            with self._lock:
                if self._models.get(key) is loading:
                    del self._models[key]
            loading.set_exception(err)
        else:
            self._drop_least_used()
        finally:
            del loading

    def _drop_least_used(self) -> None:
        """Drop the least recently used models, and exclude the others from garbage collection.

        Rows are many new objects, so Python collects garbage often and visits all objects each time: torch and the
        models have hundreds of thousands, which took a sixth of the time of a job of tiny images. So all objects
        that exist when a model has been loaded are frozen until a model is dropped.
        """
        with self._lock:
            too_many = len(self._models) - MODELS_KEPT
            for _ in range(too_many):
                self._models.popitem(last=False)
        if too_many > 0:
            gc.unfreeze()
            gc.collect()
        gc.freeze()


@dataclass
class WorkerContext:
    """What a worker's functions need: plain values and functions, so that tests need no Celery.

    ledger: sends each call once, for leases and reports that are repeated anyway.
    device: as torch names it.
    ring: takes a queue and a job.
    """

    settings: Settings
    ledger: Ledger
    models: ModelCache
    worker: str
    device: str
    ring: Callable[[str, str], None]
    draining: Callable[[], bool] = field(default=lambda: False)
    _sources: OrderedDict[str, SourceFolder] = field(default_factory=OrderedDict)

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

    @property
    def recovering_ledger(self) -> RecoveringLedger:
        """The ledger that waits for a server that is away, for `PATIENCE_S` or until the worker must stop."""
        return RecoveringLedger(self.ledger, self.settings, Patience(PATIENCE_S, self.draining))
