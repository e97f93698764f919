"""Loads the models of lines beside those that answer, and follows their aliases."""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection

from modeling.images.decode import warm_up
from modeling.images.progress import Report, unreported
from modeling.registry.store import ModelStore, ModelVersion
from orchestrator.contract.jobs.requests import ModelPin
from workers.context import ModelCache
from workers.lines.model import LineModel

Load = Callable[[ModelVersion, Report], LineModel]
"""Returns a model, loaded and warm; says what takes seconds."""

logger = logging.getLogger(__name__)

MODELS_KEPT = 4  # warm ones that no line uses, beside those in use: an alias that moves back finds its model loaded
RESOLVE_AGAIN = 20  # looks after which a reference is resolved although its folder looks unchanged


class LineModels:
    """The warm models of this process, and what references point to."""

    def __init__(self, store: ModelStore, load: Load) -> None:
        self._store = store
        self._load = load
        self._lock = threading.Lock()
        self._warm: OrderedDict[tuple[str, str], LineModel] = OrderedDict()
        self._seen: dict[str, tuple[int, int, ModelVersion]] = {}

    def resolve(self, reference: str) -> ModelVersion:
        """The version that a reference points to now. Cheap while nothing was published or moved.

        Raises ModelingError where it points nowhere.
        """
        try:
            changed_ns = (self._store.root / reference.partition("@")[0]).stat().st_mtime_ns
        except OSError:
            changed_ns = 0
        known = self._seen.get(reference)
        if known is not None and known[0] == changed_ns and known[1] < RESOLVE_AGAIN:
            self._seen[reference] = (changed_ns, known[1] + 1, known[2])
            return known[2]
        version = self._store.resolve(reference)
        self._seen[reference] = (changed_ns, 0, version)
        return version

    def warm(self, version: ModelVersion) -> LineModel | None:
        """The model if it is loaded and warm."""
        with self._lock:
            if (version.ref, version.digest) in self._warm:
                self._warm.move_to_end((version.ref, version.digest))
            return self._warm.get((version.ref, version.digest))

    def load(self, version: ModelVersion, report: Report = unreported) -> LineModel:
        """Load a model, warm it, and keep it until `drop_unused`. Raises ModelingError, or what a library raises."""
        model = self.warm(version)
        if model is None:
            model = self._load(version, report)
            logger.info("%s is loaded and warm: %s ms by batch size", model.name, model.timings.all_expected_ms())
            with self._lock:
                self._warm[version.ref, version.digest] = model
        return model

    def drop_unused(self, used: Collection[LineModel]) -> None:
        """Drop the least recently used of the models that no line uses, if there are more than `MODELS_KEPT`."""
        with self._lock:
            unused = [key for key, model in self._warm.items() if model not in used]
            for key in unused[:-MODELS_KEPT]:
                del self._warm[key]


def loader(models: ModelCache) -> Load:
    """Loads through the models that jobs use, so that a version is in memory once."""

    def load(version: ModelVersion, report: Report) -> LineModel:
        warm_up()
        pin = ModelPin(
            name=version.name,
            number=version.version,
            digest=version.digest,
            preprocessing_digest=version.card().preprocessing.digest,
        )
        return LineModel(version.ref, models.get_for_pushes(pin, report=report))

    return load
