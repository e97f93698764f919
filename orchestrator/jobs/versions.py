"""Jobs that workers of one version do: who says so while none of it is alive, and the operator's way out."""

from collections.abc import Sequence
from datetime import UTC, datetime

from orchestrator.contract.errors import PigeonholeError, UnavailableError
from orchestrator.contract.jobs.history import note, operator
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.job_version import JobVersion, write_changed
from orchestrator.contract.ledger.ledger import Ledger
from orchestrator.contract.ledger.live_workers import WorkerRecord
from orchestrator.contract.ledger.record import JobRecord
from orchestrator.contract.queues import QUEUE_OF_KIND

_HAVE_WORK = ("queued", "running", "paused")  # any version publishes a job whose work is done


def describe_missing_version(record: JobRecord, workers: Sequence[WorkerRecord]) -> str:
    """Why a job waits although workers are alive: none is of the version that it needs; empty where one is."""
    queue = QUEUE_OF_KIND.get(record.kind, "")
    able = [worker for worker in workers if worker.takes(queue)]
    if record.state not in _HAVE_WORK or not able:
        return ""
    versions = ", ".join(sorted({worker.version or "?" for worker in able}))
    if record.version and not any(worker.takes(queue, record.version) for worker in able):
        return (
            f"version {record.version} began it, and the workers have {versions}: start one of {record.version}, or "
            f"let it go on with theirs: `pigeonhole jobs resume {record.job} --new-version`"
        )
    if record.model_format and not any(record.model_format in worker.model_formats for worker in able):
        return f"no worker reads its model, which has format {record.model_format}: start one of a newer version"
    return ""


def can_change(record: JobRecord) -> bool:
    """Whether a version began a job and has not done all of it."""
    return bool(record.version) and record.state in _HAVE_WORK


def change_version(folder: JobFolder, ledger: Ledger, before: str) -> JobVersion | None:
    """Let a job that version `before` began go on with the version of the workers that are alive.

    Returns None where they have that version. Raises PigeonholeError where they have several, or none is alive.
    """
    workers = ledger.live_workers.workers()
    queue = QUEUE_OF_KIND[folder.request().kind]
    versions = sorted({worker.version for worker in workers if worker.takes(queue)})
    if versions == [before]:
        return None
    if own := [worker.worker for worker in workers if worker.takes(queue, before)]:
        raise PigeonholeError(
            f"version {before} began job {folder.job}, and {', '.join(own)} has it: it goes on there; to change the "
            "version, drain these workers first"
        )
    if len(versions) != 1:
        there = f"they have {', '.join(versions)}: drain all but one version" if versions else "no worker is alive"
        raise PigeonholeError(f"job {folder.job} would go on with the version of the workers, but {there}")
    changed = JobVersion(release=versions[0], at=datetime.now(UTC), by=operator(), before=before)
    write_changed(folder, changed)
    ledger.change_version(folder.job, changed.release)
    note(folder, "version changed", before=before, version=changed.release)
    return changed


def check_version(folder: JobFolder, ledger: Ledger, version: str) -> None:
    """Raises UnavailableError where workers are alive, but none of the version that began the job."""
    record = JobRecord(folder.job, folder.request().kind, "queued", version=version)
    if missing := describe_missing_version(record, ledger.live_workers.workers()):
        raise UnavailableError(f"job {folder.job}: {missing}")
