"""Signs of life of a worker's two processes, for `workers healthcheck`; a pool child that died soon is replaced slowly.

A pool child is started by Celery as soon as the one before it has died. One that finds that several before it died
soon after their start waits before it imports torch: otherwise the worker would do nothing but import.
"""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator.contract.health import (
    CHILD_STALE_S,
    HEARTBEAT_S,
    ChildState,
    ParentState,
    own_processes,
    read_child,
    write_state,
)
from orchestrator.contract.ledger.periodic_call import PeriodicCall

logger = logging.getLogger(__name__)

QUICK_S = 10.0  # a child that died so soon after it was ready died at once
FREE_DEATHS = 5  # in a row: a shard that kills is found out by as many
SHOWN_S = 60.0  # how long the list of workers says why a child was replaced
PAUSES_S = (1.0, 2.0, 4.0, 8.0, 15.0)  # before each further start; the last one is repeated


class ParentSigns:
    """The state of a worker's parent, written every `HEARTBEAT_S` by a thread of its own."""

    def __init__(self, run_folder: Path, worker: str, draining: Callable[[], bool]) -> None:
        self._run_folder = run_folder
        self._draining = draining
        self._lock = threading.Lock()
        now = time.monotonic()
        self._state = ParentState(worker, os.getpid(), own_processes(), now, now)
        self._consumer: Any = None
        self._is_busy: Callable[[], bool] = lambda: False
        self._thread = PeriodicCall(self.heartbeat, HEARTBEAT_S, "signs of life", immediately=True)

    def start(self) -> None:
        self._thread.start()

    def listen_to(self, consumer: Any, is_busy: Callable[[], bool]) -> None:
        """The worker has begun to take doorbells. consumer: Celery's. is_busy: whether it holds a doorbell."""
        self._consumer, self._is_busy = consumer, is_busy

    def server_answered(self) -> None:
        """Note that the server has answered just now."""
        with self._lock:
            self._state = replace(self._state, server_s=time.monotonic())

    def stop(self) -> None:
        self._thread.stop(wait_s=HEARTBEAT_S)

    def heartbeat(self) -> None:
        """Write that this process lives, and whether it takes doorbells."""
        now = time.monotonic()
        with self._lock:
            listening_s = self._state.listening_s
            if self._consumer is not None:
                listening_s = now if self._is_busy() else max(_asked_s(self._consumer), listening_s or 0.0)
            self._state = replace(self._state, at_s=now, listening_s=listening_s, draining=self._draining())
            write_state(self._run_folder, self._state)


def _asked_s(consumer: Any) -> float:
    """When the consumer last asked the server for doorbells: a connection that is deaf asks no more.

    kombu keeps it for a check of its own; it asks every second while the worker has room for a doorbell.
    """
    with contextlib.suppress(AttributeError):  # it reconnects
        return float(consumer.task_consumer.channel._brpop_sent_at or 0.0)
    return 0.0


class ChildSigns:
    """The state of a worker's pool child, written every `HEARTBEAT_S` by a thread of its own."""

    def __init__(self, run_folder: Path) -> None:
        self._run_folder = run_folder
        self._lock = threading.Lock()
        now = time.monotonic()
        before = read_child(run_folder)
        left = before.leaving if before is not None else ""
        self._state = ChildState(os.getpid(), now, now, quick_deaths=count_quick_deaths(before), before=left)
        self._thread = PeriodicCall(self.heartbeat, HEARTBEAT_S, "signs of life", immediately=True)

    def start(self) -> None:
        """Begin to write, and wait for as long as the deaths before this process's start demand."""
        self.heartbeat()
        self._thread.start()
        pause_s = pause_after(self._state.quick_deaths)
        if pause_s:
            logger.error(
                "%d processes in a row died soon after their start; waiting %.0f s before the next does anything",
                self._state.quick_deaths,
                pause_s,
            )
            time.sleep(pause_s)

    def ready(self) -> None:
        """Note that this process takes work from now on."""
        self._change(ready_s=time.monotonic())

    def leave(self, why: str) -> None:
        """Note that this process ends by itself, and why."""
        self._change(leaving=why)

    def heartbeat(self) -> None:
        """Write that this process lives."""
        self._change()

    def _change(self, **fields: Any) -> None:
        with self._lock:
            self._state = replace(self._state, at_s=time.monotonic(), **fields)
            write_state(self._run_folder, self._state)


def count_quick_deaths(before: ChildState | None) -> int:
    """How many pool children in a row died soon, by what the last one has written.

    One that was replaced soon counts, too: a limit of memory below what libraries need would replace it for ever.
    """
    if before is None:
        return 0
    lived_s = 0.0 if before.ready_s is None else before.at_s - before.ready_s
    return 0 if lived_s > QUICK_S else before.quick_deaths + 1


def pause_after(quick_deaths: int) -> float:
    """Seconds that a pool child waits after so many quick deaths in a row."""
    return PAUSES_S[min(quick_deaths - FREE_DEATHS, len(PAUSES_S)) - 1] if quick_deaths > FREE_DEATHS else 0.0


def describe_child(child: ChildState | None, now: float) -> str:
    """What the list of workers says of a pool child and those before it; empty where there is nothing to say."""
    if child is None:
        return ""
    if child.leaving:
        return f"its pool child is replaced: {child.leaving}"
    if now - child.at_s > CHILD_STALE_S:
        return f"its pool child {child.pid} has shown no sign of life for {now - child.at_s:.0f} s"
    lived_s = 0.0 if child.ready_s is None else now - child.ready_s
    if child.before and lived_s < SHOWN_S:
        return f"its pool child was replaced: {child.before}"
    if child.quick_deaths > 1 and lived_s < SHOWN_S:
        return f"{child.quick_deaths} pool children in a row died soon after their start"
    return ""
