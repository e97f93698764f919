"""The end of a job: how a cancelled or failed job concludes, and the steps by which any job ends.

Workers and commands both end jobs; only workers publish results. Every step may be done twice: the second
time it finds the same outcome, and changes nothing.
"""

import contextlib
import itertools
import shutil
from datetime import UTC, datetime
from pathlib import Path

from modeling.durable import target_of
from modeling.names import text_to_path
from orchestrator.contract.jobs.history import note
from orchestrator.contract.jobs.job_folder import FinalState, JobFolder, Outcome
from orchestrator.contract.jobs.listing import read_facts
from orchestrator.contract.jobs.recovering_ledger import RecoveringLedger
from orchestrator.contract.jobs.requests import AnyJobRequest, ClassifyRequest
from orchestrator.contract.jobs.restore import output_of
from orchestrator.contract.jobs.rows import summary_path
from orchestrator.contract.jobs.sidecar import sidecar_path
from orchestrator.contract.ledger.record import JobRecord

RESUMABLE = frozenset({"failed", "cancelled"})


def conclude(folder: JobFolder, outcome: Outcome, ledger: RecoveringLedger, *, by: str | None = None) -> Outcome:
    """End a run of a job, on the disk first; returns its outcome, which is the earlier one if it has ended before.

    by: who ends it, for the history; None: the user of this process.
    """
    is_first = folder.outcome_of(outcome.run) is None
    outcome = folder.write_outcome(outcome)
    if is_first:
        counts = {name: getattr(outcome, name) for name in ("num_images", "num_done", "num_failed")}
        note(folder, "ended", by=by, state=outcome.state, result=outcome.result, error=outcome.error, **counts)
    enter_outcome(folder, outcome, ledger)
    return outcome


def remove_temporaries(folder: JobFolder, *, keep_checkpoints: bool) -> None:
    """Remove what an ended job does not need: files of writers that died, results of lost claims, engines.

    keep_checkpoints: also the weights that a training starts from: a resume goes on from there.
    """
    checkpoints = () if keep_checkpoints else ("training/*.checkpoint*", "training/weights")
    temporaries = ("paused.*.json", ".*.tmp", "training/*.damaged", "training/.*.tmp")
    for path in itertools.chain(
        *(folder.path.glob(pattern) for pattern in (*temporaries, *checkpoints)), folder.parts.glob(".*.tmp")
    ):
        path.unlink(missing_ok=True)
    for pattern in (f"{folder.model.name}.[0-9]*", f"{folder.evaluation.name}.[0-9]*", ".engines"):
        for path in folder.path.glob(pattern):
            shutil.rmtree(path, ignore_errors=True)  # a process that still writes to it must not delay the end


def enter_outcome(folder: JobFolder, outcome: Outcome, ledger: RecoveringLedger) -> None:
    """Clean up, enter into the ledger how the job ended, and its webhook, then remove the job from the active ones.

    Nothing is changed where the job was resumed since.
    """
    if folder.is_last_run():
        remove_temporaries(folder, keep_checkpoints=outcome.state in RESUMABLE)
    request = folder.request()
    if request.notify is not None and folder.is_last_run():
        folder.note_undelivered()
    entered = ledger.finish(
        folder.job,
        outcome.state,
        run=outcome.run,
        output=output_of(request),
        error=outcome.error or "",
        result=outcome.result or "",
    )
    if not entered:
        return
    if folder.is_undelivered():
        ledger.deliver(folder.job)
    folder.retire()


def stopped_outcome(request: AnyJobRequest, record: JobRecord | None, run: int, fence: int) -> Outcome:
    """The outcome of a run cancelled by the operator or by an error; removes temporary files beside its output.

    fence: of the finalize lease that the caller holds.
    """
    remove_unpublished(request, before=fence)
    if record is not None and record.error:
        return make_outcome("failed", record, run, error=record.error)
    return make_outcome("cancelled", record, run)


def too_many_failures(folder: JobFolder, request: AnyJobRequest, record: JobRecord | None) -> Outcome | None:
    """The outcome of a classify job with more failed images than the operator accepts; None for any other job."""
    if record is None or not isinstance(request, ClassifyRequest):
        return None
    facts = read_facts(folder.work)
    limit = folder.failure_limit(request, facts.num_images if facts else None)
    if limit is None or record.num_failed <= limit:
        return None
    counts = f"{record.num_failed} of {record.num_done} images failed, more than the {limit} allowed"
    outcome = make_outcome("failed", record, folder.run, error=f"{counts} by --max-failures")
    return outcome.model_copy(update={"too_many_failures": True})


def make_outcome(
    state: FinalState, record: JobRecord | None, run: int, *, error: str | None = None, result: str | None = None
) -> Outcome:
    """The outcome of a run with the ledger's counts."""
    return Outcome(
        state=state,
        run=run,
        ended=datetime.now(UTC),
        num_images=record.num_images if record else 0,
        num_done=record.num_done if record else 0,
        num_failed=record.num_failed if record else 0,
        error=error,
        result=result,
    )


def unpublished_path(request: AnyJobRequest, fence: int) -> Path:
    """Where the finalizer with this fence prepares the output: a hidden name that no other job uses, beside it.

    Where the output is a link, that is beside what the link names, which may be on another disk.
    """
    return target_of(Path(text_to_path(output_of(request)))).with_name(f"{_prefix(request)}{fence}.tmp")


def remove_unpublished(request: AnyJobRequest, *, before: int) -> None:
    """Remove the files that finalizers of this job left beside the output when they died.

    before: only of finalizers with a lower fence, so that one that was frozen never removes its successor's files.
    """
    if not output_of(request):
        return
    prefix, output = _prefix(request), Path(text_to_path(output_of(request)))
    with contextlib.suppress(OSError):
        folders = {target_of(path).parent for path in (output, summary_path(output), sidecar_path(output))}
        folders.add(output.parent)  # where an earlier manifest is kept, also beside a link
        for path in [path for folder in folders for path in folder.iterdir()]:
            fence = path.name.removeprefix(prefix).partition(".")[0]
            if path.name.startswith(prefix) and (not fence.isdecimal() or int(fence) < before):
                _remove(path)


def _prefix(request: AnyJobRequest) -> str:
    return f".{request.job}."


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
