"""A job that a process of its own does (training, evaluation): one attempt after another, until one ends it."""

import errno
import json
import logging
import shutil
import time
from pathlib import Path

from modeling.durable import replace_durably, sync, sync_tree
from modeling.errors import ModelingError, takes_no_writes, trouble_of
from modeling.training.attempt import attempt_number
from orchestrator.contract.jobs.attempts import begin_attempt, close_attempts, count_deaths, end_attempt, read_attempts
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.job_version import begin_with
from orchestrator.contract.ledger.ledger import Claim
from orchestrator.contract.queues import FINALIZE, TRAIN
from orchestrator.contract.server import SERVER_ERRORS
from workers.context import WorkerContext
from workers.leases import Leases
from workers.other_versions import is_of_another_version
from workers.training.process import Ending, WatchedProcess, append_event, last_lines
from workers.training.specs import ProcessSpec, process_spec

logger = logging.getLogger(__name__)

MAX_DEATHS = 3  # of the worker or the process, or tries that the storage ended, without a new checkpoint between them
_PAUSES_S = (0.1, 0.3, 1.0)  # before a complete result is moved again, after an error of the storage


class ProcessInterruptedError(Exception):
    """The process could not open files, or its storage was away or full; trying again may help."""


class ProcessFailedError(Exception):
    """The process ended without a result; the message is for the operator."""


def run_process_job(job: str, context: WorkerContext) -> None:
    """Run `job` in a process of its own, unless another worker does, or the result exists."""
    folder = context.folder(job)
    spec = process_spec(folder.request(), folder, context)
    if folder.outcome() is not None or spec is None:
        logger.info("job %s needs no process; its doorbell is dropped", job)
        return
    ledger = context.recovering_ledger
    claim = ledger.claim(job, context.worker, context.settings.lease_s)
    if isinstance(claim, str):
        return  # another worker holds it, or the job needs no more work
    process_job = ProcessJob(context, folder, spec, claim)
    with Leases(context, job, on_tick=process_job.tick) as leases:
        process_job.leases = leases
        leases.add(claim)
        if spec.distributed:  # a training; an evaluation begins again whenever it is claimed
            begin_with(folder, context.ledger.worker_release.version)
        try:
            finished = spec.result.exists() or process_job.run()
        except (ProcessFailedError, ModelingError, UnicodeError) as err:
            if not isinstance(err, ProcessFailedError) and (trouble_of(err) or is_of_another_version(err)):
                raise  # this worker hands the job back, and waits
            ledger.cancel(job, run=folder.run, reason=f"{spec.name} failed: {err}")
            finished = False
        except OSError as err:
            if not takes_no_writes(err):
                raise
            raise ProcessInterruptedError(f"{err}; free disk space") from err
        if finished:
            ledger.commit(claim, num_rows=0, num_failed=0)
            leases.drop(claim)
    _ring_next(job, process_job, context)


def _is_unexpected(err: Exception) -> bool:
    """Whether an error of this side of an attempt says nothing of what is lacking: it may be so on every worker."""
    known = (ModelingError, *SERVER_ERRORS)
    return not (isinstance(err, known) or takes_no_writes(err) or trouble_of(err))


def _ring_next(job: str, process_job: "ProcessJob", context: WorkerContext) -> None:
    if process_job.drained:
        context.ring(TRAIN, job)
        return
    record = context.recovering_ledger.record(job)
    if record is not None and record.state in ("finalizing", "cancelling"):
        context.ring(FINALIZE, job)


