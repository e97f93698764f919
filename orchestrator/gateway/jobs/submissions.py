"""Submitting jobs from a gateway: each by a process of its own, which is asked for one line."""

import contextlib
import selectors
import subprocess
import sys
import time
from collections.abc import Callable

from pydantic import ValidationError

from orchestrator.contract.errors import UnavailableError
from orchestrator.contract.settings import Settings
from orchestrator.gateway.jobs.bodies import JobBody
from orchestrator.gateway.jobs.submitter import Order, Report
from orchestrator.gateway.submitters import Submitters
from orchestrator.jobs.roots import Roots
from orchestrator.jobs.specs import check_paths_of
from orchestrator.jobs.submit import Submission

LONGEST_S = 600.0  # until a job is checked and entered; a data set of millions of images is read for that
_LOOK_S = 0.2  # how often a waiting thread looks whether the gateway stops
_COMMAND = (sys.executable, "-m", "orchestrator.gateway.jobs.submitter")


class Submissions:
    """Safe to share between threads. stopping: whether the gateway stops; then nobody waits any longer."""

    def __init__(self, settings: Settings, roots: Roots, submitters: Submitters, stopping: Callable[[], bool]) -> None:
        self._settings = settings
        self._roots = roots
        self._submitters = submitters
        self._stopping = stopping

    def submit(self, body: JobBody, key: str | None) -> Submission:
        """Submit a job; blocks until it is entered, and not until its images are listed.

        Raises what `prepare` and `JobClient.submit` raise, UnavailableError where too many are being submitted.
        """
        check_paths_of(body.spec(self._roots, key))  # at once, and without a process
        order = Order.of(self._settings, self._roots, key, body).model_dump_json().encode()
        process = self._submitters.start(_COMMAND)
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died: it will report nothing
            process.stdin.write(order)
            process.stdin.flush()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        line = self._first_line(process)
        try:
            return Report.model_validate_json(line).submission()
        except ValidationError as err:
            raise RuntimeError(f"the process that submits a job ended with {process.wait()}; see its error") from err

    def _first_line(self, process: subprocess.Popen[bytes]) -> bytes:
        """The report; ends the process where it takes too long."""
        assert process.stdout is not None
        deadline = time.monotonic() + LONGEST_S
        with process.stdout, selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while not selector.select(_LOOK_S):
                if self._stopping():
                    raise UnavailableError("the gateway stops while the job is submitted; repeat it with the same key")
                if time.monotonic() > deadline:
                    process.kill()
                    raise UnavailableError(f"the job could not be checked within {LONGEST_S:.0f} s")
            return process.stdout.readline()
