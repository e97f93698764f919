"""Which version of Pigeonhole does a job: workers of another one leave it alone, since their rows may differ.

The ledger knows it from the first claim on. On the disk the parts of a classify job say it, of a training a file, and
of a job that an operator has let go on with another version that file.
"""

import contextlib
from datetime import UTC, datetime

from modeling.durable import link_once, replace_durably, temporary_beside, write_durable
from orchestrator.contract.errors import IntegrityError
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.parts import read_trailer
from orchestrator.contract.messages import Versioned


class JobVersion(Versioned):
    """The version of Pigeonhole whose workers do a job. by: who let it go on with another one than `before`."""

    release: str
    at: datetime
    by: str | None = None
    before: str | None = None


def written_version(folder: JobFolder) -> JobVersion | None:
    """What the file of a job says; None where there is none."""
    return JobVersion.read(folder.version_file)


def begin_with(folder: JobFolder, release: str) -> None:
    """Record which version begins a training; the first one stays."""
    if folder.version_file.exists():
        return
    begun = JobVersion(release=release, at=datetime.now(UTC))
    with temporary_beside(folder.version_file) as temporary:
        write_durable(temporary, begun.model_dump_json(indent=2).encode())
        link_once(temporary, folder.version_file)


def write_changed(folder: JobFolder, changed: JobVersion) -> None:
    """Record that a job goes on with another version."""
    replace_durably(folder.version_file, changed.model_dump_json(indent=2).encode(), mode=None)


def begun_with(folder: JobFolder) -> str:
    """The version whose workers do the job, as far as the disk says it; empty where it has not begun."""
    if (written := written_version(folder)) is not None:
        return written.release
    for path in folder.parts.glob("*.part"):
        with contextlib.suppress(IntegrityError):  # a damaged part says nothing
            trailer = read_trailer(folder.parts, int(path.stem))
            if trailer is not None:
                return trailer.release
    return ""
