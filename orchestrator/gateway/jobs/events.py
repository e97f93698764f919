"""Progress of jobs as server-sent events: one poll of a job for all its viewers.

Each event is a whole snapshot, and its id is a digest of it. So a viewer that is slow misses only what is old, and one
that connects again, to any gateway, gets the present snapshot unless it has it already.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from orchestrator.contract.errors import UnavailableError
from orchestrator.gateway.jobs.hang_up import disconnected, first_of

logger = logging.getLogger(__name__)

POLL_S = 0.5
HEARTBEAT_S = 15.0  # proxies close what is silent for a minute
RETRY_MS = 2000  # after which a browser connects again
MOST_VIEWERS = 500
SEND_S = 30.0  # a viewer that takes nothing for so long is cut off


@dataclass(frozen=True, slots=True)
class JobEvent:
    """A snapshot: its id, its JSON, and whether the job has ended."""

    id: str
    data: str
    final: bool

    @property
    def encoded(self) -> bytes:
        name = "end" if self.final else "progress"
        return f"id: {self.id}\nevent: {name}\ndata: {self.data}\n\n".encode()


Look = Callable[[], Awaitable[JobEvent]]


class JobWatch:
    """The poll of one job, while somebody views it."""

    def __init__(self, look: Look) -> None:
        self.num_viewers = 0
        self._look = look
        self._event: JobEvent | None = None
        self._error: Exception | None = None
        self._changed = asyncio.Condition()
        self.task = asyncio.create_task(self._run())

    async def next(self, seen: str | None) -> JobEvent:
        """The newest event, as soon as it is another one than `seen`, or the last one.

        Raises what looking at the job raised.
        """
        async with self._changed:
            while True:
                if self._error is not None:
                    raise self._error
                if self._event is not None and (self._event.final or self._event.id != seen):
                    return self._event
                await self._changed.wait()

    async def _run(self) -> None:
        while True:
            try:
                event = await self._look()
            except Exception as err:  # told to each viewer, which raises it again
                await self._set(None, err)
                return
            if self._event is None or event.id != self._event.id:
                await self._set(event, None)
            if event.final:
                return
            await asyncio.sleep(POLL_S)

    async def _set(self, event: JobEvent | None, error: Exception | None) -> None:
        async with self._changed:
            self._event, self._error = event or self._event, error
            self._changed.notify_all()


class JobWatches:
    """The jobs that are viewed now. look_at: what looks at a job again and again."""

    def __init__(self, look_at: Callable[[str], Look]) -> None:
        self._look_at = look_at
        self._watches: dict[str, JobWatch] = {}
        self.num_viewers = 0

    @contextlib.asynccontextmanager
    async def view(self, job: str) -> AsyncIterator[JobWatch]:
        """The watch of a job, as long as the block lasts. Raises UnavailableError where too many view jobs."""
        if self.num_viewers >= MOST_VIEWERS:
            raise UnavailableError(f"{MOST_VIEWERS} streams of events are open; close some, or try again later")
        watch = self._watches.get(job)
        if watch is None or watch.task.done():
            watch = self._watches[job] = JobWatch(self._look_at(job))
        watch.num_viewers += 1
        self.num_viewers += 1
        try:
            yield watch
        finally:
            watch.num_viewers -= 1
            self.num_viewers -= 1
            if not watch.num_viewers:
                watch.task.cancel()
                if self._watches.get(job) is watch:
                    del self._watches[job]


class EventStream(Response):
    """The events of a job until it ends, the viewer goes, or the gateway stops.

    last_id: the last event that the viewer has. One that has the end gets 204, which tells a browser not to come again.
    Raises what looking at the job raises, as long as nothing was sent.
    """

    media_type = "text/event-stream"

    def __init__(self, watches: JobWatches, job: str, last_id: str | None, stopping: asyncio.Event) -> None:
        super().__init__(headers={"x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._watches, self._job, self._seen, self._stopping = watches, job, last_id, stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._watches.view(self._job) as watch:
            event = await watch.next(None)
            if event.final and event.id == self._seen:
                await Response(status_code=204)(scope, receive, send)
                return
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await _put(send, f"retry: {RETRY_MS}\n\n".encode())
            await first_of(self._write(watch, send), disconnected(receive), self._stopping.wait())
            with contextlib.suppress(TimeoutError):
                await _put(send, b"", more=False)

    async def _write(self, watch: JobWatch, send: Send) -> None:
        """Send each new event, and something where there is none for long; returns after the last one."""
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    event = await watch.next(self._seen)
            except TimeoutError:
                await _put(send, b": no change\n\n")
                continue
            except Exception as err:  # the stream has begun: no status can tell it any more
                logger.warning("the events of job %s end: %s", self._job, err)
                return
            await _put(send, event.encoded)
            if event.final:
                return
            self._seen = event.id


async def _put(send: Send, body: bytes, *, more: bool = True) -> None:
    """Raises TimeoutError where the viewer takes nothing."""
    async with asyncio.timeout(SEND_S):
        await send({"type": "http.response.body", "body": body, "more_body": more})
