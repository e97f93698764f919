"""The lines in a worker's pool child: which are open, with which model, and the threads that serve them.

taken (link) -> decoded (decode) -> predicted (predict) -> answered (link); the scheduler says what is next.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import redis

from modeling.errors import ImageError, ModelingError
from modeling.images.quotas import num_cores
from orchestrator.contract.lines.answers import Cause
from orchestrator.contract.lines.registry import VERSION_KEY, read_lines
from orchestrator.contract.lines.settings import Line
from orchestrator.contract.lines.status import read_status
from orchestrator.contract.lines.store import LineStore
from orchestrator.contract.server import SERVER_ERRORS, connect_raw
from workers.device_gate import DeviceGate
from workers.lines.choice import LineChoice
from workers.lines.decode import LineDecoders
from workers.lines.files import LineFiles
from workers.lines.link import SOCKET_TIMEOUT_S, ServerLink
from workers.lines.loading import LineModels
from workers.lines.model import LineModel
from workers.lines.predict import LinePredictors, overdue, unreadable
from workers.lines.requests import Done, OpenLine, Request
from workers.lines.scheduler import Scheduler

logger = logging.getLogger(__name__)

POLL_S = 0.2
READ_ALL_S = 2.0  # also if the version is the same: a server that was emptied and filled may have the same one
DRAIN_S = 5.0
STALLED_EXIT_CODE = 70  # EX_SOFTWARE of sysexits.h
_LOAD_AGAIN_S = 5.0


@dataclass(frozen=True, slots=True)
class ConsumerSettings:
    """What a consumer needs to know of its worker.

    url: of the main server. worker: another name for each process. stall_s: a batch that takes longer ends the process.
    """

    url: str
    worker: str
    device: str
    lines: LineChoice
    max_pixels: int
    decode_threads: int = 0
    stall_s: float = 300.0


@dataclass(frozen=True, slots=True)
class LinesEnd:
    """When a worker stops to serve lines.

    draining: whether it takes no more work. at_once: whether lines are then closed although no other worker serves
    them. closed: of a file that is made when all are closed.
    """

    draining: Callable[[], bool] = lambda: False
    at_once: Callable[[], bool] = lambda: True
    closed: Path | None = None


class LineConsumer:
    """Serves lines until it is stopped, the worker drains, or the worker's parent dies."""

    def __init__(
        self,
        settings: ConsumerSettings,
        models: LineModels,
        files: LineFiles,
        gate: DeviceGate,
        end: LinesEnd = LinesEnd(),
    ) -> None:
        self._settings = settings
        self._models = models
        self._end = end
        self._files = files
        self._gate = gate
        self._client = connect_raw(settings.url, timeout_s=SOCKET_TIMEOUT_S)
        threads = settings.decode_threads or num_cores()
        self._scheduler = Scheduler(threads, self._late)
        self._decoders = LineDecoders(self._scheduler, threads, settings.max_pixels, self._unreadable, self._hand_back)
        self._predictors = LinePredictors(self._scheduler, self._answer, self._abandon, gate, settings.device)
        self._links: dict[str, ServerLink] = {}
        self._open: dict[str, OpenLine] = {}
        self._loading: dict[tuple[str, str], threading.Thread] = {}
        self._load_failures: dict[tuple[str, str], tuple[float, str]] = {}
        self._waiting: list[str] = []  # names of lines that no other worker serves yet, while this one drains
        self._version = -1
        self._read_s = 0.0
        self._stopped = threading.Event()
        self._stopping = threading.Lock()
        self._threads = [
            threading.Thread(target=target, name=name, daemon=True)
            for name, target in (("lines", self._run), ("lines-watch", self._watch))
        ]

    def start(self) -> None:
        self._decoders.start()
        for thread in self._threads:
            thread.start()

    def stop(self, *, wait_s: float = DRAIN_S) -> None:
        """Take nothing more, answer what is held or hand it back, and leave; returns when that is done."""
        with self._stopping:
            if not self._stopped.is_set():
                self._stop(wait_s)

    def _stop(self, wait_s: float) -> None:
        self._stopped.set()
        links = list(self._links.values())
        for link in links:
            link.drain()
        self._hand_back(self._scheduler.take_back_untried())
        for link in links:
            link.stop(wait_s=wait_s)
        self._decoders.stop()
        self._predictors.stop()
        self._scheduler.close()
        self._files.close(wait_s=wait_s)

    @property
    def lines(self) -> dict[str, OpenLine]:
        """The lines of this worker by name, open or opening."""
        return dict(self._open)

    # Which lines are open

    def _run(self) -> None:
        while not self._stopped.wait(POLL_S):
            try:
                self._look()
            except SERVER_ERRORS as err:
                logger.debug("lines: the server is away: %s", err)
            except Exception:
                logger.exception("cannot look for lines, trying again")

    def _watch(self) -> None:
        """Apart from what waits for a server or a disk."""
        while not self._stopped.wait(POLL_S):
            self._decoders.look()
            if self._scheduler.longest_prediction_s() > self._settings.stall_s:
                logger.critical("no batch was finished for %.0f s; this process ends", self._settings.stall_s)
                os._exit(STALLED_EXIT_CODE)
            if self._end.draining() and self._end.at_once():
                self._leave()

    def _leave(self) -> None:
        """Serve no more lines: this worker ends."""
        logger.info("lines: no more requests are taken")
        self.stop()
        if self._end.closed is not None:
            self._end.closed.touch()

    def _others_serve_all(self) -> bool:
        """Whether every line that is open here is open on another worker, which stays."""
        for link in self._links.values():
            link.draining = True
        waiting = [line.name for line in self._open.values() if line.model is not None and not self._others_serve(line)]
        if waiting != self._waiting:
            self._waiting = waiting
            logger.info("lines: %s stay open until other workers serve them", ", ".join(waiting) or "none")
        return not waiting

    def _others_serve(self, line: OpenLine) -> bool:
        try:
            status = read_status(line.store, line.line)
        except (redis.ResponseError, ValueError) as err:
            if isinstance(err, SERVER_ERRORS):
                raise
            return True  # somebody else wrote to its keys: this worker cannot serve it, either
        others = [worker for worker in status.workers if worker.worker != self._settings.worker]
        return status.state == "paused" or any(worker.is_open and not worker.draining for worker in others)

    def _look(self) -> None:
        """Open, change and close lines as the server has them, and follow their models."""
        if self._end.draining():
            if self._others_serve_all():
                self._leave()
            return
        version = int(self._client.get(VERSION_KEY) or 0)
        now = time.monotonic()
        if version and (version != self._version or now - self._read_s > READ_ALL_S):
            version, found = read_lines(self._client)
            if version:  # else it was emptied just now; a worker's parent will fill it again
                self._apply({name: line for name, line in found.items() if self._settings.lines.includes(name)})
                self._version, self._read_s = version, now
        for line in list(self._open.values()):
            self._follow(line)
        used = {model for line in self._open.values() for model in (line.model, line.degraded) if model is not None}
        self._models.drop_unused(used)

    def _apply(self, lines: dict[str, Line]) -> None:
        for name in set(self._open) - set(lines):
            self._close(self._open.pop(name))
            self._files.forget(name)
        for name, line in lines.items():
            known = self._open.get(name)
            if known is not None and known.line.settings.server != line.settings.server:
                self._close(self._open.pop(name))
                known = None
            if known is None:
                link = self._link(line.settings.server or self._settings.url)
                self._files.open(name)
                opened = self._open[name] = OpenLine(line, LineStore(link.client, name), link.url)
                link.lines = (*link.lines, opened)
                logger.info("line %s: opening with %s", name, line.settings.model)
            elif known.line != line:
                known.line = line
        self._end_idle_links()

    def _close(self, line: OpenLine) -> None:
        self._scheduler.forget(line)
        if line.model is not None:
            self._gate.line_closed()
        link = self._links[line.url]
        link.lines = tuple(other for other in link.lines if other is not line)
        link.leave(line)
        for kept in (self._loading, self._load_failures):
            for key in [key for key in kept.copy() if key[0] == line.name]:
                kept.pop(key, None)
        logger.info("line %s: closed", line.name)

    def _link(self, url: str) -> ServerLink:
        if url not in self._links:
            self._links[url] = ServerLink(url, self._settings.worker, self._scheduler, self._files, self._gate)
            self._links[url].start()
        return self._links[url]

    def _end_idle_links(self) -> None:
        """A link whose lines are closed ends, once nothing of them is held."""
        for link in [each for each in self._links.values() if not each.lines and not each.num_held]:
            del self._links[link.url]
            link.stop(wait_s=0.0)

    # Their models

    def _follow(self, line: OpenLine) -> None:
        """Use the models that the line's references point to now; those that are not loaded yet are loaded beside."""
        troubles = []
        settings = line.line.settings
        for reference, use in ((settings.model, self._use), (settings.degraded, self._use_degraded)):
            if reference is None:
                use(line, None)
                continue
            try:
                version = self._models.resolve(reference)
            except (ModelingError, OSError) as err:
                troubles.append(str(err))
                continue
            model = self._models.warm(version)
            if model is not None:
                use(line, model)
            elif trouble := self._load_beside(line, reference):
                troubles.append(trouble)
        line.model_trouble = "; ".join(troubles) or None

    def _use(self, line: OpenLine, model: LineModel | None) -> None:
        if model is None or line.model is model:
            return
        if line.model is None:
            self._gate.line_opened()
        self._predictors.want_streams(model.streams)
        before, line.model = line.model, model
        logger.info("line %s: open with %s%s", line.name, model.name, f", before {before.name}" if before else "")

    def _use_degraded(self, line: OpenLine, model: LineModel | None) -> None:
        if model is not None:
            self._predictors.want_streams(model.streams)
        line.degraded = model

    def _load_beside(self, line: OpenLine, reference: str) -> str | None:
        """Load a model in a thread of its own, once at a time; returns why the last attempt failed."""
        key = (line.name, reference)
        thread = self._loading.get(key)
        if thread is not None and thread.is_alive():
            return None
        trouble = self._load_failures.get(key)
        if trouble is None or time.monotonic() - trouble[0] > _LOAD_AGAIN_S:
            thread = self._loading[key] = threading.Thread(
                target=self._load, args=(key, reference), name=f"lines-load-{line.name}", daemon=True
            )
            thread.start()
        return trouble[1] if trouble else None

    def _load(self, key: tuple[str, str], reference: str) -> None:
        line = self._open.get(key[0])

        def report(words: str | None) -> None:
            if line is not None:
                line.loading = words

        try:
            self._models.load(self._models.resolve(reference), report)
        except Exception as err:  # whatever a library raises: the line keeps its present model
            reason = f"{reference} cannot be loaded: {err}"[:300]
            if key not in self._load_failures:
                logger.exception("line %s: %s", key[0], reason)
            self._load_failures[key] = (time.monotonic(), reason)
        else:
            self._load_failures.pop(key, None)
        finally:
            report(None)

    # What the stages report

    def _answer(self, done: Sequence[Done]) -> None:
        for each in done:
            if link := self._links.get(each.request.line.url):  # else its lease was lost before the line was closed
                link.answer([each])

    def _late(self, late: Iterable[tuple[Request, Cause]]) -> None:
        self._answer([overdue(request, cause) for request, cause in late])

    def _unreadable(self, request: Request, error: ImageError) -> None:
        self._answer([unreadable(request, error)])

    def _abandon(self, requests: Sequence[Request]) -> None:
        for request in requests:
            if link := self._links.get(request.line.url):
                link.abandon([request])

    def _hand_back(self, requests: Sequence[Request]) -> None:
        for link in list(self._links.values()):
            link.hand_back([request for request in requests if request.line.url == link.url])
