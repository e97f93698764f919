"""The files of lines as a pool child needs them: older answers, and the images that it keeps."""

import logging
from collections.abc import Sequence
from pathlib import Path

from orchestrator.contract.ledger.periodic_call import PeriodicCall
from orchestrator.contract.lines.archive import AnswerArchive
from orchestrator.contract.lines.registry import answers_folder
from workers.lines.kept_images import ImageKeeper
from workers.lines.requests import Done

logger = logging.getLogger(__name__)

REFRESH_S = 0.25  # well below the time for which the server keeps what is in a new file (mover.MoveBounds.grace_s)


class LineFiles:
    """The older answers and the kept images of all lines of a home; safe to share between threads.

    A thread of its own looks for new files: where the home does not answer, pushes go on.
    """

    def __init__(self, lines: Path) -> None:
        """lines: the folder of all lines."""
        self._lines = lines
        self._archives: dict[str, AnswerArchive] = {}
        self._keeper = ImageKeeper(lines)
        self._failing: set[str] = set()
        self._look = PeriodicCall(self._refresh, REFRESH_S, "lines-files")
        self._look.start()

    def open(self, line: str) -> None:
        """Read which files of older answers a line has; call it before the line is served."""
        self._archives[line] = AnswerArchive(answers_folder(self._lines / line))
        self._read(line)

    def forget(self, line: str) -> None:
        """A line is served no longer."""
        self._archives.pop(line, None)
        self._failing.discard(line)
        self._keeper.forget(line)

    def answered(self, line: str, keys: Sequence[str]) -> dict[str, bytes]:
        """The records of those keys of an open line that were answered before."""
        archive = self._archives.get(line)
        try:
            return archive.find_seen(keys) if archive else {}
        except ValueError as err:
            logger.warning("line %s: an older answer cannot be read: %s", line, err)
            return {}

    def _refresh(self) -> None:
        for line in list(self._archives):
            self._read(line)

    def _read(self, line: str) -> None:
        archive = self._archives.get(line)
        try:
            if archive is not None:  # the line was not removed meanwhile
                archive.segments()
            self._failing.discard(line)
        except OSError as err:
            if line not in self._failing:
                logger.warning("line %s: older answers cannot be read, trying again: %s", line, err)
            self._failing.add(line)

    def keep(self, done: Done) -> None:
        """Keep the image of an answer that stands, if it was read and the line's settings say so."""
        settings = done.request.line.line.settings
        if done.request.image and settings.keeps_images:
            self._keeper.keep(settings, done.request.image, done.request.key, done.verdict, done.rest)

    def take_not_kept(self, line: str) -> int:
        """How many images of a line were lost since the last call."""
        return self._keeper.take_not_kept(line)

    def close(self, *, wait_s: float) -> None:
        """Write what waits, for so long."""
        self._look.stop(wait_s=0)
        self._keeper.close(wait_s)
