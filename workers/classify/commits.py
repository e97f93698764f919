"""Committing shards in a thread of their own, one at a time, while the next is predicted."""

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from workers.classify.open_shard import OpenShard

logger = logging.getLogger(__name__)

_LOOK_S = 0.5  # between looks at whether to go on waiting


class Commits:
    """At most one shard is being committed; the end of the block waits for it, whatever ends the block.

    What a commit raises is raised by the next call. Where something else was raised first, it is logged.
    """

    def __init__(self, commit: Callable[[OpenShard], None], while_waiting: Callable[[], None]) -> None:
        """while_waiting: runs now and then in the thread that waits for a commit; may raise."""
        self._commit = commit
        self._while_waiting = while_waiting
        self._writer = ThreadPoolExecutor(1, "write")
        self._pending: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.shutdown(wait=True)
        lost = self._pending.exception() if self._pending else None
        if lost is not None and type(lost) is not kind:
            logger.warning("and the shard that was being committed met %s: %s", type(lost).__name__, lost)

    def add(self, shard: OpenShard) -> None:
        """Commit a shard, once the one before it is committed."""
        self.settle()
        self._pending = self._writer.submit(self._commit, shard)

    def check(self) -> None:
        """Raise what the last commit raised, if it has ended."""
        if self._pending is not None and self._pending.done():
            self.settle()

    def settle(self) -> None:
        """Wait for the last commit."""
        while self._pending is not None:
            try:
                self._pending.result(timeout=_LOOK_S)
            except TimeoutError:
                self._while_waiting()
            else:
                self._pending = None
