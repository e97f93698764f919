"""Clients of a line: they push images and return the bin, with its reason, by the deadline."""

import asyncio
import weakref
from collections.abc import Iterable
from concurrent.futures import Future
from types import TracebackType
from typing import Self

from orchestrator.contract.lines.answers import Answer
from orchestrator.contract.lines.settings import Line
from orchestrator.lines.core import LAST_REPORTS_S, Core
from orchestrator.lines.drivers import LoopDriver, ThreadDriver
from orchestrator.lines.request import Image, PushOptions, PushRequest, make_request

AT_ONCE_BYTES = 1 << 20  # of images that an event loop hashes or parses itself: a millisecond


class LineClient:
    """Pushes images to a line.

    line: its name. url: of the server; default: PIGEONHOLE_SERVER_URL, else as the settings have it. deadline: in
    seconds, of pushes that name none; default: the line's. fallback: the bin of what cannot be decided as long as no
    server has said what the line's fallback bin is. With both, every push gets an answer, whether there is a server or
    not; without, pushes raise UnavailableError until the line has been seen once.

    Safe to share between threads. It has two threads of its own, so make it after a fork, not before; they do not
    keep a program from ending. loop: a running event loop that does the work of one of them; futures end in its thread,
    and nothing that it runs may wait for one.
    """

    def __init__(
        self,
        line: str,
        url: str | None = None,
        *,
        deadline: float | None = None,
        fallback: str | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._core = Core(line, url, deadline, fallback, LoopDriver(loop) if loop else ThreadDriver())
        self._core.start()
        weakref.finalize(self, self._core.stop).atexit = False

    @property
    def line(self) -> Line | None:
        """The line as it was seen last; None before the server has said anything."""
        return self._core.pushes.line

    def push(
        self,
        image: Image,
        item: str,
        pass_: int = 1,
        *,
        deadline: float | None = None,
        triggered_at: float | None = None,
        by_path: bool = False,
        retry: bool = True,
    ) -> Answer:
        """Push an image and wait for its answer: at the latest 20 ms after the deadline.

        image: its bytes, or the path of a file that is read here. item: 1 to 1000 bytes of text. pass_: rises each time
        the same item comes by; an item and pass pushed again gets the answer that it has. deadline: in seconds from the
        push, or from `triggered_at`, a time.time() of this machine. by_path: only the path travels, with its size and
        mtime; it lies under a root of the line, and workers read the file. retry: False: a refusal ends the push
        with PushRefusedError at once, which says when to push again; else it is tried again until the deadline.

        An image that is missing, empty, too large or unreadable gets the fallback bin with `unreadable`.

        Raises ValueError or TypeError for other arguments that cannot be used, NotFoundError where the server does not
        know the line, and UnavailableError where there is nothing to decide with.
        """
        options = PushOptions(deadline, triggered_at, by_path, retry)
        return self._submit(image, item, pass_, options).result()

    def submit(
        self,
        image: Image,
        item: str,
        pass_: int = 1,
        *,
        deadline: float | None = None,
        triggered_at: float | None = None,
        by_path: bool = False,
        retry: bool = True,
    ) -> "Future[Answer]":
        """Push an image, as `push` does, without waiting. The future cannot be cancelled."""
        return self._submit(image, item, pass_, PushOptions(deadline, triggered_at, by_path, retry))

    def _submit(self, image: Image, item: str, pass_: int, options: PushOptions) -> "Future[Answer]":
        self._core.check_usable()
        future: Future[Answer] = Future()
        self._core.offer(make_request(image, item, pass_, options, future))
        return future

    def submit_with(self, image: Image, item: str, pass_: int, options: PushOptions) -> "Future[Answer]":
        """Push an image without waiting, for a program that forwards the pushes of others."""
        return self._submit(image, item, pass_, options)

    def push_many(
        self,
        images: Iterable[tuple[Image, str]],
        pass_: int = 1,
        *,
        deadline: float | None = None,
        by_path: bool = False,
    ) -> list[Answer]:
        """Push many images at once, each with its item; their answers in the order given."""
        futures = [self.submit(image, item, pass_, deadline=deadline, by_path=by_path) for image, item in images]
        return [future.result() for future in futures]

    def discharged(self, item: str, pass_: int, bin: str) -> None:
        """Report where an item really went. Returns at once; the report is kept until the server has it."""
        self._core.discharged(item, pass_, bin)

    def answer(self, item: str, pass_: int = 1) -> Answer | None:
        """Look up the answer of an item on the server; None where it has none (yet).

        Raises UnavailableError where no server answers.
        """
        return self._core.answer(item, pass_)

    def close(self) -> None:
        """Wait until all pushes have their answer, then end the client's threads."""
        self._core.close()

    def wait_for_reports(self, seconds: float = LAST_REPORTS_S) -> None:
        """Wait until the server has all discharges and decisions made alone, if it is there, and at most so long."""
        self._core.wait_for_reports(seconds)

    def abandon(self) -> None:
        """Take nothing more, and wait for nothing: what was pushed is answered all the same."""
        self._core.abandon()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        if err is None:
            self.close()
        else:
            self.abandon()  # a deadline may be an hour away


class AsyncLineClient:
    """The same for asyncio: see `LineClient`.

    One event loop uses it, in whose thread everything happens but connecting and reading files. It connects when it is
    entered or used first.
    """

    def __init__(
        self, line: str, url: str | None = None, *, deadline: float | None = None, fallback: str | None = None
    ) -> None:
        self._core = Core(line, url, deadline, fallback, LoopDriver())
        self._started = False
        weakref.finalize(self, self._core.stop).atexit = False

    @property
    def line(self) -> Line | None:
        """The line as it was seen last; None before the server has said anything."""
        return self._core.pushes.line

    def start(self) -> None:
        """Connect, in the running event loop."""
        if not self._started:
            self._started = True
            self._core.start()

    async def push(
        self,
        image: Image,
        item: str,
        pass_: int = 1,
        *,
        deadline: float | None = None,
        triggered_at: float | None = None,
        by_path: bool = False,
        retry: bool = True,
    ) -> Answer:
        """Push an image and await its answer: see `LineClient.push`. A cancelled task has pushed it."""
        future = await self.submit(
            image, item, pass_, deadline=deadline, triggered_at=triggered_at, by_path=by_path, retry=retry
        )  # fmt: skip
        return await future

    async def submit(
        self,
        image: Image,
        item: str,
        pass_: int = 1,
        *,
        deadline: float | None = None,
        triggered_at: float | None = None,
        by_path: bool = False,
        retry: bool = True,
    ) -> "asyncio.Future[Answer]":
        """Push an image; the future has the answer. A file is read, and a large image is hashed, in another thread."""
        options = PushOptions(deadline, triggered_at, by_path, retry)
        if isinstance(image, bytes) and len(image) <= AT_ONCE_BYTES:
            return self.submit_with(image, item, pass_, options)
        self._core.check_usable()
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        request = await asyncio.to_thread(make_request, image, item, pass_, options, future)
        self._offer(request)
        return future

    def submit_with(self, image: bytes, item: str, pass_: int, options: PushOptions) -> "asyncio.Future[Answer]":
        """Push an image at once, in the running event loop, for a program that forwards the pushes of others."""
        self._core.check_usable()
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._offer(make_request(image, item, pass_, options, future))
        return future

    def _offer(self, request: PushRequest) -> None:
        self.start()
        self._core.offer(request)

    async def push_many(
        self,
        images: Iterable[tuple[Image, str]],
        pass_: int = 1,
        *,
        deadline: float | None = None,
        by_path: bool = False,
    ) -> list[Answer]:
        """Push many images at once, each with its item; their answers in the order given."""
        futures = [await self.submit(image, item, pass_, deadline=deadline, by_path=by_path) for image, item in images]
        return list(await asyncio.gather(*futures))

    async def discharged(self, item: str, pass_: int, bin: str) -> None:
        """Report where an item really went: see `LineClient.discharged`."""
        self.start()
        self._core.discharged(item, pass_, bin)

    async def answer(self, item: str, pass_: int = 1) -> Answer | None:
        """Look up the answer of an item on the server: see `LineClient.answer`."""
        return await asyncio.to_thread(self._core.answer, item, pass_)

    async def close(self) -> None:
        """Wait until all pushes have their answer, then disconnect."""
        await asyncio.to_thread(self._core.close)

    async def wait_for_reports(self, seconds: float = LAST_REPORTS_S) -> None:
        """See `LineClient.wait_for_reports`."""
        await asyncio.to_thread(self._core.wait_for_reports, seconds)

    def abandon(self) -> None:
        """Take nothing more, and wait for nothing: what was pushed is answered all the same."""
        self._core.abandon()

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        if err is None:
            await self.close()
        else:
            self.abandon()
