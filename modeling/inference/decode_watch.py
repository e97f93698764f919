"""How much processor time each decode thread has spent on its image, as another thread sees it.

Processor time, because an image is not slow that waits for the storage, for other processes or while the machine is
suspended. A decoder in native code cannot be interrupted: who watches can only end the process.
"""

import threading
import time
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Running:
    """An image that is being decoded.

    source: where its bytes come from. processor_s: since the first look at it. advanced: since the last look.
    """

    source: Any
    processor_s: float
    advanced: bool


@dataclass(slots=True, eq=False)
class _Thread:
    """at: what the thread decodes, in a new tuple each time; None between images."""

    clock: int
    at: tuple[Any] | None = None
    seen: tuple[Any] | None = None
    seen_first_s: float = 0.0
    seen_last_s: float = 0.0


@dataclass(slots=True)
class DecodeWatch:
    """Decode threads call `begin` and `end`; one other thread looks."""

    _threads: list[_Thread] = field(default_factory=list)
    _own: threading.local = field(default_factory=threading.local)

    def begin(self, source: Any) -> None:
        """The calling thread begins to decode."""
        try:
            thread = self._own.thread
        except AttributeError:
            thread = self._own.thread = _Thread(time.pthread_getcpuclockid(threading.get_ident()))
            self._threads.append(thread)
        thread.at = (source,)

    def end(self) -> None:
        """The calling thread has decoded its image."""
        self._own.thread.at = None

    def look(self) -> list[Running]:
        """The images that are being decoded."""
        return [running for thread in list(self._threads) if (running := _look_at(thread)) is not None]


def _look_at(thread: _Thread) -> Running | None:
    at = thread.at
    if at is None:
        return None
    try:
        now_s = time.clock_gettime(thread.clock)
    except OSError:  # the thread has ended meanwhile
        return None
    if thread.seen is not at:
        thread.seen, thread.seen_first_s, thread.seen_last_s = at, now_s, now_s
        return Running(at[0], 0.0, advanced=True)
    advanced, thread.seen_last_s = now_s > thread.seen_last_s, now_s
    return Running(at[0], now_s - thread.seen_first_s, advanced)
