"""A background process of the local stack: start it, find it again by pid and start time, wait for it, stop it."""

import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import redis

from modeling.durable import STRICT
from modeling.names import path_to_text, text_to_path
from orchestrator.contract.access import present_folder_exists
from orchestrator.contract.errors import UnavailableError
from orchestrator.contract.ledger.ledger import Ledger

SAFE_PATH = {"PYTHONSAFEPATH": "1"}  # otherwise `-m workers` would run a folder `workers` of the operator's folder
_START_POLL_S = 0.05
_STOP_POLL_S = 0.02


@dataclass(frozen=True)
class Process:
    """A process that `up` started."""

    name: str  # server, or worker-cpu, worker-cuda0, ...
    pid: int
    started: float  # by the system's clock: the pid alone may belong to another process by now
    log: str  # as text, see modeling.names

    __pydantic_config__ = STRICT

    def find(self) -> psutil.Process | None:
        """The running process; None once it has ended.

        A zombie counts as ended: in a container without an init it stays a zombie.
        """
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < 1.0
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


def start_process(
    name: str, command: Sequence[str], log: Path, environment: Mapping[str, str], *, lock: int
) -> Process:
    """Start a process in a session of its own, which keeps the lock; its output is appended to `log`."""
    with log.open("ab") as file:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True, env=environment,
            pass_fds=(lock,), cwd=None if present_folder_exists() else log.parent,
        )  # fmt: skip
    return Process(name, child.pid, psutil.Process(child.pid).create_time(), path_to_text(str(log)))


def wait_until_ready(process: Process, is_ready: Callable[[], bool], timeout_s: float, *, stop_s: float) -> None:
    """Wait until `is_ready` returns True; errors of the server count as not ready.

    Raises UnavailableError if the process ends, or is not ready in time; it is then stopped, within `stop_s`.
    """
    deadline = time.monotonic() + timeout_s
    while process.find() and time.monotonic() < deadline:
        with contextlib.suppress(redis.RedisError, OSError):
            if is_ready():
                return
        time.sleep(_START_POLL_S)
    what = "does not answer" if process.find() else "ended"
    stop_processes([process], stop_s)
    raise UnavailableError(f"the local {process.name} {what}; its log: {process.log}{_last_line(process.log)}")


def has_heartbeat(ledger: Ledger, pid: int) -> bool:
    """Whether the worker with this pid says that it lives."""
    here = socket.gethostname()  # other machines may have a worker with the same pid
    return any((worker.host, worker.pid, worker.alive) == (here, pid, True) for worker in ledger.live_workers.workers())


def stop_processes(processes: Sequence[Process], timeout_s: float) -> None:
    """Send SIGTERM; after `timeout_s`, kill the processes that still run, and their children."""
    for found in _running(processes):
        with contextlib.suppress(psutil.NoSuchProcess):
            found.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + timeout_s
    while _running(processes) and time.monotonic() < deadline:
        time.sleep(_STOP_POLL_S)
    for found in _running(processes):
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in found.children(recursive=True):
                child.kill()
            found.kill()


def _running(processes: Sequence[Process]) -> list[psutil.Process]:
    return [found for process in processes if (found := process.find())]


def _last_line(log: str) -> str:
    """The end of a log, for an error message."""
    lines = Path(text_to_path(log)).read_text(encoding="utf-8", errors="backslashreplace").splitlines()
    return f" ({lines[-1].strip()})" if lines else ""
