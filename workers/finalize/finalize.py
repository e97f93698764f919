"""Ends a job: publishes its manifest, model or evaluation, or concludes a job that failed or was cancelled.

The worker that holds the job's finalize lease does it. Every step may be done twice: the second time it finds the same
bytes, the same model version and the same outcome.
"""

import contextlib
import logging
from collections.abc import Iterator
from datetime import UTC, datetime

from modeling.errors import ModelingError, trouble_of
from modeling.inference.engines.choice import copy_artifacts
from modeling.names import path_to_text
from modeling.registry.store import ModelStore, ModelVersion
from orchestrator.contract.errors import PigeonholeError
from orchestrator.contract.jobs.end import conclude, make_outcome, stopped_outcome, too_many_failures
from orchestrator.contract.jobs.job_folder import JobFolder, Outcome
from orchestrator.contract.jobs.parts import part_path
from orchestrator.contract.jobs.requests import AnyJobRequest, ClassifyRequest, EvaluateJobRequest, TrainJobRequest
from orchestrator.contract.ledger.ledger import FINALIZE_LEASE_S
from orchestrator.contract.ledger.record import JobRecord
from orchestrator.contract.queues import CLASSIFY, FINALIZE, TRAIN
from workers.context import WorkerContext
from workers.finalize.errors import PublishError, TransientDiskError, may_not_write, publishing_to
from workers.finalize.evaluation import publish_evaluation
from workers.finalize.incomplete import publish_incomplete, remove_incomplete
from workers.finalize.join import BadPartError
from workers.finalize.lease import FinalizeLease, FinalizeLeaseLostError
from workers.finalize.publish import publish_manifest
from workers.other_versions import is_of_another_version

logger = logging.getLogger(__name__)


def end_job(job: str, context: WorkerContext) -> None:
    """End `job` if it is ready to end and no other worker ends it."""
    folder = context.folder(job)
    outcome = folder.outcome() or _find_outcome(folder, folder.request(), context)
    if outcome is not None:
        outcome = conclude(folder, outcome, context.recovering_ledger, by=context.worker)
        logger.info("job %s: %s", job, outcome.state)


def _find_outcome(folder: JobFolder, request: AnyJobRequest, context: WorkerContext) -> Outcome | None:
    """How the run ends; None where another worker ends it, or it cannot end yet."""
    ledger = context.recovering_ledger
    state, fence = ledger.take_finalize_lease(folder.job, context.worker, FINALIZE_LEASE_S)
    if fence is None:
        return None
    record = ledger.record(folder.job)
    try:
        with FinalizeLease(context, folder.job, fence) as lease:
            if state != "cancelling":
                return _publish(folder, request, record, lease, context)
            stopped = stopped_outcome(request, record, folder.run, fence)
            return _keep_incomplete(folder, request, record, lease, context) or stopped
    except FinalizeLeaseLostError:
        logger.info("job %s: another worker ends it", folder.job)
    except BadPartError as err:
        logger.warning("job %s: %s; doing shard %d again", folder.job, err, err.shard)
        part_path(folder.parts, err.shard).unlink(missing_ok=True)
        ledger.restore(folder.job, replace=True)
        context.ring(CLASSIFY, folder.job)
    except TransientDiskError as err:
        logger.warning("job %s: %s; trying again when the finalize lease has run out", folder.job, err)
        ledger.report_trouble(folder.job, str(err), worker=context.worker)
    except (PigeonholeError, ModelingError, UnicodeError) as err:
        if trouble_of(err) or is_of_another_version(err):
            raise  # this worker waits, and tries again, or leaves it to others
        logger.exception("job %s cannot be published", folder.job)
        return make_outcome("failed", record, folder.run, error=str(err))
    return None


def _publish(
    folder: JobFolder,
    request: AnyJobRequest,
    record: JobRecord | None,
    lease: FinalizeLease,
    context: WorkerContext,
) -> Outcome:
    """Publish the job's result. A model that the store already has gets the same version again."""
    match request:
        case ClassifyRequest():
            kept = _keep_incomplete(folder, request, record, lease, context)
            return kept or _publish_rows(folder, request, record, lease, context)
        case TrainJobRequest():
            version = _publish_model(folder, request, lease, context)
            return make_outcome("succeeded", record, folder.run, result=version.ref)
        case EvaluateJobRequest():
            with _left_to_others(folder.job, lease, context):
                result = publish_evaluation(folder, request, lease)
            return make_outcome("succeeded", record, folder.run, result=path_to_text(str(result)))


@contextlib.contextmanager
def _left_to_others(job: str, lease: FinalizeLease, context: WorkerContext) -> Iterator[None]:
    """Where this worker may not write the output, another may: then that one ends the job, and the lease is lost."""
    try:
        yield
    except PublishError as err:
        workers = context.ledger.live_workers.listeners(FINALIZE) if may_not_write(err) else []
        ledger = context.recovering_ledger
        if not (workers and ledger.leave_end(job, lease.fence, context.worker, workers)):
            raise
        ledger.report_trouble(job, f"worker {context.worker} {err}; it is left to another", worker=context.worker)
        context.ring(FINALIZE, job)
        raise FinalizeLeaseLostError from err


def _publish_model(
    folder: JobFolder, request: TrainJobRequest, lease: FinalizeLease, context: WorkerContext
) -> ModelVersion:
    """Publish the model. A worker that trains nothing may have a store that it can only read: others publish then."""
    try:
        with publishing_to(f"model {request.name}"):
            version = ModelStore(context.settings.models).publish(folder.model, request.name, confirm=lease.confirm)
            copy_artifacts(ModelVersion.at(folder.model).artifacts, version.artifacts)  # of the engine tested
            return version
    except PublishError as err:
        trainers = context.ledger.live_workers.listeners(TRAIN)
        if trainers and context.worker not in trainers and may_not_write(err):
            raise TransientDiskError(f"{err}; it is left to a worker that trains") from err
        raise


def _keep_incomplete(
    folder: JobFolder,
    request: AnyJobRequest,
    record: JobRecord | None,
    lease: FinalizeLease,
    context: WorkerContext,
) -> Outcome | None:
    """The outcome of a job with too many failures, after its rows were published as incomplete; None for others."""
    outcome = too_many_failures(folder, request, record)
    if outcome is None or not isinstance(request, ClassifyRequest):
        return None
    assert outcome.error is not None
    try:
        with _left_to_others(folder.job, lease, context):
            kept = publish_incomplete(folder, request, record, lease, outcome.error)
    except PublishError as err:
        return outcome.model_copy(update={"error": f"{outcome.error}; what was found so far is not kept: {err}"})
    return outcome.model_copy(update={"incomplete": kept})


def _publish_rows(
    folder: JobFolder,
    request: ClassifyRequest,
    record: JobRecord | None,
    lease: FinalizeLease,
    context: WorkerContext,
) -> Outcome:
    """Publish the manifest; the counts are those of its parts, not the ledger's."""
    with _left_to_others(folder.job, lease, context):
        totals = publish_manifest(folder, request, record, lease)
    remove_incomplete(request)
    return Outcome(
        state="partial" if totals.num_failed else "succeeded",
        run=folder.run,
        ended=datetime.now(UTC),
        num_images=totals.num_rows,
        num_done=totals.num_rows,
        num_failed=totals.num_failed,
        result=request.output,
    )
