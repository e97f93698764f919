"""The rows of two manifests, matched by path: in step as long as their order is the same, then by a table on the disk.

SQLite keeps the table: memory is that of its cache, however many rows there are and in whatever order.
"""

import contextlib
import json
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Self

from orchestrator.contract.errors import PigeonholeError
from orchestrator.contract.jobs.rows import SCORE_DIGITS, Row

_CACHE_KIB = 8_192
_TABLE = f"""
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -{_CACHE_KIB};
CREATE TABLE later (path BLOB, nth INTEGER, answer TEXT, PRIMARY KEY (path, nth)) WITHOUT ROWID;
"""
_INSERT = "INSERT OR IGNORE INTO later VALUES (?, 0, ?)"
_INSERT_AGAIN = "INSERT INTO later SELECT path, max(nth) + 1, ?2 FROM later WHERE path = ?1"
_TAKE = """
DELETE FROM later WHERE path = ?1 AND nth = (SELECT min(nth) FROM later WHERE path = ?1) RETURNING answer
"""
_REST = "SELECT path, answer FROM later ORDER BY path, nth"


@dataclass(frozen=True, slots=True)
class Answer:
    """What is compared of a row. label and score: None in an error row."""

    label: str | None
    score: float | None
    decision: str | None
    error_code: str | None

    @classmethod
    def of(cls, row: Row) -> Self:
        """The row's; the score as a manifest of any format has it."""
        prediction = row.prediction
        if not prediction.ok:
            return cls(None, None, prediction.decision, prediction.error_code)
        return cls(prediction.labels[0], round(prediction.scores[0], SCORE_DIGITS), prediction.decision, None)


Pair = tuple[str, Answer | None, Answer | None]
"""A path, its answer in the first manifest and that in the second; None where that has no such row."""


def match_rows(before: Iterable[Row], after: Iterable[Row], scratch: Path) -> Iterator[Pair]:
    """Every row of both, once: in the order of the first manifest, then what only the second has, sorted by path.

    A path that is listed several times: its first row is matched with the first one, and so on. scratch: a folder for
    the table.

    Raises:
        PigeonholeError: the table cannot be written.
    """
    earlier, later = iter(before), iter(after)
    for row in earlier:
        other = next(later, None)
        if other is None:
            yield from ((rest.path, Answer.of(rest), None) for rest in chain([row], earlier))
            return
        if row.path != other.path:
            yield from _match_by_table(chain([row], earlier), chain([other], later), scratch)
            return
        yield row.path, Answer.of(row), Answer.of(other)
    yield from ((rest.path, None, Answer.of(rest)) for rest in later)


def _match_by_table(earlier: Iterable[Row], later: Iterable[Row], scratch: Path) -> Iterator[Pair]:
    try:
        with contextlib.closing(_unnamed_table(scratch)) as table:
            table.execute("BEGIN")
            for row in later:
                _insert(table, row)
            for row in earlier:
                found = table.execute(_TAKE, (_key(row.path),)).fetchall()
                yield row.path, Answer.of(row), _unpacked(found[0][0]) if found else None
            for key, answer in table.execute(_REST):
                yield key.decode("utf-8", "surrogatepass"), None, _unpacked(answer)
    except sqlite3.Error as err:
        raise PigeonholeError(f"the rows cannot be matched in {str(scratch)!r}: {err}") from err


def _unnamed_table(scratch: Path) -> sqlite3.Connection:
    """An empty table whose file has no name any more: however this process ends, nothing of it is left."""
    with tempfile.TemporaryDirectory(dir=scratch, prefix="diff-") as folder:
        table = sqlite3.connect(Path(folder) / "rows", isolation_level=None)
        table.executescript(_TABLE)
    return table


def _insert(table: sqlite3.Connection, row: Row) -> None:
    values = (_key(row.path), _packed(Answer.of(row)))
    if table.execute(_INSERT, values).rowcount == 0:
        table.execute(_INSERT_AGAIN, values)


def _key(path: str) -> bytes:
    return path.encode("utf-8", "surrogatepass")  # names need not be UTF-8


def _packed(answer: Answer) -> str:
    return json.dumps((answer.label, answer.score, answer.decision, answer.error_code))


def _unpacked(text: str) -> Answer:
    return Answer(*json.loads(text))
