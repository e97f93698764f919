"""A call that a thread repeats: the renewal of a lease, a heartbeat, a sweep."""

import logging
import threading
from collections.abc import Callable
from typing import Self

from orchestrator.contract.server import SERVER_ERRORS

logger = logging.getLogger(__name__)


class PeriodicCall:
    """Calls `call` every `every_s` seconds in a thread of its own, from start to stop, or while a block runs.

    An error of a call is logged, and the next call is made: if the thread ended, a lease would run out although its
    holder is alive.
    """

    def __init__(self, call: Callable[[], None], every_s: float, name: str, *, immediately: bool = False) -> None:
        """name: of the thread, and in the log. immediately: make the first call without a pause before it."""
        self._call = call
        self._every_s = every_s
        self._name = name
        self._immediately = immediately
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self._thread.start()

    def stop(self, *, wait_s: float | None = None) -> None:
        """Make no further call, and wait up to `wait_s` for the present one; does nothing if it was never started."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(wait_s)

    def _run(self) -> None:
        if self._immediately:
            self._call_once()
        while not self._stop.wait(self._every_s):
            self._call_once()

    def _call_once(self) -> None:
        try:
            self._call()
        except SERVER_ERRORS as err:
            logger.warning("%s: the server is away, trying again: %s", self._name, err)
        except Exception:
            logger.exception("%s failed, trying again", self._name)
