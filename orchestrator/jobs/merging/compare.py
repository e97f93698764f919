"""Which images of a source are new, or have changed since a manifest was made: the rest need not be classified.

Images are compared by size and time, as the manifest's sidecar has them; with digests by their content. A hundred
thousand images take some tenths of a second: all but new ones are compared as bytes.
"""

import hashlib
import json
import os
import stat
from collections.abc import Iterator

from orchestrator.contract.jobs.merge_plan import PlanFacts, PlanWriter
from orchestrator.contract.jobs.sidecar import AsRead, encode_line, parse_line
from orchestrator.jobs.below_root import file_below
from orchestrator.jobs.merging.base import Base
from orchestrator.jobs.merging.changed import OnCompared, start_now
from orchestrator.jobs.merging.known import Indexed, InOrder, Known

_AT_ONCE = 2048  # paths that are hashed together
_encode = json.encoder.encode_basestring_ascii  # as json.dumps does, which would look at its options for every path


class SourceComparison:
    """Writes the plan of an incremental run while its source is listed."""

    def __init__(self, base: Base, root: str, *, walked: bool, checksum: bool) -> None:
        """walked: whether the paths of the source come in the order of names. checksum: compare contents."""
        self._prefix = root.rstrip("/") + "/"
        self._checksum = checksum
        self._known = (InOrder if walked and base.was_walked else Indexed)(base.files.sidecar)
        self._sha256 = hashlib.sha256()
        self._num_rows = self._num_changed = 0

    def choose(self, paths: Iterator[str], plan: PlanWriter, on_compared: OnCompared) -> Iterator[str]:
        """The paths that are to be classified; the plan gets a step for every path."""
        listed: list[str] = []
        prefix, known, by_content = self._prefix, self._known, self._checksum
        for path in paths:
            listed.append(path)
            start = start_now(prefix, path)
            if not by_content and (row := known.take_next(start)) is not None:
                plan.keep(row)  # nearly every image
            else:
                found = known.find(path, start)
                if found is None or not self._keep(found, path, plan):
                    self._num_changed += found is not None
                    plan.add_new()
                    yield path
            if len(listed) == _AT_ONCE:
                self._note(listed)
                on_compared(self._num_rows)
        self._note(listed)

    def facts(self, plan: PlanWriter) -> PlanFacts:
        """What was found, once every path was compared; the plan is durable then."""
        return PlanFacts(
            plan_sha256=plan.close(),
            sha256=self._sha256.hexdigest(),
            num_rows=self._num_rows,
            num_kept=plan.num_kept,
            num_new=plan.num_new,
            num_changed=self._num_changed,
            num_gone=self._known.num_unused(),
        )

    def _keep(self, found: Known, path: str, plan: PlanWriter) -> bool:
        """Keep the base's row if size and time are the same, or the content, then with the file's present time."""
        row, line, has_same_state = found
        if not self._checksum:
            if has_same_state:
                plan.keep(row)
            return has_same_state
        _, as_read, remarks = parse_line(line, "the base's sidecar")
        mtime_ns = _time_of_same_content(file_below(self._prefix, path), as_read)
        if as_read is None or mtime_ns is None:
            return False
        if has_same_state:
            plan.keep(row)
        else:
            plan.touch(row, encode_line(path, (as_read[0], mtime_ns, as_read[2]), remarks))
        return True

    def _note(self, listed: list[str]) -> None:
        """Add paths to the listing of all rows."""
        self._num_rows += len(listed)
        self._sha256.update("".join([_encode(path) + "\n" for path in listed]).encode())
        listed.clear()


def _time_of_same_content(path: str, as_read: AsRead | None) -> int | None:
    """The time of a file that holds what was read then; None where it holds something else, or cannot be read."""
    if as_read is None:
        return None
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode) or facts.st_size != as_read[0]:
                return None
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return None
    return facts.st_mtime_ns if digest == as_read[2] else None
