"""What a worker's parent does for its lines every few seconds: answers move to files, images are kept within bounds."""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from orchestrator.contract.errors import MessageError
from orchestrator.contract.ledger.periodic_call import PeriodicCall
from orchestrator.contract.lines.answers import Answer, decode_record
from orchestrator.contract.lines.archive import AnswerArchive
from orchestrator.contract.lines.model_lines import USE_AGAIN_S, ModelLines
from orchestrator.contract.lines.mover import AnswerMover, stay_keeper
from orchestrator.contract.lines.registry import LineRegistry, answers_folder, images_folder
from orchestrator.contract.lines.settings import Line, LineSettings
from orchestrator.contract.lines.store import LineStore
from orchestrator.contract.server import connect_raw
from orchestrator.contract.settings import Settings
from workers.lines.image_bounds import ImageBounds
from workers.lines.kept_images import ImageWriter

logger = logging.getLogger(__name__)

EVERY_S = 2.0
_TIDY_S = 10.0
_UNKEPT_S = 1.0  # images that waited are stored for so long in one call


class LineMaintenance:
    """Maintains one line. Several workers may do so; only one at a time does."""

    def __init__(self, store: LineStore, folder: Path, worker: str) -> None:
        """folder: of the line, in the home."""
        self._store = store
        self._folder = folder
        self._worker = worker
        self._archive = AnswerArchive(answers_folder(folder))
        self._mover = AnswerMover(store, self._archive)
        self._bounds = ImageBounds(images_folder(folder))
        self._writer: ImageWriter | None = None
        self._tidy_at_s = 0.0

    def run(self, settings: LineSettings) -> bool:
        """Move answers, store images that wait for a worker, delete what is over the bounds.

        Returns whether this worker did it, not another.
        """
        now_ms = stay_keeper(self._store, self._worker)
        if now_ms is None:
            return False
        if settings.of_model:
            self._mover.drop(now_ms - settings.keep_s * 1000)
            return True
        faults = [err for step in self._steps(settings, now_ms) if (err := _fault_of(step))]
        if faults:
            raise faults[0]
        return True

    def _steps(self, settings: LineSettings, now_ms: int) -> list[Callable[[], object]]:
        """What is to do now. First what frees a disk that may be full; no fault of the disk costs another step."""
        move, store_unkept = partial(self._mover.move, now_ms), partial(self._store_unkept, settings)
        if time.monotonic() < self._tidy_at_s:
            return [move, store_unkept]
        self._tidy_at_s = time.monotonic() + _TIDY_S
        now = datetime.fromtimestamp(time.time(), UTC)  # as the writers name days
        return [
            partial(self._mover.expire, now_ms, settings.keep_s),
            partial(self._bounds.enforce, settings.keep_images_s, settings.keep_images_bytes, now),
            move,
            store_unkept,
            partial(self._mover.merge, settings.keep_s),
        ]

    def _store_unkept(self, settings: LineSettings) -> None:
        """Store images of requests that were answered without a worker: an image leaves the server when it is a file.

        Where the worker dies between the two it is written again, in the same place.
        """
        if self._writer is None or not self._writer.is_current:
            self._writer = ImageWriter(self._folder)
        stored, end_s = b"", time.monotonic() + _UNKEPT_S
        while (found := self._store.run("unkept", [stored])) and time.monotonic() < end_s:
            stored, image, record = found
            key = stored.decode(errors="backslashreplace")
            answer = self._answer(key, record)
            if answer and (why := self._writer.why(settings, key, answer.bin, answer.reason)):
                self._writer.write(image, answer, why)

    def _answer(self, key: str, record: bytes) -> Answer | None:
        """The answer of an image that waits; it may be in a file meanwhile. None where it is none of ours."""
        known = record or self._archive.find(key)
        try:
            return decode_record(known) if known else None
        except (MessageError, ValueError) as err:
            logger.warning("line %s: the image of %r is not kept: %s", self._store.name, key[:80], err)
            return None


def _fault_of(step: Callable[[], object]) -> OSError | None:
    """The disk's fault with a step, if there is one."""
    try:
        step()
    except OSError as err:
        return err
    return None


class LinesMaintenance:
    """Maintains all lines of the home, in a thread of a worker's parent."""

    def __init__(self, settings: Settings, worker: str) -> None:
        self._worker = worker
        client = connect_raw(settings.require_server_url())
        self._registry = LineRegistry(settings, client)
        self._model_lines = ModelLines(self._registry, client)
        self._unused_since_s: dict[str, float] = {}
        self._lines: dict[tuple[str, str | None], LineMaintenance] = {}
        self._failing: set[str] = set()
        self._thread = PeriodicCall(self.run, EVERY_S, "lines-maintenance")

    def start(self) -> None:
        self._thread.start()

    def stop(self, *, wait_s: float) -> None:
        self._thread.stop(wait_s=wait_s)

    def run(self) -> None:
        """Maintain each line once; what is wrong with one does not keep the others waiting."""
        names = self._registry.names()
        self._lines = {place: line for place, line in self._lines.items() if place[0] in names}
        for name in names:
            try:
                self._run(self._registry.get(name))
            except Exception as err:
                if name not in self._failing:  # a server that is away, a full disk: said once
                    logger.warning("line %s: answers and images cannot be moved, trying again: %s", name, err)
                self._failing.add(name)
            else:
                self._failing.discard(name)

    def _run(self, line: Line) -> None:
        place = (line.name, line.settings.server)
        if place not in self._lines:
            folder = self._registry.folder(line.name)
            self._lines[place] = LineMaintenance(self._registry.store(line), folder, self._worker)
        if self._lines[place].run(line.settings) and line.settings.of_model:
            self._close_unused(line.name)

    def _close_unused(self, name: str) -> None:
        """Close the line of a model that nobody uses any more; after a while, since an emptied server knows no uses."""
        if self._model_lines.is_used(name):
            self._unused_since_s.pop(name, None)
        elif time.monotonic() - self._unused_since_s.setdefault(name, time.monotonic()) > 3 * USE_AGAIN_S:
            logger.info("line %s: nobody has used it lately", name)
            self._model_lines.close_unused(name)
            del self._unused_since_s[name]
