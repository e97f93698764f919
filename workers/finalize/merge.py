"""Merges the rows of a job's base with those of its own parts, as the plan of the job says."""

import hashlib
import mmap
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from orchestrator.contract.errors import IntegrityError
from orchestrator.contract.jobs.base import BaseFiles
from orchestrator.contract.jobs.formats import Format
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.merge_plan import PlanFacts, Step, read_plan
from orchestrator.contract.jobs.requests import ClassifyRequest, MergeBase
from orchestrator.contract.jobs.row_bytes import parse_rows, row_offsets, split_rows
from orchestrator.contract.jobs.rows import FORMATS
from orchestrator.contract.jobs.sidecar import parse_line
from workers.finalize.attempts import Attempts
from workers.finalize.join import (
    BadPartError,
    HashedFile,
    Joined,
    Totals,
    Written,
    add_trailers,
    close_both,
    manifest_facts,
    open_whole_part,
)
from workers.finalize.lease import FinalizeLease

_ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class MergeJob:
    """A job that merges, as its folder has it."""

    folder: JobFolder
    request: ClassifyRequest
    base: MergeBase
    facts: PlanFacts
    shards: Sequence[int]

    def steps(self) -> Iterator[Step]:
        """The plan. Raises IntegrityError where it is damaged."""
        return read_plan(self.folder.work, self.facts)


def merge_rows(job: MergeJob, paths: tuple[Path, Path], lease: FinalizeLease) -> Joined:
    """Write the merged manifest and its sidecar to `paths`, durable.

    Raises BadPartError where a part is missing or damaged, IntegrityError where the base or the plan is not what the
    job began with.
    """
    files = BaseFiles.in_folder(job.folder.path)
    files.check(job.base)
    summary = files.read_summary()
    totals = add_trailers(job.folder, job.shards, lease)
    num_classified = totals.num_rows
    with ExitStack() as stack:
        base = stack.enter_context(_open_base(files, job.request.output_format))
        totals.add_all(_count_kept(base, job.steps(), summary))
        attempts = Attempts(summary, base.num_rows, job.request.job)
        new_rows = _new_rows(job)
        target = _Target(job.request, totals, [stack.enter_context(path.open("wb")) for path in paths])
        for step in job.steps():
            target.add_all(base.rows(step) if step.row is not None else _take(new_rows, step.num_rows, job.request))
            attempts.add(step)
            lease.check()
        if next(new_rows, None) is not None:  # also proves the last part
            raise IntegrityError(f"the parts of job {job.request.job} have more rows than its plan")
        manifest, sidecar = target.close()
    return Joined(totals, manifest, sidecar, num_classified=num_classified, attempts=attempts.to_json())


# Rows of the base


@dataclass(frozen=True)
class _Base:
    """The base's manifest and sidecar, mapped, and where each row and each line begins."""

    manifest: mmap.mmap
    sidecar: mmap.mmap
    row_offsets: "array[int]"
    line_offsets: "array[int]"
    row_format: Format

    @property
    def num_rows(self) -> int:
        return len(self.row_offsets) - 1

    def rows(self, step: Step) -> Iterator[tuple[bytes, bytes]]:
        """Rows and their lines of the sidecar, many at once."""
        assert step.row is not None
        end = step.row + step.num_rows
        if not 0 <= step.row < end <= self.num_rows:
            raise IntegrityError(f"the plan names rows {step.row} to {end - 1} of a base of {self.num_rows}")
        for first in range(step.row, end, _ROWS_AT_ONCE):
            last = min(first + _ROWS_AT_ONCE, end)
            lines = self.sidecar[self.line_offsets[first] : self.line_offsets[last]]
            rows = self.manifest[self.row_offsets[first] : self.row_offsets[last]]
            yield _bare(rows, self.row_format), lines if step.line is None else step.line

    def row_and_line(self, index: int) -> tuple[bytes, bytes]:
        """One row, and its line of the sidecar."""
        [found] = self.rows(Step(index, 1))
        return found


@contextmanager
def _open_base(files: BaseFiles, row_format: Format) -> Iterator[_Base]:
    rows, lines = row_offsets(files.manifest, row_format), row_offsets(files.sidecar, "jsonl")
    if len(rows) != len(lines):
        raise IntegrityError(f"the base has {len(rows) - 1} rows, and its sidecar {len(lines) - 1} lines")
    with _mapped(files.manifest) as manifest, _mapped(files.sidecar) as sidecar:
        yield _Base(manifest, sidecar, rows, lines, row_format)


