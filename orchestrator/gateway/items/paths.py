"""Images by their path: only what lies below a root of the line, whatever links and dots say."""

import os
from collections.abc import Sequence
from pathlib import Path

from modeling.names import text_to_path
from orchestrator.gateway.problems import ProblemError, invalid


def checked_path(text: str, roots: Sequence[str]) -> Path:
    """The path of an image as workers get it.

    Raises ProblemError where it is not absolute, or leads out of the roots; that says nothing of what is there.
    """
    if "\0" in text or not text.startswith("/"):
        raise invalid(f"the path of an image is absolute, not {text[:80]!r}")
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        raise invalid(f"the path of an image is text, without surrogates: {text[:80]!r}")
    path = Path(os.path.normpath(os.fsdecode(text_to_path(text))))
    real = Path(os.path.realpath(path))
    for root in map(text_to_path, roots):
        if path != Path(root) and path.is_relative_to(root) and real.is_relative_to(os.path.realpath(root)):
            return path
    text = "the path lies under no root of this line (`pigeonhole lines set --root`)"
    raise ProblemError(403, "outside_roots", text)
