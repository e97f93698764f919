"""Images are sorted into folders, and that is undone."""

import os
import shutil

from benchmarks.steps.chore import Chore
from orchestrator.contract.errors import ExitCode
from orchestrator.sorting.words import Mode
from tests.support.sorting import OLD_NS, answered, failed, make_old, make_tree, snapshot
from tests.support.steps.compare import differences

ROWS = [
    answered("a.jpg", "cat"), answered("x/a.jpg", "cat"), answered("x/b.jpg", "dog"), answered("c.jpg", "CAT"),
    answered("=1+2.jpg", "dog"), failed("bad.jpg"), failed("gone.jpg", "missing"),
]  # fmt: skip


class Sort(Chore):
    """Images are sorted into folders, and all of that is undone at the end."""

    mode: Mode = "move"
    unreached = frozenset({"sort.confirm"})  # files that are renamed are not copied: there is nothing to confirm

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
    unreached = frozenset()


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
