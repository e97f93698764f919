"""Ending a job: publish its manifest, its model or its evaluation, or conclude that it failed or was cancelled.

One worker at a time has the lease to finalize a job, by a lease with a fencing number. Every step may be done
twice: the second time it finds the same bytes, the same model version and the same outcome.
"""

import logging
from datetime import UTC, datetime

from modeling.errors import ModelingError
from modeling.names import path_to_text
from modeling.registry.store import ModelStore
from orchestrator.contract.errors import PigeonholeError
from orchestrator.contract.jobs.job_folder import FinalState, JobFolder, Outcome
from orchestrator.contract.jobs.listing import read_facts
from orchestrator.contract.jobs.parts import part_path
from orchestrator.contract.jobs.requests import AnyJobRequest, ClassifyRequest, EvaluateJobRequest, TrainJobRequest
from orchestrator.contract.jobs.restore import output_of, restore_job
from orchestrator.contract.ledger.ledger import JobRecord, Ledger
from orchestrator.contract.queues import CLASSIFY
from workers.context import WorkerContext
from workers.finalize.lease import FINALIZE_LEASE_S, FinalizeLease, FinalizeLeaseLostError
from workers.finalize.publish import BadPartError, DiskTroubleError, publish_manifest, remove_temporaries
from workers.finalize.publish_folder import publish_evaluation, remove_copies

logger = logging.getLogger(__name__)


def end_job(job: str, context: WorkerContext) -> None:
    """End `job` if it is that far and nobody else does."""
    folder = context.folder(job)
    request = folder.request()
    outcome = folder.outcome()
    if outcome is None:
        outcome = _conclude(folder, request, context)
    if outcome is not None:
        outcome = folder.write_outcome(outcome)
        folder.remove_temporaries()
        context.patiently(enter_outcome, folder, outcome, context.ledger)
        logger.info("job %s: %s", job, outcome.state)


def enter_outcome(folder: JobFolder, outcome: Outcome, ledger: Ledger) -> None:
    """Tell the ledger how the job ended, then take it off the list of active ones."""
    ledger.finish(
        folder.job,
        outcome.state,
        output=output_of(folder.request()),
        error=outcome.error or "",
        result=outcome.result or "",
    )
    folder.retire()


def _conclude(folder: JobFolder, request: AnyJobRequest, context: WorkerContext) -> Outcome | None:
    """How the job ends; None where it is not this worker's to say, or not yet."""
    ledger = context.ledger
    state, fence = context.patiently(ledger.take_finalize_lease, folder.job, context.worker, FINALIZE_LEASE_S)
    if state == "unknown":
        context.patiently(restore_job, folder, ledger)
        state, fence = context.patiently(ledger.take_finalize_lease, folder.job, context.worker, FINALIZE_LEASE_S)
    if fence is None:
        return None
    record = context.patiently(ledger.record, folder.job)
    if state == "cancelling":
        return _stopped(folder, request, record)
    try:
        with FinalizeLease(context, folder.job, fence) as lease:
            match request:
                case ClassifyRequest():
                    return _publish_rows(folder, request, record, fence, lease)
                case TrainJobRequest():
                    return _publish_model(folder, request, record, context)
                case EvaluateJobRequest():
                    result = publish_evaluation(folder, request, fence, lease)
                    return _outcome("succeeded", record, result=path_to_text(str(result)))
    except FinalizeLeaseLostError:
        logger.info("job %s: another worker ends it", folder.job)
    except BadPartError as err:
        logger.warning("job %s: %s; doing shard %d again", folder.job, err, err.shard)
        part_path(folder.parts, err.shard).unlink(missing_ok=True)
        context.patiently(restore_job, folder, ledger, replace=True)
        context.ring(CLASSIFY, folder.job)
    except DiskTroubleError as err:
        logger.warning("job %s: %s; trying again when the lease to finalize it has run out", folder.job, err)
        context.patiently(ledger.report_trouble, folder.job, str(err))
    except (PigeonholeError, ModelingError) as err:
        logger.exception("job %s cannot be published", folder.job)
        return _outcome("failed", record, error=str(err))
    return None


def _publish_rows(
    folder: JobFolder,
    request: ClassifyRequest,
    record: JobRecord | None,
    fence: int,
    lease: FinalizeLease,
) -> Outcome:
    """Publish the manifest, unless too many images failed."""
    if record is not None and (outcome := _too_many_failures(folder, request, record)):
        return outcome
    totals = publish_manifest(folder, request, record, fence, lease)
    return Outcome(
        state="partial" if totals.num_failed else "succeeded",
        ended=datetime.now(UTC),
        num_images=totals.num_rows,
        num_done=totals.num_rows,
        num_failed=totals.num_failed,
        result=request.output,
    )


def _publish_model(
    folder: JobFolder, request: TrainJobRequest, record: JobRecord | None, context: WorkerContext
) -> Outcome:
    """Publish the trained model; the store knows a digest that it has already."""
    version = ModelStore(context.settings.models).publish(folder.model, request.name)
    return _outcome("succeeded", record, result=version.ref)


def _stopped(folder: JobFolder, request: AnyJobRequest, record: JobRecord | None) -> Outcome:
    """The end of a job that was cancelled, by the operator or by what happened to it."""
    if isinstance(request, ClassifyRequest):
        remove_temporaries(request)
        if record is not None and (outcome := _too_many_failures(folder, request, record)):
            return outcome
    if isinstance(request, EvaluateJobRequest):
        remove_copies(request)
    if record is not None and record.error:
        return _outcome("failed", record, error=record.error)
    return _outcome("cancelled", record)


def _too_many_failures(folder: JobFolder, request: ClassifyRequest, record: JobRecord) -> Outcome | None:
    """The end of a job of which more images failed than the operator accepts."""
    facts = read_facts(folder.path)
    limit = request.failure_limit(facts.num_images if facts else None)
    if limit is None or record.num_failed <= limit:
        return None
    counts = f"{record.num_failed} of {record.num_done} images failed, more than the {limit} allowed"
    outcome = _outcome("failed", record, error=f"{counts} by --max-failures")
    return outcome.model_copy(update={"too_many_failures": True})


def _outcome(
    state: FinalState, record: JobRecord | None, *, error: str | None = None, result: str | None = None
) -> Outcome:
    """An outcome with the ledger's counts."""
    return Outcome(
        state=state,
        ended=datetime.now(UTC),
        num_images=record.num_images if record else 0,
        num_done=record.num_done if record else 0,
        num_failed=record.num_failed if record else 0,
        error=error,
        result=result,
    )
