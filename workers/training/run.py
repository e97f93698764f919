"""A job that a process of its own does (training, evaluation), watched by the worker that started it."""

import errno
import json
import logging
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modeling.durable import replace_durably, sync, sync_tree
from modeling.errors import ModelingError, trouble_of
from modeling.evaluation.request import EvaluateRequest
from modeling.registry.store import ModelStore
from modeling.training.process import CHILD_ENVIRONMENT
from modeling.training.request import TrainRequest
from orchestrator.contract.home import library_folders
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.requests import AnyJobRequest, EvaluateJobRequest, TrainJobRequest
from orchestrator.contract.ledger.ledger import Claim
from orchestrator.contract.queues import FINALIZE, TRAIN
from orchestrator.contract.server import SERVER_ERRORS
from workers.context import WorkerContext
from workers.leases import Leases


@dataclass(frozen=True)
class ProcessSpec:
    """One kind of work for `modeling.training.process`.

    name: of the work, in messages.
    result: path of the complete result in the job folder.
    request: makes the request for the process from the folder it writes to; raises modeling's ModelingError.
    distributed: whether the work uses one process for each GPU of the worker.
    """

    name: str
    result: Path
    request: Callable[[Path], dict[str, Any]]
    distributed: bool = False


def process_spec(request: AnyJobRequest, folder: JobFolder, context: WorkerContext) -> ProcessSpec | None:
    """The spec of a job; None for one that needs no process of its own."""
    match request:
        case TrainJobRequest():
            return ProcessSpec("training", folder.model, lambda output: _train(request, output, folder, context), True)
        case EvaluateJobRequest():
            return ProcessSpec("evaluation", folder.evaluation, lambda output: _evaluate(request, output, context))
        case _:
            return None


def _train(request: TrainJobRequest, output: Path, folder: JobFolder, context: WorkerContext) -> dict[str, Any]:
    """The operator's request, on this worker's device; the next attempt continues from the last checkpoint."""
    places = {"output": output, "work": folder.path / "training", "cache": context.settings.cache}
    places["engines"] = ModelStore(context.settings.models).engines
    if request.train.get("weights_pin"):
        places["weights"] = folder.weights  # the job's own copy: the operator's file may be on another machine
    wanted = request.train | places | {"device": context.device}
    return {"task": "train"} | TrainRequest.from_json(wanted).to_json()


def _evaluate(request: EvaluateJobRequest, output: Path, context: WorkerContext) -> dict[str, Any]:
    """The pinned model, if the store still has it, on this worker's device."""
    version = ModelStore(context.settings.models).resolve_pinned(request.model.ref, request.model.digest)
    wanted = EvaluateRequest(
        version.path,
        Path(request.data),
        output,
        context.device,
        request.part,
        version.ref,
        request.precision,
        request.layout,
    )
    return {"task": "evaluate"} | wanted.to_json()


logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 3  # a job that kills its workers is not tried forever
MAX_DEATHS = 3  # of the process alone, by signals
LAST_LINES = 5  # of the log, in the error of a process that crashed


def launcher(*, distributed: bool) -> list[str]:
    """The start of the command line: Python, or torchrun where the work is distributed over several GPUs."""
    num_gpus = len([gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu])
    if not distributed or num_gpus < 2:
        return [sys.executable, "-P"]
    return [sys.executable, "-P", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_gpus)]


class ProcessInterruptedError(Exception):
    """The process could not open files, or its storage was away; trying again may help."""


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
    process_job = ProcessJob(context, folder, spec)
    with Leases(context, job, on_tick=process_job.stop_if_required) as leases:
        process_job.leases = leases
        leases.add(claim)
        try:
            if claim.attempt > MAX_ATTEMPTS:
                raise ProcessFailedError(f"{claim.attempt - 1} workers died while they ran it")
            finished = spec.result.exists() or process_job.run(claim)
        except (ProcessFailedError, ModelingError, UnicodeError) as err:
            if trouble_of(err):
                raise  # this worker hands the job back, and waits
            ledger.cancel(job, run=folder.run, reason=f"{spec.name} failed: {err}")
            finished = False
        if finished:
            ledger.commit(claim, num_rows=0, num_failed=0)
            leases.drop(claim)
    _ring_next(job, process_job, context)


def _ring_next(job: str, process_job: "ProcessJob", context: WorkerContext) -> None:
    if process_job.drained:
        context.ring(TRAIN, job)
        return
    record = context.recovering_ledger.record(job)
    if record is not None and record.state in ("finalizing", "cancelling"):
        context.ring(FINALIZE, job)


