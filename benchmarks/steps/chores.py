"""Commands that make no job, while faults strike: sorting, hot folders, pushes, removals."""

import contextlib
import itertools
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from benchmarks.steps.cells import Cell, cells_of
from benchmarks.steps.chore import Chore, ChoreTrial
from benchmarks.steps.pushes import HotFolder, Push, PushAlone, PushLate, open_line_cluster
from benchmarks.steps.removals import Prune, Remove
from benchmarks.steps.sorts import Sort, SortCopy, Unsort
from benchmarks.steps.trial import Tried
from tests.support.line_worker import enter_line, line_worker, make_line
from tests.support.server import running_server
from tests.support.steps.faults import Faults

CONSTANTS: dict[str, dict[str, float]] = {"orchestrator.hot_folder.owners": {"LEASE_S": 1.5, "HEARTBEAT_S": 0.3},
             "orchestrator.hot_folder.run": {"HEARTBEAT_S": 0.3, "RECOVER_S": 0.2},
             "orchestrator.hot_folder.pushing": {"AGAIN_S": 0.2},
             "orchestrator.contract.lines.mover": {"_KEEPER_MS": 2000},
             "workers.vital_signs": {"FREE_DEATHS": 1000}}  # fmt: skip
CHORES: dict[str, tuple[str, type[Chore]]] = {
    "sort": ("sort", Sort), "sort-copy": ("sort", SortCopy), "unsort": ("unsort", Unsort),
    "hot_folder": ("hot_folder", HotFolder), "push": ("line", Push), "push-late": ("line", PushLate),
    "push-alone": ("line", PushAlone),
    "prune": ("prune", Prune), "remove": ("remove", Remove),
}  # fmt: skip


def chore_cells() -> list[Cell]:
    """The cells of all commands that make no job."""
    cells = [cell for name, (table, _) in CHORES.items() for cell in cells_of(name, table)]
    return [cell for cell in cells if cell.fault.step not in CHORES[cell.scenario][1].unreached]


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
        chore: Chore
        if issubclass(kind, Push):
            chore = kind(folder, faults, stack.enter_context(open_line_cluster(folder, faults)))
        elif kind is HotFolder:
            server = stack.enter_context(running_server())
            enter_line(server.url, make_line())
            stack.enter_context(line_worker(server.url))
            chore = HotFolder(folder, faults, server.url)
        else:
            chore = kind(folder, faults)
        chore.prepare()
        yield chore
