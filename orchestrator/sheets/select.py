"""Which rows of a manifest a sheet shows: the first ones that fit, in groups, a bounded number of them."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Literal, get_args

from orchestrator.contract.jobs.rows import Row
from orchestrator.jobs.where import Where

By = Literal["label", "decision"]
GROUPINGS: tuple[By, ...] = get_args(By)

_KEYS: dict[By, Callable[[Row], str]] = {
    "label": lambda row: row.prediction.labels[0] if row.prediction.ok else "",
    "decision": lambda row: row.prediction.decision or "",
}


@dataclass(frozen=True, slots=True)
class Group:
    """Rows with one label or decision: how many fit, and the first of them. name: empty where rows have none."""

    name: str
    num_fitting: int
    rows: list[Row]


@dataclass(frozen=True, slots=True)
class SheetRows:
    """What is shown. num_fitting: rows in all; those of groups that are left out count, too."""

    groups: list[Group]
    num_fitting: int
    num_groups: int

    @property
    def num_shown(self) -> int:
        return sum(len(group.rows) for group in self.groups)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The rows that a sheet is asked for. by: grouped by it."""

    where: Where | None
    by: By | None
    limit: int


def select(rows: Iterable[Row], num_rows: int, wanted: Wanted) -> SheetRows:
    """Read the rows, of which there are `num_rows`, and keep those that are shown."""
    if wanted.where is not None:
        rows = filter(wanted.where.fits, rows)
    if wanted.by is None:
        return _first(rows, num_rows, wanted)
    shares = _Shares(wanted.limit)
    key = _KEYS[wanted.by]
    for row in rows:
        shares.add(key(row), row)
    return shares.selection()


def _first(rows: Iterable[Row], num_rows: int, wanted: Wanted) -> SheetRows:
    """The first rows as one group; the rest is read only to be counted, and not at all where every row fits."""
    iterator = iter(rows)
    shown = list(islice(iterator, wanted.limit))
    num_fitting = num_rows if wanted.where is None else len(shown) + sum(1 for _ in iterator)
    return SheetRows([Group("", num_fitting, shown)] if shown else [], num_fitting, int(bool(shown)))


class _Shares:
    """The first rows of each group, together at most `limit`: the largest group gives up its last row for a smaller."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._counts: Counter[str] = Counter()
        self._kept: dict[str, list[Row]] = {}
        self._num_kept = 0
        self._most = 0  # rows of the largest group

    def add(self, name: str, row: Row) -> None:
        self._counts[name] += 1
        kept = self._kept.get(name, [])
        if len(kept) < self._counts[name] - 1:
            return  # it gave up a row before this one
        if self._num_kept == self._limit:
            if len(kept) + 1 >= self._most:
                return
            self._give_up_one()
        self._kept[name] = kept
        kept.append(row)
        self._num_kept += 1
        self._most = max(self._most, len(kept))

    def _give_up_one(self) -> None:
        largest = max(self._kept.values(), key=len)
        largest.pop()
        self._num_kept -= 1
        self._most = max(map(len, self._kept.values()))

    def selection(self) -> SheetRows:
        """The groups, the most frequent first."""
        groups = [Group(name, self._counts[name], kept) for name, kept in self._kept.items() if kept]
        groups.sort(key=lambda group: (-group.num_fitting, group.name))
        return SheetRows(groups, self._counts.total(), len(self._counts))
