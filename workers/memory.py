"""The memory of a pool child is watched: above a limit the process is replaced, between two turns or while it is idle.

Libraries keep memory that they have freed, and may leak. Celery replaces a child after a task (`mem_rss` of billiard
says what it uses); one that only serves lines has no tasks, and ends itself.
"""

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator

import psutil
from billiard import pool

from modeling.images.quotas import memory_quota, memory_total
from orchestrator.contract.ledger.periodic_call import PeriodicCall
from orchestrator.contract.settings import Settings

logger = logging.getLogger(__name__)

LOOK_S = 5.0
OF_A_QUOTA, OF_A_MACHINE = 0.75, 0.5  # a container holds one worker, a machine may hold several


def memory_limit(settings: Settings) -> int:
    """Bytes above which a pool child is replaced."""
    share = OF_A_MACHINE if memory_quota() is None else OF_A_QUOTA
    return settings.memory_limit_bytes or round(memory_total() * share)


def resident_bytes() -> int:
    """Memory that this process holds now."""
    return int(psutil.Process().memory_info().rss)


class MemoryWatch:
    """Looks at the memory of this process, a pool child."""

    def __init__(
        self,
        limit: int,
        leave: Callable[[str], None],
        end_idle: Callable[[], None],
        used_bytes: Callable[[], int] = resident_bytes,
    ) -> None:
        """limit: in bytes. leave: called with the reason of a replacement. end_idle: ends this process, idle."""
        self._limit = limit
        self._leave = leave
        self._end_idle = end_idle
        self._used_bytes = used_bytes
        self._leaving = False
        self._num_at_work = 0  # tasks
        self._beginning = threading.Lock()  # held while this process ends: no task begins then
        self._thread = PeriodicCall(self.look, LOOK_S, "memory")

    def start(self) -> None:
        """Begin to look, also after each task."""
        setattr(pool, "mem_rss", self.used_kb)  # noqa: B010 a plain assignment offends the type checker
        self._thread.start()

    def used_kb(self) -> int:
        """Called by billiard after a task: what this process uses; above the limit billiard ends it."""
        return self._used(say=True) // 1024

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """A task is at work until the block ends."""
        with self._beginning:
            self._num_at_work += 1
        try:
            yield
        finally:
            self._num_at_work -= 1

    def look(self) -> None:
        """End this process if it is idle, and above the limit."""
        with self._beginning:
            if not self._num_at_work and self._used(say=False) > self._limit:
                self._used(say=True)
                self._end_idle()

    def _used(self, *, say: bool) -> int:
        used = self._used_bytes()
        if say and used > self._limit and not self._leaving:
            self._leaving = True
            why = f"it uses {used / 1e9:.2f} GB, more than the limit of {self._limit / 1e9:.2f} GB"
            logger.warning("this process is replaced: %s", why)
            self._leave(why)
        return used


def end_as_replaced() -> None:
    """End this process as one that billiard replaces without a word of its own."""
    os._exit(pool.EX_RECYCLE)