def _mapped(path: Path) -> mmap.mmap:
    """A file in memory, of which only what is used is read; an empty one, which nobody can map, as one other byte."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else mmap.mmap(-1, 1)


def _count_kept(base: _Base, steps: Iterable[Step], summary: dict[str, Any]) -> Totals:
    """The counts of the base's rows that stay, as often as they do.

    Either those of its summary, less the rows that do not stay, or those of the rows that stay: only the fewer rows are
    parsed.
    """
    used = array("q", bytes(8 * base.num_rows))
    for step in steps:
        if step.row is not None:
            for row in range(step.row, min(step.row + step.num_rows, base.num_rows)):
                used[row] += 1
    totals = Totals.of_summary(summary)
    counted = 1 if used.count(1) > used.count(0) else 0  # times that each row is in the totals
    if not counted:
        totals = totals.without_rows()
    others = (row for row, times in enumerate(used) if times != counted)
    while some := list(islice(others, _ROWS_AT_ONCE)):
        found = [base.row_and_line(row) for row in some]
        parsed = parse_rows([data for data, _ in found], base.row_format)
        for index, (_, line), other in zip(some, found, parsed, strict=True):
            totals.add_row(other, used[index] - counted, parse_line(line, "the base").remarks)
    totals.num_stopped = min(totals.num_stopped, totals.errors["too_slow"])
    return totals


# Rows of the parts


def _new_rows(job: MergeJob) -> Iterator[tuple[bytes, bytes]]:
    """Every row of the parts in order, and its line of the sidecar."""
    for shard in job.shards:
        yield from _rows_of_part(job, shard)


def _rows_of_part(job: MergeJob, shard: int) -> Iterator[tuple[bytes, bytes]]:
    """Raises BadPartError, at the latest at the end of a part, where it is not what its trailer says."""
    file, trailer = open_whole_part(job.folder, shard)
    rows_sha256, lines_sha256 = hashlib.sha256(), hashlib.sha256()
    with file, open(file.name, "rb") as lines:
        lines.seek(trailer.rows_bytes + 1)
        for row in split_rows(_limited(file, trailer.rows_bytes), job.request.output_format):
            line = lines.readline()
            rows_sha256.update(row)
            lines_sha256.update(line)
            yield _bare(row, job.request.output_format), line
    if (rows_sha256.hexdigest(), lines_sha256.hexdigest()) != (trailer.rows_sha256, trailer.sidecar_sha256):
        raise BadPartError(shard, f"what {file.name} holds does not match the checksums in its trailer")


def _limited(file: IO[bytes], size: int) -> Iterator[bytes]:
    """The lines within the next `size` bytes."""
    while size > 0 and (line := file.readline(size)):
        size -= len(line)
        yield line


def _take(rows: Iterator[tuple[bytes, bytes]], count: int, request: ClassifyRequest) -> Iterator[tuple[bytes, bytes]]:
    """The next rows, many at once. Raises IntegrityError where the parts have fewer."""
    separator = FORMATS[request.output_format].separator
    while count:
        some = list(islice(rows, min(count, _ROWS_AT_ONCE)))
        if not some:
            raise IntegrityError(f"the plan of job {request.job} has {count} rows more than its parts")
        count -= len(some)
        yield separator.join([row for row, _ in some]), b"".join([line for _, line in some])


def _bare(rows: bytes, row_format: Format) -> bytes:
    """Rows without what separates them from the next."""
    return rows.rstrip(b",\r\n") if row_format == "json" else rows


class _Target:
    """The merged manifest and sidecar, while they are written."""

    def __init__(self, request: ClassifyRequest, totals: Totals, files: Sequence[IO[bytes]]) -> None:
        self._format = FORMATS[request.output_format]
        self._manifest, self._sidecar = (HashedFile(file) for file in files)
        self._manifest.write(self._format.header(manifest_facts(request, totals)))
        self._separator = b""

    def add_all(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        for data, lines in rows:
            self._manifest.write(self._separator)
            self._manifest.write(data)
            self._sidecar.write(lines)
            self._separator = self._format.separator

    def close(self) -> tuple[Written, Written]:
        self._manifest.write(self._format.footer())
        return close_both(self._manifest, self._sidecar)
