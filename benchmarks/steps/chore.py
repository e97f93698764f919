"""A command that makes no job while faults strike, and one cell of it."""

import contextlib
import os
import re
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path

from benchmarks.steps.cells import Cell
from benchmarks.steps.scenario import PATIENCE_S
from benchmarks.steps.trial import Tried, how_of, run_struck
from tests.support.steps.compare import differences
from tests.support.steps.faults import Faults, Struck
from tests.support.steps.step import Step
from tests.support.steps.table import STEPS
from tests.support.workers import COMMAND


class Chore(ABC):
    """A command that is struck again and again.

    expected: what an undisturbed run leaves. unreached: the steps of its table that it does not come to.
    """

    unreached: frozenset[str] = frozenset()
    lease_s = 0.5
    again_codes: tuple[int, ...] = (0,)  # of the command that is run again

    def __init__(self, folder: Path, faults: Faults) -> None:
        self.folder, self.faults = folder, faults
        self.environment = faults.environment() | {"PIGEONHOLE_HOME": str(folder / "home")}
        self.expected: dict[str, bytes] = {}

    @property
    @abstractmethod
    def arguments(self) -> tuple[str, ...]:
        """Of the command."""

    @abstractmethod
    def begin(self) -> None:
        """Make everything as it is before the command."""

    @abstractmethod
    def found(self) -> dict[str, bytes]:
        """What the command has left."""

    def differences(self, step: Step) -> list[str]:
        """What differs from an undisturbed run, without what the step states."""
        return differences(self.expected, self.found())

    def problems(self) -> list[str]:
        """What else is wrong once all is done."""
        return []

    def while_frozen(self) -> contextlib.AbstractContextManager[object]:
        """What others do while the process is frozen."""
        return contextlib.nullcontext()

    def start(self, log: Path) -> "subprocess.Popen[bytes]":
        """Start the command. log: what it says."""
        with log.open("ab") as file:
            return subprocess.Popen(
                [*COMMAND, *self.arguments], env=self._whole_environment(), stdout=file, stderr=file
            )

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run the command, or another, to its end."""
        command = [*COMMAND, *(arguments or self.arguments)]
        environment = self._whole_environment()
        return subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)

    def _whole_environment(self) -> dict[str, str]:
        return os.environ | self.environment

    def prepare(self) -> None:
        """Run the command undisturbed."""
        self.begin()
        done = self.run()
        assert done.returncode == 0, done.stderr
        self.expected = self.found()


class ChoreTrial:
    """One cell."""

    def __init__(self, cell: Cell, chore: Chore) -> None:
        self.fault, self.chore = cell.fault, chore
        self.step = STEPS[cell.fault.step]
        self.tried = Tried(str(cell), self.step.name, how_of(cell.fault))

    def run(self) -> Tried:
        """Try it; whatever goes wrong is a problem of the cell."""
        started = time.monotonic()
        try:
            self.chore.begin()
            self._strike()
        except (AssertionError, TimeoutError, OSError, subprocess.SubprocessError, ValueError) as err:
            self.tried.problems.append(f"{type(err).__name__}: {err}")
        self.tried.seconds = round(time.monotonic() - started, 1)
        return self.tried

    def _strike(self) -> None:
        with self.chore.faults.armed(self.fault) as struck:
            said, code = self._run_struck(struck)
        self.tried.end = "identical" if code == 0 else "stated"
        if code > 0:
            self._check_stated(said)
        if code != 0:
            self.tried.helped = ["run again"]
            done = self.chore.run()
            if done.returncode not in self.chore.again_codes:
                self.tried.problems.append(f"run again: exit {done.returncode}: {done.stderr[-300:]}")
        self.tried.problems += self.chore.differences(self.step)
        self.tried.problems += self.chore.problems()

    def _check_stated(self, said: str) -> None:
        if self.step.stated is None or not re.search(self.step.stated, said) or "Traceback" in said:
            self.tried.problems.append(f"not a stated error: {said.strip()[-500:]!r}")

    def _run_struck(self, struck: Struck) -> tuple[str, int]:
        """Run the command until it has ended; returns what it said, and its exit code."""
        log = self.chore.folder / "command.log"
        freeze = self._outlast if self.fault.action == "freeze" else None
        return run_struck(lambda: self.chore.start(log), log, struck, freeze)

    def _outlast(self, struck: Struck) -> None:
        """Freeze a process for longer than the lease of its chore."""
        with self.chore.while_frozen():
            struck.outlast(self.chore.lease_s)
