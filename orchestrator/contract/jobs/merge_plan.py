"""What a merge job publishes: rows of an earlier manifest, its base, and rows of its own.

The job's listing has only the images that are to be classified. The file `merge.plan` says for every row of the new
manifest, in order, where it comes from; `merge.json` appears when that is complete:

    k ROW COUNT     so many rows of the base, from that one on, with their lines of the sidecar
    t ROW LINE      a row of the base with this line of the sidecar: the file was touched, its content is the same
    n COUNT         so many rows of the job's own parts, in their order
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple, Self

from modeling.durable import replace_durably, sync_file
from orchestrator.contract.errors import IntegrityError
from orchestrator.contract.messages import Versioned

_PLAN, _FACTS = "merge.plan", "merge.json"


class PlanFacts(Versioned):
    """The facts of a complete plan.

    sha256: of the paths of all rows, as a listing has it. num_changed: of num_new, those that the base has a row of,
    too. num_gone: rows of the base that are left out. num_stale: rows that stay although their images have changed
    since, as a retry finds them.
    """

    plan_sha256: str
    sha256: str
    num_rows: int
    num_kept: int
    num_new: int
    num_changed: int
    num_gone: int
    num_stale: int = 0


class Step(NamedTuple):
    """A line of a plan. row: of the base; None where the rows are new. line: of the sidecar, where it differs."""

    row: int | None
    num_rows: int
    line: bytes | None = None


class PlanWriter:
    """Writes a plan, row by row; equal steps in a row become one line."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: IO[bytes] = (folder / _PLAN).open("wb")
        self._sha256 = hashlib.sha256()
        self._first = self._next = 0  # of the run of kept rows; equal if there is none
        self._new = 0  # new rows in a row
        self.num_kept = 0
        self.num_new = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def keep(self, row: int) -> None:
        """A row of the base as it is."""
        if row != self._next or self._new:
            self._end_run()
            self._first = row
        self._next = row + 1

    def touch(self, row: int, line: bytes) -> None:
        """A row of the base with another line of the sidecar."""
        self._end_run()
        self._write(b"t %d %s\n" % (row, line.rstrip(b"\n")))
        self.num_kept += 1

    def add_new(self) -> None:
        """The next row of the job's own parts."""
        if self._next > self._first:
            self._end_run()
        self._new += 1

    def close(self) -> str:
        """Make the plan durable; returns its sha256."""
        self._end_run()
        sync_file(self._file)
        return self._sha256.hexdigest()

    def _end_run(self) -> None:
        if self._next > self._first:
            self._write(b"k %d %d\n" % (self._first, self._next - self._first))
            self.num_kept += self._next - self._first
        if self._new:
            self._write(b"n %d\n" % self._new)
            self.num_new += self._new
        self._first = self._next = self._new = 0

    def _write(self, line: bytes) -> None:
        self._file.write(line)
        self._sha256.update(line)


def write_plan_facts(folder: Path, facts: PlanFacts) -> None:
    """Record that the plan is complete."""
    replace_durably(folder / _FACTS, facts.model_dump_json(indent=2).encode(), mode=None)


def read_plan_facts(folder: Path) -> PlanFacts | None:
    """The facts of a complete plan; None while it is being written, and for a job that merges nothing."""
    return PlanFacts.read(folder / _FACTS)


def read_plan(folder: Path, facts: PlanFacts) -> Iterator[Step]:
    """The steps of a plan. Raises IntegrityError, at the latest at its end, where it is damaged."""
    sha256, path = hashlib.sha256(), folder / _PLAN
    with path.open("rb") as file:
        for line in file:
            sha256.update(line)
            yield _parse(line, path)
    if sha256.hexdigest() != facts.plan_sha256:
        raise IntegrityError(f"{path} is damaged: its checksum is another than {_FACTS} says")


def _parse(line: bytes, path: Path) -> Step:
    kind, _, rest = line.partition(b" ")
    try:
        if kind == b"n":
            return Step(None, int(rest))
        first, _, value = rest.partition(b" ")
        if kind == b"t":
            return Step(int(first), 1, value)
        if kind == b"k":
            return Step(int(first), int(value))
    except ValueError as err:
        raise IntegrityError(f"{path} is damaged: {err}") from err
    raise IntegrityError(f"{path} is damaged: it has a step {kind!r}")
