"""Ends a worker whose pool child dies again and again before one was ever ready.

Celery starts a new child each time: without a limit the worker would look alive and never do anything. Once a child
was ready, each that dies is replaced, however often: then an image or a moment without memory killed it.
"""

import threading
from collections.abc import Callable
from pathlib import Path

import psutil

from orchestrator.contract.errors import UnavailableError

MAX_DEATHS = 3
CHECK_S = 0.5


class NoChildError(UnavailableError):
    """No pool child of the worker lived long enough to be ready."""

    def __init__(self) -> None:
        super().__init__(
            "the process that computes dies before it is ready; the lines above say how it exited. Signal 9 (SIGKILL) "
            "mostly means that the machine or container has too little memory; see also `pigeonhole doctor`"
        )


class ChildWatch:
    """A thread that looks at the children of this process until `ready_flag` exists."""

    def __init__(self, ready_flag: Path, give_up: Callable[[NoChildError], None]) -> None:
        """give_up: called once at least `MAX_DEATHS` children have died and `ready_flag` does not exist."""
        self._ready_flag = ready_flag
        self._give_up = give_up
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="child watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Look no further; does nothing if it was never started."""
        self._ended.set()

    def check_end(self) -> None:
        """Raises NoChildError if the worker ended by itself and no child was ready: Celery gives up on the first."""
        if self._thread.ident is not None and not self._ready_flag.exists():
            raise NoChildError

    def _run(self) -> None:
        num_deaths, alive = 0, _children()
        while not self._ended.wait(CHECK_S) and not self._ready_flag.exists():
            before, alive = alive, _children()
            num_deaths += len(before - alive)
            if num_deaths >= MAX_DEATHS:
                self._give_up(NoChildError())
                return


def _children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}
