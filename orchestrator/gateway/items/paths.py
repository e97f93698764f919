"""Images by their path: only what lies below a root of the line, whatever links and dots say."""

import os
from collections.abc import Sequence
from pathlib import Path

from modeling.names import text_to_path
from orchestrator.gateway.problems import ProblemError, invalid


def path_of(text: str) -> Path:
    """The path of an image as workers get it. Asks no disk. Raises ProblemError where it is not absolute."""
    if "\0" in text or not text.startswith("/"):
        raise invalid(f"the path of an image is absolute, not {text[:80]!r}")
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        raise invalid(f"the path of an image is text, without surrogates: {text[:80]!r}")
    return Path(os.path.normpath(os.fsdecode(text_to_path(text))))


def roots_of(path: Path, roots: Sequence[str]) -> tuple[Path, ...]:
    """The roots that a path is written below. Asks no disk. Raises ProblemError where there is none."""
    named = [Path(root) for root in map(text_to_path, roots)]
    if not (found := tuple(root for root in named if path != root and path.is_relative_to(root))):
        raise _outside()
    return found


def checked_path(text: str, roots: Sequence[str]) -> Path:
    """The path of an image as workers get it; the disk is asked where links lead.

    Raises ProblemError where it is not absolute, or leads out of the roots; that says nothing of what is there.
    """
    path = path_of(text)
    named = roots_of(path, roots)
    real = Path(os.path.realpath(path))
    if not any(real.is_relative_to(os.path.realpath(root)) for root in named):
        raise _outside()
    return path


def _outside() -> ProblemError:
    text = "the path lies under no root of this line (`pigeonhole lines set --root`)"
    return ProblemError(403, "outside_roots", text)
