"""What a worker's child process works with, whatever the job."""

import functools
import gc
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from modeling.inference.engines.choice import WantedPrecision
from modeling.registry.store import ModelStore
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.requests import ModelPin
from orchestrator.contract.ledger.ledger import Ledger
from orchestrator.contract.server import SERVER_ERRORS
from orchestrator.contract.settings import Settings

if TYPE_CHECKING:
    from modeling.inference.classifier import Classifier

logger = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

PATIENCE_S = 120.0  # a server that is away longer ends the slice; the parts on the disk are not lost
MODELS_KEPT = 4


class ModelCache:
    """Loaded models by digest, one for all threads; the least recently used one goes when there are too many."""

    def __init__(self, store: ModelStore, device: str, *, batch_size: int | None = None) -> None:
        """batch_size: that the operator wants; by default each model has its own."""
        self._store = store
        self._device = device
        self._batch_size = batch_size
        self._lock = threading.Lock()
        self._models: OrderedDict[tuple[str, WantedPrecision], Future[Classifier]] = OrderedDict()

    def get(self, pin: ModelPin, precision: WantedPrecision = "auto") -> "Classifier":
        """The classifier of a pinned model version on the fastest engine of that precision, loaded once.

        Threads that ask for a model which is being loaded wait for it, those that ask for another do not.

        Raises:
            ModelNotFoundError: if the store has no such version.
            ModelFormatError: if what it has is not what was pinned.
            ModelingError: if the precision cannot be had.
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
            del loading  # an error's traceback holds this call, which must not hold the error

    def _load(self, key: tuple[str, WantedPrecision], loading: "Future[Classifier]", pin: ModelPin) -> None:
        """Load what a loading is of; what went wrong goes to all who wait, and the next to ask tries anew."""
        try:
            from modeling.inference.choose_engine import load_fastest  # torch: only where a model is wanted

            version = self._store.resolve_pinned(pin.ref, pin.digest)
            classifier = load_fastest(version, self._device, precision=key[1])
            loading.set_result(classifier.for_batch_size(self._batch_size) if self._batch_size else classifier)
        except BaseException as err:
            with self._lock:
                if self._models.get(key) is loading:
                    del self._models[key]
            loading.set_exception(err)
        else:
            self._settle()
        finally:
            del loading

    def _settle(self) -> None:
        """Let the least recently used models go, and spare what stays from being looked through for garbage.

        Rows are many new objects, and bring Python to look for garbage again and again, among all objects there are:
        torch's and the models' are hundreds of thousands, and a sixth of the time of a job of tiny images was spent
        on them. So what is there when a model has been loaded is set aside, until another has to go.
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
    """One worker's place of work: plain values and functions, so that tests need no Celery."""

    settings: Settings
    ledger: Ledger
    models: ModelCache
    worker: str
    device: str  # as torch says it
    ring: Callable[[str, str], None]  # queue, job
    draining: Callable[[], bool] = field(default=lambda: False)

    def folder(self, job: str) -> JobFolder:
        """The folder of a job that exists on this machine."""
        return JobFolder.open(self.settings, job)

    def patiently(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call until the server answers, for `PATIENCE_S` or until the worker is told to stop."""
        return patiently(functools.partial(call, *args, **kwargs), give_up=self.draining)


def patiently(call: Callable[[], T], *, give_up: Callable[[], bool], patience_s: float = PATIENCE_S) -> T:
    """Repeat `call` while the server is away; its last error is raised when patience ends."""
    deadline = time.monotonic() + patience_s
    pause_s = 0.1
    while True:
        try:
            return call()
        except SERVER_ERRORS as err:
            if give_up() or time.monotonic() > deadline:
                raise
            logger.warning("the server is away, trying again: %s", err)
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, 2.0)
