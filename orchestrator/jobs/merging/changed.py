"""Whether images are still as they were read: compared by size and time, without opening them."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from modeling.names import text_to_path
from orchestrator.contract.errors import IntegrityError
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.listing import count_shards
from orchestrator.contract.jobs.parts import open_part
from orchestrator.contract.jobs.requests import ClassifyRequest
from orchestrator.contract.jobs.sidecar import is_unchanged, line_start, parse_line
from orchestrator.jobs.below_root import file_below

_REPORT_EVERY = 2048  # images
_NO_LINE = b"\0"

OnCompared = Callable[[int], None]
"""Receives the number of images compared so far, at intervals."""


@dataclass(frozen=True)
class Changes:
    """How many images were compared, how many of them have changed or are gone, and one of these."""

    num_compared: int = 0
    num_changed: int = 0
    example: str | None = None


def start_now(prefix: str, path: str) -> bytes:
    """How the sidecar's line of an image begins if it is unchanged; what no line begins with if it cannot be seen.

    prefix: the root, with a slash behind it.
    """
    try:
        facts = os.stat(file_below(prefix, path))  # noqa: PTH116 for every image, and names may not be UTF-8
    except (OSError, ValueError):
        return _NO_LINE
    return line_start(path, facts.st_size, facts.st_mtime_ns)


def prefix_of(root: str) -> str:
    """The root of a request, as `start_now` takes it."""
    return text_to_path(root).rstrip("/") + "/"


def changed_since_parts(folder: JobFolder, on_compared: OnCompared = lambda num: None) -> Changes:
    """Compare the images of a job's finished parts, which a resume keeps, with the files as they are now.

    That takes some microseconds for each. Images that could not be read are not compared, nor those of damaged parts,
    which are done again.
    """
    request = folder.request()
    assert isinstance(request, ClassifyRequest), request.kind
    return compare_lines(_lines_of_parts(folder), request.root, on_compared)


def compare_lines(lines: Iterable[bytes], root: str, on_compared: OnCompared = lambda num: None) -> Changes:
    """Compare the images of some lines of a sidecar with the files below `root` as they are now."""
    prefix, num_compared, num_changed, example = prefix_of(root), 0, 0, None
    for line in lines:
        path, as_read, _ = parse_line(line, "the sidecar")
        if as_read is None:
            continue
        num_compared += 1
        if not is_unchanged(line, start_now(prefix, path)):
            num_changed += 1
            example = example or path
        if num_compared % _REPORT_EVERY == 0:
            on_compared(num_compared)
    return Changes(num_compared, num_changed, example)


def _lines_of_parts(folder: JobFolder) -> Iterator[bytes]:
    for shard in range(count_shards(folder.work)[0]):
        try:
            file, trailer = open_part(folder.parts, shard)
        except IntegrityError:
            continue  # missing, or damaged: its shard is done again
        with file:
            file.seek(trailer.rows_bytes + 1)
            data = file.read(trailer.sidecar_bytes)
        if hashlib.sha256(data).hexdigest() == trailer.sidecar_sha256:
            yield from data.splitlines(keepends=True)