class ProcessJob:
    """The attempts of this worker at a job that it has claimed."""

    def __init__(self, context: WorkerContext, folder: JobFolder, spec: ProcessSpec, claim: Claim) -> None:
        self._context, self._folder, self._spec, self._claim = context, folder, spec, claim
        self._process: WatchedProcess | None = None
        self.leases: Leases | None = None
        self.drained = False

    def run(self) -> bool:
        """Make attempts until one has left the result in the job folder; False when the job or the worker must stop.

        A process that died, for example because memory ran out, or that showed no sign of life is followed by another:
        a training continues from its last checkpoint.

        Raises:
            ProcessFailedError: the process reported an error, or died MAX_DEATHS times without a new checkpoint.
            ProcessInterruptedError: what it lacks may be there later.
            ModelingError: the operator's request is not valid on this worker.
            OSError: the job folder cannot be written.
        """
        if not self._holds():  # frozen since it claimed: the attempt of another worker runs, and has not died
            return False
        while True:
            for text in close_attempts(self._folder):  # of workers that died
                self._after_death(Ending("killed", text))
            attempt = begin_attempt(self._folder, worker=self._context.worker, device=self._context.device)
            ending = self._make(attempt)
            if ending.kind == "finished":
                return True
            if ending.kind == "stopped" or not self._holds():
                return False
            if ending.kind == "failed":
                raise ProcessFailedError(ending.text)
            if ending.died:
                self._after_death(ending)
            if ending.kind in ("interrupted", "storage"):  # another worker's storage may be well
                raise ProcessInterruptedError(f"the {self._spec.name} was interrupted: {ending.text}")

    def tick(self) -> None:
        """Called every second by the leases: end the process when the job or the worker must stop, or it hangs."""
        if self.leases is None:
            return
        self.drained = self.drained or self._context.draining()
        process = self._process
        if process is None or process.tick(self._why_stop(self.leases)):
            self.leases.progressed()  # a process that cannot even be killed ends this one

    def _why_stop(self, leases: Leases) -> str:
        if self.drained:
            return "the worker stopped"
        if self._claim.shard in leases.lost:
            return "its lease was lost"
        return "" if leases.job_goes_on else f"the job was {leases.state}"

    def _make(self, attempt: Path) -> Ending:
        """One attempt: run the process, keep its result, and record how it ended."""
        number = attempt_number(attempt)
        output = self._spec.result.with_name(f"{self._spec.result.name}.{number}")
        try:
            request_path = self._write_request(attempt, output)
            self._process = WatchedProcess(self._context, self._folder, self._spec, self._claim, number)
            ending = self._process.run(request_path)
            self.drained = self.drained or self._context.draining()
            if ending.kind == "finished":
                ending = self._keep_result(output)
        except BaseException as err:
            unexpected = isinstance(err, Exception) and _is_unexpected(err)
            ending = Ending("killed" if unexpected else "failed", f"{type(err).__name__}: {err}")
            self._end(number, ending)
            if unexpected:
                self._after_death(ending)
            raise
        finally:
            self._process = None
        self._end(number, ending)
        return ending

    def _end(self, number: int, ending: Ending) -> None:
        try:
            end_attempt(self._folder, number, ending.text, died=ending.died)
        except OSError as err:
            logger.warning("job %s: the end of attempt %d is not recorded: %s", self._folder.job, number, err)

    def _holds(self) -> bool:
        """Ask the ledger whether the claim still holds."""
        state, lost = self._context.recovering_ledger.renew(
            self._claim.job, [self._claim], self._context.settings.lease_s
        )
        return not lost and state not in ("cancelling", "unknown")

    def _keep_result(self, output: Path) -> Ending:
        """Move the result into the job folder, or say why not; a result that an error rejects is removed."""
        try:
            if not output.exists():
                return Ending("failed", f"the {self._spec.name} ended without a result")
            sync_tree(output)  # not again after an error: a second fsync reports nothing of what the first one lost
            for pause_s in _PAUSES_S:
                try:
                    return self._move_result(output)
                except OSError as err:
                    if trouble_of(err) != "storage":
                        raise
                time.sleep(pause_s)
            return self._move_result(output)
        except OSError as err:
            shutil.rmtree(output, ignore_errors=True)  # each attempt has a folder of its own
            if trouble_of(err) != "storage":
                raise
            return Ending("storage", f"the result of the {self._spec.name} cannot be kept: {err}")

    def _move_result(self, output: Path) -> Ending:
        """Give the result its name, if this worker still holds the job; the first result stays."""
        if not self._holds():
            return Ending("stopped", "its lease was lost, or the job cancelled, before its result counted")
        try:
            output.rename(self._spec.result)
        except FileNotFoundError:
            if not self._spec.result.exists():  # else the answer to the rename was lost
                return Ending("stopped", "the job ended meanwhile, and its result was removed")
        except OSError as err:
            if err.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
        sync(self._folder.path)
        return Ending("finished", "it was finished")

    def _after_death(self, ending: Ending) -> None:
        """Report that another attempt follows. Raises ProcessFailedError if there were too many."""
        if count_deaths(read_attempts(self._folder), self._folder.run) >= MAX_DEATHS:
            if ending.kind == "storage":
                raise ProcessFailedError(f"{ending.text}; it was tried {MAX_DEATHS} times without a new checkpoint")
            last = last_lines(self._folder.path / f"{self._spec.name}.log")
            raise ProcessFailedError(
                f"{ending.text}; it died {MAX_DEATHS} times without a new checkpoint; if memory ran out, use a smaller "
                f"batch or image size; {last}"
            )
        logger.warning("job %s: %s; trying again", self._folder.job, ending.text)
        event = {"event": "warning", "text": f"{ending.text}; trying again"}
        append_event(self._folder.events, event)

    def _write_request(self, attempt: Path, output: Path) -> Path:
        """Write the request for the process, whose result goes into a folder of this attempt's own."""
        path = self._folder.path / f"{self._spec.name}_request.{attempt_number(attempt)}.json"
        request = self._spec.request(attempt, output)
        replace_durably(path, json.dumps(request, indent=2).encode(), mode=None)
        return path
