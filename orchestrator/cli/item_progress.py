"""Shows how far a command is with many images: a bar on a terminal, words after some silence elsewhere."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import TextIO

from modeling.images.progress import OnProgress
from orchestrator.cli import speaking
from orchestrator.cli.output import duration
from orchestrator.cli.speaking import doing


@contextlib.contextmanager
def item_progress(words: str) -> Iterator[OnProgress]:
    """A function that shows how many images are done, of how many, until the block ends."""
    with _silence_libraries() as terminal:
        if not terminal.isatty():
            with doing(words) as replace_words:
                started_s = time.monotonic()
                yield lambda done, total: replace_words(_described(words, done, total, time.monotonic() - started_s))
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn(words), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with speaking.output(), Progress(*columns, console=Console(file=terminal), transient=True) as progress:
            task = progress.add_task(words, total=None)
            yield lambda done, total: progress.update(task, completed=done, total=total)


def _described(words: str, done: int, total: int | None, elapsed_s: float) -> str:
    """Such as `scanning, 1,200/4,800 images, 9.0 s left`."""
    if total is None:
        return f"{words}, {done:,} images"
    left = f", {duration(elapsed_s * (total - done) / done)} left" if 0 < done < total else ""
    return f"{words}, {done:,}/{total:,} images{left}"


@contextlib.contextmanager
def _silence_libraries() -> Iterator[TextIO]:
    """Hide what image libraries print about damaged files; yields the original standard error.

    libtiff writes to the file descriptor, several lines for each file; the report names the bad files.
    """
    sys.stderr.flush()
    with (
        open(os.dup(2), "w", encoding="utf-8", errors="backslashreplace") as terminal,
        open(os.devnull, "wb") as nowhere,
    ):
        os.dup2(nowhere.fileno(), 2)
        try:
            yield terminal
        finally:
            os.dup2(terminal.fileno(), 2)
