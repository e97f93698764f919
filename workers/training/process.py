"""The process that trains or evaluates: started, its events taken, and ended when it must stop or hangs."""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from modeling.errors import names_worker_trouble
from modeling.training.process import CHILD_ENVIRONMENT, EXIT_MISTAKE
from orchestrator.contract.home import library_folders
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.ledger.ledger import Claim
from orchestrator.contract.log_file import MAX_BYTES, cut
from orchestrator.contract.server import SERVER_ERRORS
from workers.context import WorkerContext
from workers.training.specs import ProcessSpec

logger = logging.getLogger(__name__)

START_S = 600.0  # until the first event: a process on a slow disk takes minutes to import torch
LONGEST_TICK_S = 2.0  # that counts as silence: a worker that was frozen has not listened
MAX_LOG_BYTES = MAX_BYTES  # of the log, and as much of the one before; a library may complain of every image
LAST_LINES = 5  # of the log, in the error of a process that crashed
ASKED_TO_STOP = "it was asked to stop"  # by a signal that the whole worker got, too
MEANT_FOR_ALL_S = 2.0  # after a process was stopped by a signal, until the worker has got it, too
_POLL_S = 0.1
_NOT_KEPT = ("steps", "validate")  # signs of life, for who watches now

Kind = Literal["finished", "stopped", "superseded", "interrupted", "storage", "memory", "hung", "killed", "failed"]


@dataclass(frozen=True)
class Ending:
    """How a process ended; `text` is for people."""

    kind: Kind
    text: str

    @property
    def died(self) -> bool:
        """Whether it ended by no intent, so that another attempt may succeed."""
        return self.kind in ("storage", "memory", "hung", "killed")


def launcher(*, distributed: bool) -> list[str]:
    """The start of the command line: Python, or torchrun where the work is distributed over several GPUs."""
    if not is_distributed(distributed=distributed):
        return [sys.executable, "-P"]
    num_gpus = len(_gpus())
    return [sys.executable, "-P", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_gpus)]


def is_distributed(*, distributed: bool) -> bool:
    """Whether work that may be distributed over several GPUs is, on this worker."""
    return distributed and len(_gpus()) > 1


def _gpus() -> list[str]:
    return [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]


