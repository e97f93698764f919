"""The folders that programs on the network may name paths in: sources, labelled data, weights and outputs.

Paths are compared after their links are resolved, before a job is submitted. Who can write into a root can change it
later: this keeps a client of the gateway inside, not a user of the file system.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from modeling.names import path_to_text
from orchestrator.contract.errors import OutsideRootsError

if TYPE_CHECKING:
    from modeling.data.dataset import Dataset

_WILDCARD = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Roots:
    """Absolute folders, links resolved; none: no path may be named."""

    folders: tuple[str, ...]

    @classmethod
    def of(cls, *folders: Path) -> "Roots":
        return cls(tuple(os.path.realpath(folder) for folder in folders))

    def check(self, what: str, path: str | Path) -> None:
        """Raises OutsideRootsError where `path`, which is `what`, is not an absolute path below a root."""
        text = os.fspath(path)
        if not text.startswith("/") or ".." in Path(text).parts or "\0" in text:
            raise OutsideRootsError(f"{what} {path_to_text(text)!r} is not an absolute path without '..'")
        if not self._hold(os.path.realpath(text)):
            allowed = ", ".join(map(repr, self.folders)) or "none; start the gateway with --root DIR"
            raise OutsideRootsError(f"{what} {path_to_text(text)!r} is below none of the allowed roots: {allowed}")

    def check_source(self, text: str) -> None:
        """Raises OutsideRootsError where a source, which may be a glob, leads out of the roots."""
        parts = Path(text).parts
        fixed = next((place for place, part in enumerate(parts) if _WILDCARD.search(part)), len(parts))
        if fixed < len(parts) and ".." not in parts and not os.path.lexists(text):
            self.check("source", Path(*parts[:fixed]))  # a glob follows no links
        else:
            self.check("source", text)

    def check_weights(self, wanted: str) -> None:
        """Raises OutsideRootsError where weights are a file outside of the roots; names of weights and models pass."""
        if "/" in wanted:
            self.check("weights", wanted)

    def check_dataset(self, dataset: "Dataset") -> None:
        """Raises OutsideRootsError where a list of labelled images names a file outside of the roots.

        Folders are not left through links, so only lists are looked at; the names in them are not resolved.
        """
        if dataset.kind not in ("list", "manifest", "joined"):
            return
        base = os.path.normpath(dataset.root or dataset.path)
        inside = base.rstrip("/") + "/" if self._hold(os.path.realpath(base)) else None
        for file in dataset.files:
            if inside is None or not os.path.normpath(file).startswith(inside):
                self.check("image", os.path.normpath(file))

    def _hold(self, path: str) -> bool:
        return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in self.folders)