class ProcessJob:
    """A process that works on a job, and the events it writes."""

    def __init__(self, context: WorkerContext, folder: JobFolder, spec: ProcessSpec) -> None:
        self._context = context
        self._folder = folder
        self._spec = spec
        self._process: subprocess.Popen[str] | None = None
        self._log = folder.path / f"{spec.name}.log"
        self.leases: Leases | None = None
        self.drained = False
        self._stopped = False
        self._interrupted = ""  # the last event of a process that trying again may help

    def run(self, claim: Claim) -> bool:
        """Run the process; True when its result is in the job folder, False when it was stopped.

        A process that is killed by a signal, for example because memory ran out, is started again: a training continues
        from its last checkpoint. Raises ProcessFailedError if the process ended without a result, with its error or its
        last lines, ModelingError if the operator's request is not valid on this worker.
        """
        self._claim = claim
        output = self._spec.result.with_name(f"{self._spec.result.name}.{claim.fence}")
        request_path = self._write_request(output)
        for deaths_left in reversed(range(MAX_DEATHS)):
            code, error = self._run_once(request_path)
            if code == 0 and output.exists():
                self._move_result(output)
                return True
            if self._stopped or self._worker_is_stopping(code):
                return False
            if self._interrupted:
                raise ProcessInterruptedError(f"the {self._spec.name} was interrupted: {self._interrupted}")
            if error or code > 0 or not deaths_left:
                raise ProcessFailedError(error or self._describe_crash(code))
            again = {"event": "warning", "text": f"the {self._spec.name} was killed by signal {-code}; trying again"}
            with self._folder.events.open("a", encoding="utf-8") as events:
                events.write(json.dumps(again) + "\n")
            self._forward(json.dumps(again))
        raise AssertionError("the last death raises")

    def _run_once(self, request_path: Path) -> tuple[int, str]:
        """Run the process to its end; returns its exit code, and its error if it reported one."""
        error = ""
        with self._log.open("ab") as log, self._folder.events.open("a", encoding="utf-8") as events:
            self._process = self._start(request_path, log.fileno())
            with self._process as process:
                assert process.stdout is not None
                for line in process.stdout:
                    events.write(line)
                    events.flush()
                    error = self._forward(line) or error
        return process.returncode, error

    def stop_if_required(self) -> None:
        """Called every second by the leases: end the process when the job or the worker must stop."""
        if self.leases is None or self._process is None:
            return
        self.leases.progressed()  # the speed of the process is not watched; its death is noticed
        self.drained = self.drained or self._context.draining()
        if self.drained or not self.leases.job_goes_on or self._claim.shard in self.leases.lost:
            self._stopped = True
            self._process.kill()
            if self._process.stdin is not None:
                self._process.stdin.close()  # the processes it started have their own sessions, and end with this pipe

    def _worker_is_stopping(self, code: int) -> bool:
        """Whether the process ended because the whole worker stops: the process may get the same signal."""
        self.drained = self.drained or self._context.draining() or code in (-signal.SIGTERM, -signal.SIGINT)
        return self.drained

    def _move_result(self, output: Path) -> None:
        """Move the result into the job folder; the first result stays."""
        sync_tree(output)
        try:
            output.rename(self._spec.result)
        except OSError as err:
            if err.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
        sync(self._folder.path)

    def _write_request(self, output: Path) -> Path:
        """Write the request for the process, whose result goes into a folder of this claim's own."""
        path = self._folder.path / f"{self._spec.name}_request.{self._claim.fence}.json"
        replace_durably(path, json.dumps(self._spec.request(output), indent=2).encode(), mode=None)
        return path

    def _start(self, request_path: Path, log: int) -> subprocess.Popen[str]:
        """Start the process; the pipe on its standard input closes when this process dies."""
        return subprocess.Popen(
            [*launcher(distributed=self._spec.distributed), "-m", "modeling.training.process", str(request_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=self._folder.path,  # the worker's folder may be anybody's data set: matplotlib reads settings there
            text=True,
            encoding="utf-8",
            errors="backslashreplace",
            env=self._environment(),
            start_new_session=True,  # a Ctrl-C at the worker's terminal reaches the worker only
        )

    def _environment(self) -> dict[str, str]:
        """The process's, and that of the processes that torchrun starts."""
        return CHILD_ENVIRONMENT | library_folders(self._context.settings) | os.environ | {"PYTHONSAFEPATH": "1"}

    def _forward(self, line: str) -> str | None:
        """Enter an event into the ledger, for commands that watch the job; returns the error if it is one."""
        try:
            event = json.loads(line)  # not by pydantic: what else an event holds is for the commands that watch
            is_error = event.get("event") == "error"
        except (ValueError, AttributeError):
            logger.warning(
                "job %s: the %s wrote a line that is not an event: %r", self._folder.job, self._spec.name, line[:200]
            )
            return None
        self._interrupted = str(event.get("text")) if event.get("event") == "interrupted" else ""
        if is_error:
            return str(event.get("error"))
        try:
            self._context.ledger.report_progress(self._folder.job, line.strip())
        except SERVER_ERRORS as err:
            logger.warning("cannot forward an event of %s: %s", self._folder.job, err)
        return None

    def _describe_crash(self, code: int) -> str:
        """The error of a process that died without reporting one, with the last lines of its log."""
        with self._log.open(encoding="utf-8", errors="backslashreplace") as log:
            last = deque((line.strip() for line in log if line.strip()), maxlen=LAST_LINES)
        how = f"exit code {code}"
        if code < 0:
            how = f"signal {-code}, {MAX_DEATHS} times; if memory ran out, use a smaller batch or image size"
        return f"the process ended with {how}: {' | '.join(last) or 'it wrote nothing'} (log: {self._log})"