class WatchedProcess:
    """A process that works on one attempt, and the events it writes."""

    def __init__(self, context: WorkerContext, folder: JobFolder, spec: ProcessSpec, claim: Claim, number: int) -> None:
        """number: of the attempt."""
        self._context, self._folder, self._spec, self._claim = context, folder, spec, claim
        self._number = number
        self._log = folder.path / f"{spec.name}.log"
        self._process: subprocess.Popen[str] | None = None
        self._stopped = ""  # why the worker ended it
        self._hung = False
        self._said: dict[str, Any] = {}  # its last event of a kind that explains an end
        self._silent_s, self._may_be_silent_s = 0.0, max(START_S, context.settings.training_stall_s)
        self._ticked_at = time.monotonic()
        self._latest, self._server_away = "", False
        self._at_work, self._trouble_ended = False, False

    def run(self, request_path: Path) -> Ending:
        """Run the process to its end."""
        with self._log.open("ab") as log:
            log.write(f"attempt {self._number}, worker {self._context.worker}\n".encode())
            log.flush()
            self._process = self._start(request_path, log.fileno())
            with self._process as process:
                assert process.stdout is not None
                for line in process.stdout:
                    self._take(line)
        if self._server_away:
            self._report()
        return self._ending(process.returncode)

    def tick(self, stop: str) -> bool:
        """Called every second; returns whether the process is well. stop: why it must stop; empty: it may go on."""
        now = time.monotonic()
        self._silent_s += min(now - self._ticked_at, LONGEST_TICK_S)
        self._ticked_at = now
        if self._process is None or self._process.returncode is not None:
            return True
        cut(self._log, max_bytes=MAX_LOG_BYTES)
        if self._server_away:
            self._report()
        if stop and not self._hung:
            self._stopped = stop
        elif self._silent_s > self._may_be_silent_s:
            self._hung = True
        if not (self._stopped or self._hung):
            return True
        self._kill(self._process)
        return False

    def _take(self, line: str) -> None:
        """Keep an event, and enter it into the ledger, for commands that watch the job."""
        try:
            event = json.loads(line)  # not by pydantic: what else an event holds is for the commands that watch
            kind = event["event"]
        except (ValueError, TypeError, KeyError):
            logger.warning("job %s: the %s wrote no event: %r", self._folder.job, self._spec.name, line[:200])
            return
        self._silent_s = 0.0
        self._may_be_silent_s = max(self._context.settings.training_stall_s, float(event.get("quiet_s") or 0))
        self._at_work = self._at_work or kind == "epoch" or "num_done" in event
        self._said = event if kind in ("error", "interrupted", "storage", "memory", "superseded") else {}
        if kind not in _NOT_KEPT:
            append_event(self._folder.events, {**event, "attempt": self._number})
        if kind != "error":
            self._latest = json.dumps({**event, "attempt": self._number})
            if not self._server_away:
                self._report()

    def _report(self) -> None:
        """Enter the last event into the ledger; while the server is away, that is left to the ticks."""
        try:
            self._context.ledger.report_progress(self._folder.job, self._latest, self._claim)
            if self._at_work and not self._trouble_ended:
                self._context.ledger.end_trouble(self._claim)
                self._trouble_ended = True
            self._server_away = False
        except SERVER_ERRORS as err:
            logger.log(logging.DEBUG if self._server_away else logging.WARNING, "cannot forward an event: %s", err)
            self._server_away = True

    def _kill(self, process: subprocess.Popen[str]) -> None:
        """End the process and those that it started, also where they are frozen."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
        process.kill()
        if process.stdin is not None:
            process.stdin.close()  # those that are left end with this pipe

    def _ending(self, code: int) -> Ending:
        name = self._spec.name
        kind, text = self._said.get("event"), str(self._said.get("text", ""))
        if self._stopped:
            return Ending("stopped", self._stopped)
        if self._hung:
            return Ending("hung", f"the {name} showed no sign of life for {self._may_be_silent_s:.0f} s and was ended")
        if code in (-signal.SIGTERM, -signal.SIGINT) and self._worker_stops():
            return Ending("stopped", ASKED_TO_STOP)
        if kind in ("superseded", "interrupted", "storage"):
            return Ending(kind, text)
        if kind == "memory":
            return Ending("memory", f"the {name} ran out of memory: {text}")
        if kind == "error":
            return Ending("failed", str(self._said.get("error")))
        if code == 0:
            return Ending("finished", "it was finished")
        if code < 0 or is_distributed(distributed=self._spec.distributed):  # torchrun hides the signal
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            return Ending("killed", f"the {name} {how}")
        return self._unexplained(code)

    def _unexplained(self, code: int) -> Ending:
        """The ending by an exit code alone. What a process lacks it says itself, unless it could not even start."""
        last = last_lines(self._log)
        kind: Kind = "interrupted" if code == EXIT_MISTAKE and names_worker_trouble(last) else "failed"
        return Ending(kind, f"the process ended with exit code {code}: {last}")

    def _worker_stops(self) -> bool:
        """Whether a signal that ended the process was meant for the whole worker, which knows that in a moment."""
        until = time.monotonic() + MEANT_FOR_ALL_S
        while not self._context.draining():
            if time.monotonic() > until:
                return False
            time.sleep(_POLL_S)
        return True

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


def last_lines(path: Path) -> str:
    """The last lines of a process's log, and where that is."""
    try:
        with path.open(encoding="utf-8", errors="backslashreplace") as log:
            last = deque((line.strip() for line in log if line.strip()), maxlen=LAST_LINES)
    except OSError as err:
        return f"its log cannot be read: {err}"
    return f"{' | '.join(last)} (log: {path})"


def append_event(path: Path, event: dict[str, Any]) -> None:
    """Append an event to the job's; a full disk costs the event, and not the training."""
    line = json.dumps(event).encode() + b"\n"
    try:
        with path.open("ab", buffering=0) as events:
            events.write(line if _ends_a_line(path) else b"\n" + line)
    except OSError as err:
        logger.warning("an event is lost: %s", err)


def _ends_a_line(path: Path) -> bool:
    """Whether a file ends with a whole line: a full disk may have cut the last one off."""
    with path.open("rb") as file:
        return file.seek(0, os.SEEK_END) == 0 or (file.seek(-1, os.SEEK_END) >= 0 and file.read(1) == b"\n")
