"""Says what a command does once it has printed nothing for seconds: nobody should have to guess whether it hangs.

A thread says it, whatever the command waits for: a slow folder, an import, a server. On a terminal it redraws one
line; elsewhere it prints a line, each after twice the time. Own code: rich's status is drawn from the start, and its
import takes longer than most commands.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import TextIO

SILENT_S = 2.0  # on a terminal
REDRAW_S = 1.0
FIRST_LINE_S = 2.5  # elsewhere; within three seconds with the tick
LONGEST_S = 60.0  # between two lines
_TICK_S = 0.25
_CLEAR_LINE = "\r\x1b[K"


class Speaker:
    """What a command does now, and when it last printed something."""

    def __init__(self, stream: TextIO, *, is_terminal: bool, now: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._is_terminal = is_terminal
        self._now = now
        self._lock = threading.RLock()  # held while the command writes or asks: nothing is said in between
        self._activities: list[str] = []
        self._printed_s = now()
        self._first_s = SILENT_S if is_terminal else FIRST_LINE_S
        self._next_s = self._first_s  # of silence, after which something is said
        self._log_after_s = 0.0  # but not before, where lines are said
        self._drawn = False

    @contextlib.contextmanager
    def doing(self, activity: str, log_after_s: float = 0.0) -> Iterator[Callable[[str], None]]:
        """In this block the command does that; the function that is yielded replaces it by other words.

        log_after_s: of silence, for a block that prints lines of its own where there is no terminal.
        """
        place, before_s = len(self._activities), self._log_after_s
        self._activities.append(activity)
        self._log_after_s = log_after_s or before_s

        def replace(words: str) -> None:
            self._activities[place] = words

        try:
            yield replace
        finally:
            del self._activities[place:]
            self._log_after_s = before_s

    @contextlib.contextmanager
    def output(self) -> Iterator[None]:
        """In this block the command prints, asks, or has a display of its own."""
        with self._lock:
            self._clear()
            try:
                yield
            finally:
                self._printed_s, self._next_s = self._now(), self._first_s

    def look(self) -> None:
        """Say what the command does, if it is time."""
        with self._lock:
            silent_s = self._now() - self._printed_s
            if silent_s < (self._next_s if self._is_terminal else max(self._next_s, self._log_after_s)):
                return
            self._next_s = silent_s + (REDRAW_S if self._is_terminal else min(silent_s, LONGEST_S))
            from orchestrator.contract.shown import printable  # slow to import, and most commands never need it

            words = (self._activities[-1:] or ["still at work"])[0]  # the command may end an activity meanwhile
            self._say(f"{printable(words)}, {silent_s:.0f} s")

    def clear(self) -> None:
        """Remove the line that was drawn."""
        with self._lock:
            self._clear()

    def _say(self, line: str) -> None:
        width = os.get_terminal_size(self._stream.fileno()).columns if self._is_terminal else 0
        self._stream.write(_CLEAR_LINE + line[: width - 1 if width else None] if self._is_terminal else line + "\n")
        self._stream.flush()
        self._drawn = self._is_terminal

    def _clear(self) -> None:
        if self._drawn:
            self._drawn = False
            self._stream.write(_CLEAR_LINE)
            self._stream.flush()


_speakers: list[Speaker] = []  # the process's, while it speaks


@contextlib.contextmanager
def speaking() -> Iterator[None]:
    """In this block the process says what it does; one block a process."""
    with _own_stderr() as stream:
        speaker = Speaker(stream, is_terminal=stream.isatty())
        stopped = threading.Event()
        thread = threading.Thread(target=_look_until, args=(speaker, stopped), name="speaker", daemon=True)
        _speakers.append(speaker)
        thread.start()
        try:
            yield
        finally:
            stopped.set()
            thread.join()
            _speakers.remove(speaker)
            with contextlib.suppress(OSError):  # a terminal that has gone
                speaker.clear()


@contextlib.contextmanager
def _own_stderr() -> Iterator[TextIO]:
    """A descriptor of its own: commands send the process's standard error elsewhere while libraries write to it."""
    stream = open(os.dup(2), "w", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115  # closing it may fail
    try:
        yield stream
    finally:
        with contextlib.suppress(OSError):  # what a full log did not take is tried once more
            stream.close()


def _look_until(speaker: Speaker, stopped: threading.Event) -> None:
    while not stopped.wait(_TICK_S):
        try:
            speaker.look()
        except OSError:
            return  # nobody reads it; what the command itself prints will tell


@contextlib.contextmanager
def doing(activity: str, log_after_s: float = 0.0) -> Iterator[Callable[[str], None]]:
    """In this block the command does that; the function that is yielded replaces it by other words.

    log_after_s: of silence, for a block that prints lines of its own where there is no terminal.
    """
    if not _speakers:
        yield lambda words: None
        return
    with _speakers[-1].doing(activity, log_after_s) as replace:
        yield replace


@contextlib.contextmanager
def output() -> Iterator[None]:
    """In this block the command prints, asks, has a display of its own, or is to be silent."""
    if not _speakers:
        yield
        return
    with _speakers[-1].output():
        yield
