"""Arms faults for processes under test, and says what became of them. `tests/support/steps/__init__.py` says how."""

import contextlib
import itertools
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil

from tests.support.server import PATIENCE_S, wait_until
from tests.support.steps.injected import FOLDER_VARIABLE
from tests.support.steps.table import STEPS

Action = Literal["kill", "freeze", "error"]

SITECUSTOMIZE = "from tests.support.steps.injected import install\n\ninstall()\n"
ROOT = Path(__file__).resolve().parents[3]
# Leases that no setting shortens: a freeze that is longer than them takes seconds, not a minute. And they are renewed
# in jobs of less than a second, too. A resume that died is seen as such sooner.
SHORTER_LEASES: Mapping[str, Mapping[str, float]] = {
    "orchestrator.contract.ledger.ledger": {"FINALIZE_LEASE_S": 5.0, "LISTER_LEASE_S": 5.0},
    "workers.leases": {"RENEW_S": 0.05},
    "orchestrator.jobs.resume": {"MOMENT_S": 2.0},
}
LONGEST_LEASE_S = 5.0


@dataclass(frozen=True)
class Fault:
    """What happens at a step.

    before: before the call of the step, or after it; an error before it is an error of the call, one after it a lost
    answer. error: what is raised: an errno's name, or an exception's. times: how often. role: of the process; None: as
    the step has it.
    """

    step: str
    action: Action
    before: bool = True
    error: str = ""
    times: int = 1
    role: str | None = None

    def __str__(self) -> str:
        return f"{self.step}: {self.error or self.action} {'before' if self.before else 'after'}"


class Struck:
    """What became of an armed fault."""

    def __init__(self, log: Path, number: int) -> None:
        self._log, self._id = log, number

    def events(self, what: str = "struck") -> list[dict[str, Any]]:
        """Each time that the fault struck, or a process went on after a freeze: `pid` and `role` of the process."""
        if not self._log.exists():
            return []
        lines = (json.loads(line) for line in self._log.read_text().splitlines())
        return [line for line in lines if line["id"] == self._id and line["what"] == what]

    def __bool__(self) -> bool:
        return bool(self.events())

    def wait(self, *, timeout_s: float = PATIENCE_S) -> dict[str, Any]:
        """The first time it struck. Raises TimeoutError where it does not."""
        wait_until(lambda: self, what="the armed fault strikes", timeout_s=timeout_s)
        return self.events()[0]

    def thaw(self) -> None:
        """Let every process go on that the fault has frozen."""
        for event in self.events():
            with contextlib.suppress(ProcessLookupError):
                os.kill(event["pid"], signal.SIGCONT)

    def outlast(self, lease_s: float, *, or_until: Callable[[], bool] = lambda: False) -> None:
        """Wait until a process that the fault froze has been so for longer than its lease, then let it go on."""
        pid = self.wait()["pid"]
        wait_until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED, what="the process is frozen")
        end = time.monotonic() + 1.2 * lease_s
        wait_until(lambda: time.monotonic() > end or or_until(), what="the lease has run out", timeout_s=600)
        self.thaw()


@dataclass
class Faults:
    """The faults of one cluster, in a folder of their own.

    constants: values of modules that the processes under test have instead of their own.
    """

    folder: Path
    constants: Mapping[str, Mapping[str, float]] = field(default_factory=lambda: SHORTER_LEASES)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        (self.folder / "sitecustomize.py").write_text(SITECUSTOMIZE)
        calls = sorted({step.call for step in STEPS.values()})
        (self.folder / "calls.json").write_text(json.dumps({"calls": calls, "constants": self.constants}))

    def environment(self) -> dict[str, str]:
        """The variables of every process under test."""
        path = [str(self.folder), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {"PYTHONPATH": os.pathsep.join(path), FOLDER_VARIABLE: str(self.folder)}

    @contextlib.contextmanager
    def armed(self, fault: Fault) -> Iterator[Struck]:
        """The fault may strike in this block. Raises AssertionError where it has not."""
        number = next(self._numbers)
        step = STEPS[fault.step]
        record = asdict(step) | asdict(fault) | {"id": number, "role": fault.role or step.role}
        struck = Struck(self.folder / "log.jsonl", number)
        self._arm([record])
        try:
            yield struck
        finally:
            self._arm([])
            struck.thaw()
        assert struck, f"{fault}: the step was never reached"

    def _arm(self, records: list[dict[str, Any]]) -> None:
        temporary = self.folder / "arming.json"
        temporary.write_text(json.dumps(records))
        temporary.rename(self.folder / "armed.json")
