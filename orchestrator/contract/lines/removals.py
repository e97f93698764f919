"""Folders of lines that are being removed: set aside in one step, so that neither a worker nor a new line has them.

`lines/.removing/NAME~TOKEN/` is the folder until everything of the line is gone. Its `line.json` goes last: by that a
removal that was interrupted is found, and finished.
"""

import secrets
import shutil
from pathlib import Path

from modeling.durable import rename_answered

LINE_FILE = "line.json"
_FOLDER = ".removing"  # no line has such a name


class Removals:
    """The removals of one home. The caller holds the lines' lock, but for `begun`."""

    def __init__(self, lines: Path) -> None:
        """lines: the folder of all lines."""
        self._folder = lines / _FOLDER

    def begun(self, name: str) -> Path | None:
        """The settings of a line whose removal was not finished; None: there is no such removal."""
        return min(self._folder.glob(f"{name}~*/{LINE_FILE}"), default=None)

    def begin(self, folder: Path) -> None:
        """Set a line's folder aside."""
        self._folder.mkdir(exist_ok=True)
        rename_answered(folder, self._folder / f"{folder.name}~{secrets.token_hex(4)}")

    def delete_files(self, name: str) -> None:
        """Delete all but the settings; what cannot be deleted stays, and is in nobody's way."""
        for aside in self._all(name):
            for path in aside.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                elif path.name != LINE_FILE:
                    path.unlink(missing_ok=True)

    def end(self, name: str) -> None:
        """Everything else of the line is gone."""
        for aside in self._all(name):
            (aside / LINE_FILE).unlink(missing_ok=True)
            shutil.rmtree(aside, ignore_errors=True)

    def _all(self, name: str) -> list[Path]:
        return sorted(self._folder.glob(f"{name}~*"))


def how_to_finish(name: str) -> str:
    """For messages about a removal that was not finished."""
    return f"finish it: `pigeonhole lines remove {name}`"
