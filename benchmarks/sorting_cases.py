"""Small random trees with odd names that are sorted and unsorted while processes are stopped; each ends as it began."""

import contextlib
import os
import random
import shutil
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from orchestrator.contract.errors import NotFoundError
from orchestrator.contract.jobs.rows import Row
from orchestrator.sorting.words import By, Mode
from tests.support.sorting import OLD_NS, Tree, answered, failed, make_old, make_tree, snapshot
from tests.support.stopping import stopped_at

_NAMES = (
    "1.jpg", "2.jpg", "A.JPG", "a.jpg", "e\u0301.png", "\xe9.png", "line\nend.jpg", "a,b;c.jpg", "=1+1.jpg", "'q\".jpg",
    "end.", " lead.jpg", "trail ", "CON", "a:b.jpg", "n" * 255, "n" * 250 + ".jpg", "\U0001f426.jpg", "~1.jpg",
    "-x.jpg", os.fsdecode(b"caf\xe9.jpg"), os.fsdecode(b"\xff\xfe"), "\\x41.jpg", "\u202egpj.exe",
)  # fmt: skip
_FOLDERS = ("", "", "march/", "march/", "march/deep/", "A/", "a/", "new\nline/", os.fsdecode(b"\xe9/"))
_LABELS = (
    "cat",
    "CAT",
    "Cat",
    "dog",
    "..",
    "/",
    "CON",
    "",
    "a/b",
    "a_b",
    "l" * 300,
    "\xe9",
    "e\u0301",
    "_errors",
    ".x",
)
_DECISIONS = ("accept", "review", "reject")
_MODES: tuple[Mode, ...] = ("link", "copy", "move")
_BYS: tuple[By, ...] = ("label", "decision", "label,decision")


@dataclass
class Places:
    """Folders for trees: on two file systems where there are two."""

    folder: Path
    elsewhere: Path | None

    def clear(self) -> None:
        for place in (self.folder, self.elsewhere):
            if place is not None:
                shutil.rmtree(place, ignore_errors=True)
                place.mkdir(parents=True)


@dataclass
class Case:
    """A tree and how it is sorted; the same number gives the same case."""

    number: int
    places: Places
    rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.number)
        self.places.clear()
        self.mode = self.rng.choice(_MODES)
        self.by = self.rng.choice(_BYS)
        self.tree = self._make_tree()

    def _make_tree(self) -> Tree:
        rng = self.rng
        paths = {rng.choice(_FOLDERS) + rng.choice(_NAMES) for _ in range(rng.randint(1, 12))}
        rows = [self._row(path) for path in sorted(paths)]
        tree = make_tree(self.places.folder / "t", rows, name=rng.choice(("out.csv", "out.jsonl")), home=self._home)
        if self.places.elsewhere is not None and rng.random() < 0.4:
            tree.target = self.places.elsewhere / "sorted"
        if rng.random() < 0.5:
            self._fill(tree.target, rows)
        for folder in (tree.root.parent, tree.target.parent):
            os.utime(folder, ns=(OLD_NS, OLD_NS + 7))
        return tree

    @property
    def _home(self) -> Path:
        return self.places.folder / "home"

    def _row(self, path: str) -> Row:
        kind = self.rng.random()
        if kind < 0.1:
            return failed(path, self.rng.choice(("truncated", "empty")))
        if kind < 0.15:
            return failed(path, "missing")
        return answered(path, self.rng.choice(_LABELS), self.rng.choice(_DECISIONS))

    def _fill(self, target: Path, rows: list[Row]) -> None:
        """Put something of the user's where images may want to go."""
        target.mkdir()
        for name in self.rng.sample(("cat", "CAT", "dog", "accept", "review"), 3):
            kind = self.rng.random()
            if kind < 0.2:
                (target / name).symlink_to(self.places.folder)
            elif kind < 0.3:
                (target / name).write_text("a file")
            else:
                (target / name).mkdir()
                (target / name / Path(rows[0].path).name).write_text("mine")
        make_old(target)

    def all_there_is(self) -> dict[str, object]:
        parts = {"source": self.tree.root.parent, "target": self.tree.target.parent}
        return {f"{part} {name}": facts for part, folder in parts.items() for name, facts in snapshot(folder).items()}

    def contents(self) -> set[object]:
        """What the files hold, without their places."""
        return {facts[2] for facts in self.all_there_is().values() if facts[2]}  # type: ignore[index]


@dataclass
class Outcome:
    """cases: how many were run. stops: of sorts and unsorts. faults: each with the number of its case."""

    cases: int = 0
    stops: int = 0
    faults: list[tuple[int, str]] = field(default_factory=list)


Step = Callable[[Case, Callable[[], object]], bool]
"""Runs a sort or an unsort that may be stopped at a random moment; returns whether it was."""


def run_case(case: Case, step: Step, outcome: Outcome) -> None:
    """Sort and unsort, each stopped at random moments, then unsort whole; the tree must be as before."""
    before, contents = case.all_there_is(), case.contents()
    outcome.cases += 1
    for call in _calls(case):
        outcome.stops += step(case, call)
        if lost := {each for each in contents - case.contents() if isinstance(each, bytes)}:
            outcome.faults.append((case.number, f"lost for a moment: {lost}"))
    with contextlib.suppress(NotFoundError):  # it was undone
        if left := case.tree.unsort().left:
            outcome.faults.append((case.number, f"left: {left}"))
    now = case.all_there_is()
    if now != before:
        differing = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
        outcome.faults.append((case.number, f"not as before: {differing[:5]!a}"))


def _calls(case: Case) -> Iterator[Callable[[], object]]:
    """Sort; then, at random, sort on or unsort, up to three times."""
    sort = lambda: case.tree.sort(case.mode, case.by)  # noqa: E731
    yield sort
    for _ in range(case.rng.randint(0, 3)):
        yield case.rng.choice((sort, _unsort(case)))


def _unsort(case: Case) -> Callable[[], object]:
    def unsort() -> None:
        with contextlib.suppress(NotFoundError):
            case.tree.unsort()

    return unsort


def stop_at_a_change(case: Case, call: Callable[[], object]) -> bool:
    """Stop at one of the changes to the disk, in this process; nothing is synced, since processes die, not machines."""
    with mock.patch.object(os, "fsync", return_value=None), stopped_at(case.rng.randint(0, 160)) as stopper:
        call()
    return stopper.stopped


def kill_a_process(case: Case, call: Callable[[], object]) -> bool:
    """Run in a child process that is killed after a random time."""
    child = os.fork()
    if child == 0:
        _run_child(call)
    time.sleep(case.rng.random() ** 2 * 0.05)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, f"case {case.number} ended with {status}"
    return os.WIFSIGNALED(status)


def _run_child(call: Callable[[], object]) -> None:
    try:
        call()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
