"""The rows of a manifest again, and the files of their images."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from modeling.errors import ImageError
from modeling.names import path_to_text, text_to_path
from orchestrator.contract.errors import IntegrityError, NotFoundError
from orchestrator.contract.jobs.rows import FORMATS, Row, RowFormat
from orchestrator.jobs.results import Published, check_sound


def placed_rows(published: Published, file: BinaryIO) -> Iterator[tuple[int, Row]]:
    """The rows of a manifest, each with its place: `row_at` reads it again. Raises IntegrityError.

    file: the manifest, open at its start: it stays the same where the manifest is replaced meanwhile.
    """
    place = 0  # the first row is read behind the head of the manifest
    try:
        for number, (end, row) in enumerate(_format(published).read_on(file, published.manifest), start=1):
            check_sound(row, published.manifest, number)
            yield place, row
            place = end
    except RecursionError as err:
        raise IntegrityError(f"{published.manifest} is damaged: a row holds too many levels of JSON") from err


def row_at(published: Published, file: BinaryIO, place: int) -> Row:
    """The row at a place of `placed_rows`."""
    file.seek(place)
    return next(_format(published).read_on(file, published.manifest))[1]


def _format(published: Published) -> RowFormat:
    return FORMATS[published.summary["manifest"]["format"]]


def named_root(published: Published) -> str:
    """The folder that the paths of a manifest are relative to, here or elsewhere.

    Raises IntegrityError if the summary names none.
    """
    root = published.summary.get("root")
    if not isinstance(root, str) or not root.startswith("/") or "\0" in root:
        raise IntegrityError(f"the summary of {published.manifest} names no folder as the root of its images: {root!r}")
    return text_to_path(root)


def image_root(published: Published) -> str:
    """The same folder, which is here.

    Raises IntegrityError if the summary names none, NotFoundError if it is not there.
    """
    root = named_root(published)
    if not os.path.isdir(root):  # noqa: PTH112 a str keeps the bytes of a name
        shown = path_to_text(root)
        raise NotFoundError(f"the source of {published.manifest}, {shown!r}, is not here; mount it, or undo its move")
    return root


def image_file(root: str, path: str) -> Path:
    """The file of an image below `root`; links are followed, as its job may have followed them.

    Raises ImageError where the path leads out of the root both as it is written and once its links are resolved: no
    worker has read it, and only a manifest changed by hand has it with an answer.
    """
    file = os.path.join(root, path)  # noqa: PTH118 an earlier release has absolute paths, which a worker joins so, too
    if "\0" in path or not (_is_below(root, os.path.normpath(file)) or _is_really_below(root, file)):
        raise ImageError("outside_root", f"{path_to_text(path)!r} leads out of the source")
    return Path(file)


def _is_really_below(root: str, file: str) -> bool:
    try:
        return _is_below(os.path.realpath(root), os.path.realpath(os.path.dirname(file)) + "/")  # noqa: PTH120
    except ValueError:  # no file can have this name
        return False


def _is_below(root: str, file: str) -> bool:
    return file.startswith(root.rstrip("/") + "/")
