"""The files of lines as a pool child needs them: older answers, and the images that it keeps."""

import logging
from collections.abc import Sequence
from pathlib import Path

from orchestrator.contract.lines.archive import AnswerArchive
from orchestrator.contract.lines.registry import answers_folder
from workers.lines.kept_images import ImageKeeper
from workers.lines.requests import Done

logger = logging.getLogger(__name__)


class LineFiles:
    """The older answers and the kept images of all lines of a home; safe to share between threads."""

    def __init__(self, lines: Path) -> None:
        """lines: the folder of all lines."""
        self._lines = lines
        self._archives: dict[str, AnswerArchive] = {}
        self._keeper = ImageKeeper(lines)
        self._failing = False

    def answered(self, line: str, keys: Sequence[str]) -> dict[str, bytes]:
        """The records of those keys that were answered before; of none where the disk does not answer: pushes go on."""
        if line not in self._archives:
            self._archives[line] = AnswerArchive(answers_folder(self._lines / line))
        try:
            records = self._archives[line].find_all(keys)
        except (OSError, ValueError) as err:
            if not self._failing:
                logger.warning("line %s: older answers cannot be read: %s", line, err)
            self._failing = True
            return {}
        self._failing = False
        return records

    def keep(self, done: Done) -> None:
        """Keep the image of an answer that stands, if it was read and the line's settings say so."""
        if done.request.image:
            settings = done.request.line.line.settings
            self._keeper.keep(settings, done.request.image, done.request.key, done.verdict, done.rest)

    def take_not_kept(self, line: str) -> int:
        """How many images of a line were lost since the last call."""
        return self._keeper.take_not_kept(line)

    def close(self, *, wait_s: float) -> None:
        """Write what waits, for so long."""
        self._keeper.close(wait_s)
