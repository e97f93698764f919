"""One cell: a command runs, a fault strikes, and what comes of it is compared with an undisturbed run."""

import contextlib
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.steps.cells import Cell
from benchmarks.steps.scenario import PATIENCE_S, Scenario
from orchestrator.contract.jobs.job_folder import JobFolder, Outcome
from tests.support.server import wait_until
from tests.support.steps.compare import differences, left_behind, unverified
from tests.support.steps.faults import LONGEST_LEASE_S, Fault, Faults, Struck
from tests.support.steps.table import STEPS
from tests.support.workers import Cluster


@dataclass
class Tried:
    """What came of a cell.

    end: `identical`: the result is that of an undisturbed run; `stated`: an error. helped: what the operator did then.
    """

    cell: str
    step: str
    how: str
    end: str = ""
    helped: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0


def how_of(fault: Fault) -> str:
    """A fault in words."""
    return f"{fault.error or fault.action} {'before' if fault.before else 'after'}"


def run_struck(
    start: Callable[[], "subprocess.Popen[bytes]"], log: Path, struck: Struck, freeze: Callable[[Struck], None] | None
) -> tuple[str, int]:
    """Run a command that a fault strikes until it has ended; returns what it said, and its exit code.

    start: of the command, which writes to `log`. freeze: where the fault is one, how long it lasts.
    """
    log.write_bytes(b"")
    process = start()
    try:
        struck.wait(timeout_s=PATIENCE_S)
        if freeze is not None:
            freeze(struck)
        process.wait(PATIENCE_S)
    except (TimeoutError, subprocess.TimeoutExpired) as err:
        raise AssertionError(f"{err}: {log.read_text(errors='replace')[-500:]}") from err
    finally:
        struck.thaw()
        process.kill()
        process.wait()
    return log.read_text(errors="replace"), process.returncode


class Trial:
    """A cell that is tried in a cluster."""

    def __init__(self, cell: Cell, scenario: Scenario, faults: Faults) -> None:
        self.fault = cell.fault
        self.step = STEPS[cell.fault.step]
        self.scenario = scenario
        self.cluster: Cluster = scenario.cluster
        self.faults = faults
        self.tried = Tried(str(cell), self.step.name, how_of(cell.fault))
        self._left_before: set[str] = set()  # by whom other tests have killed in the same home

    def run(self) -> Tried:
        """Try it; whatever goes wrong is a problem of the cell."""
        started = time.monotonic()
        try:
            self._wait_for_workers()
            self._left_before = set(self._left())
            self.scenario.begin()
            self._strike()
        except (AssertionError, TimeoutError, OSError, subprocess.SubprocessError) as err:
            self.tried.problems.append(f"{type(err).__name__}: {err}")
            self.scenario.reset()
        self.tried.seconds = round(time.monotonic() - started, 1)
        return self.tried

    def _wait_for_workers(self) -> None:
        """A freeze is outlasted by another worker; after any other fault the one that is left does the work."""
        needed = len(self.cluster.workers) if self.fault.action == "freeze" else 1
        wait_until(lambda: self._num_idle() >= needed, what=f"{needed} workers are idle", timeout_s=PATIENCE_S)

    def _num_idle(self) -> int:
        records = self.cluster.ledger.live_workers.workers()
        return sum(record.alive and record.doing == "idle" for record in records)

    def _strike(self) -> None:
        with self.faults.armed(self.fault) as struck:
            errors, code = self._run_struck(struck)
        job = self._job()
        outcome = self._settle(job)
        was_command = struck.events()[0]["role"] == "command" and self.fault.action == "kill"
        if outcome is not None and outcome.state in ("succeeded", "partial"):
            self.tried.end = "identical"
            if not was_command and code != self.scenario.exit_code and not self._is_stated(errors):
                self.tried.problems.append(f"the command ended with {code}: {errors.strip()[-300:]}")
        else:
            self._check_stated(outcome, errors, code, was_command=was_command)
            self._help(job, outcome)
        self._compare()

    def _run_struck(self, struck: Struck) -> tuple[str, int]:
        """Run the command until it has ended; returns what it said, and its exit code."""
        log = self.scenario.folder / "command.log"
        freeze = self._outlast if self.fault.action == "freeze" else None
        return run_struck(lambda: self.cluster.start(*self.scenario.arguments, log=log), log, struck, freeze)

    def _outlast(self, struck: Struck) -> None:
        """Freeze a process until others have ended its job, or, where they cannot, for longer than its lease."""
        struck.outlast(LONGEST_LEASE_S, or_until=lambda: (job := self._job()) is not None and self.scenario.ended(job))

    # What came of it

    def _job(self) -> str | None:
        """The job of the command."""
        new = set(self.cluster.jobs()) - self.scenario.kept_jobs
        return max(new, default=None)

    def _settle(self, job: str | None) -> Outcome | None:
        """Wait until nobody does anything any more; the outcome of the job, if it has begun."""
        self.scenario.wait_for_end()
        self._wait_for_workers()
        return JobFolder(self.cluster.settings, job).outcome() if job is not None else None

    def _check_stated(self, outcome: Outcome | None, errors: str, code: int, *, was_command: bool) -> None:
        """Where there is no result there is an error of the kind that the step states, and nothing half published."""
        self.tried.end = "stated"
        text = f"{outcome.error if outcome else ''}\n{errors}"
        if not was_command and not self._is_stated(text):
            self.tried.problems.append(f"not a stated error: {text.strip()[-500:]!r}")
        if not was_command and code == 0:
            self.tried.problems.append("the command ended with 0")
        self.tried.problems += [f"half published: {line}" for line in self.scenario.half_published()]

    def _is_stated(self, said: str) -> bool:
        return self.step.stated is not None and re.search(self.step.stated, said) is not None

    def _help(self, job: str | None, outcome: Outcome | None) -> None:
        """What the operator does next: resume a job that has ended, or run the command again."""
        code, errors = 0, ""
        if outcome is not None and job is not None and "submit it again" not in (outcome.error or ""):
            code, errors = self._operate("resumed", "jobs", "resume", job)
        if not self.tried.helped or (code and "submit it again" in errors):
            code, errors = self._operate("run again", *self.scenario.arguments)
        if code != self.scenario.exit_code:
            self.tried.problems.append(f"{self.tried.helped[-1]}: exit {code}: {errors[-300:]}")
        self._settle(job)

    def _operate(self, what: str, *arguments: str) -> tuple[int, str]:
        """Run a command; returns its exit code and what it said."""
        self.tried.helped.append(what)
        done = self.cluster.run(*arguments)
        return done.returncode, done.stderr

    def _compare(self) -> None:
        """What is published is that of an undisturbed run, and nothing is left behind."""
        scenario, settings = self.scenario, self.cluster.settings
        self.tried.problems += differences(scenario.expected, scenario.published())
        self.tried.problems += unverified(settings, *scenario.outputs)
        self.tried.problems += self._left_behind()

    def _left_behind(self) -> list[str]:
        """What is left for good: a process that was frozen may find that the job has ended, and be about to tidy up."""

        def found() -> list[str]:
            return sorted(set(self._left()) - self._left_before)

        with contextlib.suppress(TimeoutError):
            wait_until(lambda: not found(), what="nothing is left behind", timeout_s=LONGEST_LEASE_S)
        return found()

    def _left(self) -> list[str]:
        jobs = [job for job in self.cluster.jobs() if self.scenario.ended(job)]
        return left_behind(self.cluster.settings, jobs, self.scenario.outbox)
