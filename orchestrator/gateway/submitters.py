"""The processes that submit jobs for a gateway, and then list their images."""

import contextlib
import subprocess
import threading
import time
from collections.abc import Sequence

from orchestrator.contract.errors import UnavailableError

MOST_SUBMITTERS = 16  # processes; those that list a large source count, too


class Submitters:
    """Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen[bytes]] = set()

    def start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a process that is asked by its standard input. Raises UnavailableError where there are too many."""
        with self._lock:
            self._processes = {process for process in self._processes if process.poll() is None}
            if len(self._processes) >= MOST_SUBMITTERS:
                raise UnavailableError(f"{MOST_SUBMITTERS} jobs are being submitted or listed; try again later")
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
            )  # its errors go where the gateway's go; a signal to the gateway does not reach it
            self._processes.add(process)
            return process

    def wait_until_listed(self, limit_s: float) -> None:
        """Wait until the images of all submitted jobs are listed, for this time at most."""
        deadline = time.monotonic() + limit_s
        with self._lock:
            processes = list(self._processes)
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
