"""Commands that make no job, while faults strike: sorting, undoing that, and a hot folder that pushes to a line."""

import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from benchmarks.steps.cells import Cell, cells_of
from benchmarks.steps.scenarios import PATIENCE_S
from benchmarks.steps.trial import Tried, how_of, run_struck
from orchestrator.contract.errors import ExitCode
from orchestrator.sorting.lines import Mode
from tests.support.hot_folders import Scans
from tests.support.line_worker import enter_line, line_worker, make_line
from tests.support.server import running_server
from tests.support.sorting import OLD_NS, answered, failed, make_old, make_tree, snapshot
from tests.support.steps.compare import differences
from tests.support.steps.faults import Faults, Struck
from tests.support.steps.table import STEPS
from tests.support.workers import COMMAND

NUM_FILES = 12
ROWS = [
    answered("a.jpg", "cat"), answered("x/a.jpg", "cat"), answered("x/b.jpg", "dog"), answered("c.jpg", "CAT"),
    answered("=1+2.jpg", "dog"), failed("bad.jpg"), failed("gone.jpg", "missing"),
]  # fmt: skip


class Chore(ABC):
    """A command that is struck again and again. expected: what an undisturbed run leaves."""

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


class Sort(Chore):
    """Images are sorted into folders, and all of that is undone at the end."""

    mode: Mode = "move"

    @property
    def arguments(self) -> tuple[str, ...]:
        tree = self.tree
        return ("results", "sort", str(tree.manifest), str(tree.target), "--by", "label", f"--{self.mode}")

    def begin(self) -> None:
        for place in (self.folder / "tree", self.folder / "home"):
            shutil.rmtree(place, ignore_errors=True)
        self.tree = make_tree(self.folder / "tree", ROWS, home=self.folder / "home")
        (self.tree.target / "CAT").mkdir(parents=True)
        (self.tree.target / "CAT" / "c.jpg").write_bytes(b"mine")
        make_old(self.tree.target)
        os.utime(self.tree.root.parent, ns=(OLD_NS, OLD_NS))
        self.before = snapshot(self.folder / "tree")

    def found(self) -> dict[str, bytes]:
        places = {"source": self.tree.root, "target": self.tree.target}
        return {
            f"{place}/{name}": repr((facts[0], facts[2])).encode()
            for place, folder in places.items()
            for name, facts in snapshot(folder).items()
            if name != ".pigeonhole-sort.jsonl"
        }

    def problems(self) -> list[str]:
        done = self.run("results", "unsort", str(self.tree.target))
        if done.returncode != 0:
            return [f"unsort: exit {done.returncode}: {done.stderr[-300:]}"]
        return self.not_as_before()

    def not_as_before(self) -> list[str]:
        """What differs from how it was before the sort, times included."""
        before, now = ({name: repr(facts).encode() for name, facts in each.items()} for each in (
            self.before, snapshot(self.folder / "tree")))  # fmt: skip
        records = [path.name for path in (self.folder / "home" / "sorts").glob("*")]
        return differences(before, now) + [f"record {name} is left" for name in records]


class SortCopy(Sort):
    """Images are copied into folders."""

    mode: Mode = "copy"


class Unsort(Sort):
    """A sort is undone."""

    again_codes = (ExitCode.OK, ExitCode.NOT_FOUND)  # nothing is left to undo

    @property
    def arguments(self) -> tuple[str, ...]:
        return ("results", "unsort", str(self.tree.target))

    def begin(self) -> None:
        super().begin()
        self.tree.sort(self.mode)

    def problems(self) -> list[str]:
        return self.not_as_before()


class HotFolder(Chore):
    """Files of a hot folder are pushed to a line, whose worker has no model."""

    lease_s = 1.5  # of owners: `CONSTANTS`

    def __init__(self, folder: Path, faults: Faults, url: str) -> None:
        super().__init__(folder, faults)
        self.environment["PIGEONHOLE_SERVER_URL"] = url
        self.url = url
        self.scans = Scans(folder / "scans")

    @property
    def arguments(self) -> tuple[str, ...]:
        return ("hotfolder", str(self.scans.path), "--line", "post", "--once", "--poll", "20ms")

    def begin(self) -> None:
        shutil.rmtree(self.scans.path, ignore_errors=True)
        (self.scans.path / "in").mkdir(parents=True)
        for number in range(NUM_FILES):
            self.scans.drop(f"{number:03}.jpg", b"bad" if number % 5 == 4 else b"image %d" % number)

    def found(self) -> dict[str, bytes]:
        found = {}
        for part in ("in", "working", "done", "error"):
            for name in self.scans.names(part):
                data = (
                    (self.scans.path / part / name).read_bytes() if (self.scans.path / part / name).is_file() else b""
                )
                found[f"{part}/{name}"] = self._without_names(data) if name.endswith(".json") else data
        return found

    @staticmethod
    def _without_names(sidecar: bytes) -> bytes:
        facts = json.loads(sidecar)
        return json.dumps({key: facts.get(key) for key in ("file", "bin", "reason", "label", "error")}).encode()

    def problems(self) -> list[str]:
        return [f"working/{name} is left" for name in self.scans.hidden("working")]

    @contextlib.contextmanager
    def while_frozen(self) -> Iterator[None]:
        """Another process works on the folder, and takes over."""
        other = self.start(self.folder / "other.log")
        try:
            yield
        finally:
            other.send_signal(signal.SIGTERM)
            other.wait(PATIENCE_S)


CONSTANTS = {"orchestrator.hot_folder.owners": {"LEASE_S": 1.5, "HEARTBEAT_S": 0.3},
             "orchestrator.hot_folder.run": {"HEARTBEAT_S": 0.3, "RECOVER_S": 0.2},
             "orchestrator.hot_folder.pushing": {"AGAIN_S": 0.2}}  # fmt: skip
CHORES: dict[str, tuple[str, Callable[..., Chore]]] = {
    "sort": ("sort", Sort), "sort-copy": ("sort", SortCopy), "unsort": ("unsort", Unsort),
    "hot_folder": ("hot_folder", HotFolder),
}  # fmt: skip


def chore_cells() -> list[Cell]:
    """The cells of all commands that make no job."""
    cells = [cell for name, (table, _) in CHORES.items() for cell in cells_of(name, table)]
    # Files that are renamed are not copied: there is nothing to confirm.
    return [cell for cell in cells if (cell.scenario, cell.fault.step) != ("sort", "sort.confirm")]


def run_chores(cells: Iterable[Cell], note: Callable[[Tried], None]) -> None:
    """Try the cells of commands that make no job, one after the other."""
    with tempfile.TemporaryDirectory(prefix="ph-chores-") as folder:
        faults = Faults(Path(folder) / "faults", CONSTANTS)
        for name, own in itertools.groupby(cells, key=lambda cell: cell.scenario):
            with open_chore(name, Path(tempfile.mkdtemp(dir=folder)), faults) as chore:
                for cell in own:
                    note(ChoreTrial(cell, chore).run())


@contextlib.contextmanager
def open_chore(name: str, folder: Path, faults: Faults) -> Iterator[Chore]:
    """A command that was run once, undisturbed."""
    _, kind = CHORES[name]
    with contextlib.ExitStack() as stack:
        if name == "hot_folder":
            server = stack.enter_context(running_server())
            enter_line(server.url, make_line())
            stack.enter_context(line_worker(server.url))
            chore = kind(folder, faults, server.url)
        else:
            chore = kind(folder, faults)
        chore.prepare()
        yield chore


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
        self.tried.problems += differences(self.chore.expected, self.chore.found())
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
