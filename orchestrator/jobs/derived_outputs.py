"""That what a command makes of a manifest can be written, and where: checked before the work, which may take hours."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modeling.images.formats import IMAGE_EXTENSIONS
from modeling.names import text_to_path
from orchestrator.contract.errors import UsageError
from orchestrator.contract.jobs.rows import summary_path
from orchestrator.contract.jobs.sidecar import sidecar_path
from orchestrator.jobs.outputs import check_folder, check_is_writable
from orchestrator.jobs.results import Published
from orchestrator.jobs.sources import finds


def check_derived_file(output: Path, published: Published, *, overwrite: bool) -> None:
    """Raises UsageError for a file that cannot be written, that exists, or that would change the source or the job's
    own files.
    """
    if output.is_dir():
        raise UsageError(f"output {str(output)!r} is a folder; name a file in it")
    _check_is_outside(output, published)
    check_is_writable(output)
    if os.path.lexists(output) and not output.is_file():
        raise UsageError(f"output {str(output)!r} is not a regular file; name another")
    if output.exists() and not overwrite:
        raise UsageError(f"output {str(output)!r} exists; name another, or replace it with --overwrite")
    if output.exists() and _is_image(output, published):
        raise UsageError(f"output {str(output)!r} would replace an image; name another")


def check_derived_folder(output: Path, published: Published) -> None:
    """Raises UsageError for a folder that exists, cannot be made, or is inside the source."""
    _check_is_outside(output, published)
    check_folder(output)


def _check_is_outside(output: Path, published: Published) -> None:
    target = os.path.realpath(output)
    own = (published.manifest, summary_path(published.manifest), sidecar_path(published.manifest))
    if any(target == os.path.realpath(path) for path in own):
        raise UsageError(f"output {str(output)!r} is the manifest itself, or a file beside it; name another")
    source = published.summary.get("source")  # a list of images, perhaps
    if isinstance(source, str) and "\0" not in source and target == os.path.realpath(text_to_path(source)):
        raise UsageError(f"output {str(output)!r} is the source itself; name another")
    if is_in_source(output, published.summary):
        raise UsageError(f"output {str(output)!r} is inside the source, which is never written to; name another")


def is_in_source(path: str | Path, summary: Mapping[str, Any]) -> bool:
    """Whether a path, which need not exist, lies where a manifest's source looks for images, or is its root.

    The root of a list is only what its paths are relative to, and a glob does not look into every folder below its own.
    """
    root, source = summary.get("root"), summary.get("source")
    if not isinstance(root, str) or "\0" in root:
        return False
    place = parts_below(path, text_to_path(root))
    if place is None or not isinstance(source, str):
        return place is not None
    walked = bool(summary["listing"].get("walked"))
    return finds(text_to_path(source), text_to_path(root), place, walked=walked)


def parts_below(path: str | Path, folder: str) -> tuple[str, ...] | None:
    """The parts of a path below a folder, also where that is mounted twice; None where it does not lie there.

    Links are resolved. Neither need exist.
    """
    place, wanted = os.path.realpath(path), os.path.realpath(folder)
    below: list[str] = []
    while not _is_same(place, wanted):
        place, name = os.path.split(place)
        if not name:
            return None
        below.append(name)
    return tuple(reversed(below))


def _is_same(path: str, other: str) -> bool:
    try:
        return path == other or Path(path).samefile(other)
    except (OSError, ValueError):
        return False  # one of them is not there, or no file can have its name


def _is_image(output: Path, published: Published) -> bool:
    """Whether a file is an image by its name, or one that a list has named."""
    target, root = os.path.realpath(output), published.summary.get("root")
    if Path(target).suffix.lower() in IMAGE_EXTENSIONS:
        return True
    if published.summary["listing"].get("walked") or not isinstance(root, str):
        return False
    name, folder = Path(target).name, text_to_path(root)
    return any(row.path.endswith(name) and _is_same(str(Path(folder, row.path)), target) for row in published.rows())
