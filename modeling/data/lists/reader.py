"""The one reader of lists, for training and for classifying: CSV, JSON lines and JSON; plain lists and manifests.

Rows are read one after another: a list of millions of lines costs the memory of one.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from modeling.data.lists.columns import COLUMNS, PATH_NAMES, ColumnError, find_columns, is_manifest_like
from modeling.data.lists.json_rows import Float, Integer, read_json, read_json_lines
from modeling.data.lists.table import read_table
from modeling.errors import DataError
from modeling.names import from_cell, path_to_text, text_to_path

TABLE_SUFFIXES = frozenset({".csv", ".tsv"})
JSON_LINES_SUFFIXES = frozenset({".jsonl", ".ndjson"})
LIST_SUFFIXES = TABLE_SUFFIXES | JSON_LINES_SUFFIXES | {".json"}
EXPECTED = "expected columns path,label (and part, if the parts are given), or those of a manifest"
ALL_COLUMNS = frozenset(COLUMNS)

_STATUSES = ("ok", "error")  # of a row of a manifest
_ESCAPED = ("path", "label", "corrected_label")  # of a manifest
_MAY_BE_EMPTY = {"part"}

Fields = dict[str, str]
_Record = tuple[int, tuple[str, ...], list[Any]]


@dataclass(frozen=True, slots=True)
class ListFile:
    """An opened list.

    headings: as they are written; of the first row, where each has its own.
    is_manifest: whether `pigeonhole classify` wrote it; the escapes of its paths and labels are undone.
    rows: the number of each row (or its line), and those of its columns that are wanted and not absent.
    """

    path: Path
    headings: tuple[str, ...]
    is_manifest: bool
    rows: Iterator[tuple[int, Fields]]

    def place(self, number: int) -> str:
        """Where a row stands, for errors."""
        return _place(self.path, number)


def open_list_file(path: Path, wanted: frozenset[str] = ALL_COLUMNS) -> ListFile:
    """Open the list at `path` by its suffix, and read its first row.

    Raises:
        DataError: the file cannot be read, is not a list, or has no column for paths; reading its rows raises it, too.
    """
    records, headings, heading_line = _records(path)
    if not headings:
        return ListFile(path, (), is_manifest=False, rows=iter(()))
    place = _place(path, heading_line)
    if "path" not in _columns(headings, place, wanted):
        raise DataError(
            f"{place}: no column for paths ({', '.join(PATH_NAMES[:3])}, ...) among {_abbreviated(headings)}; "
            "add a heading"
        )
    first = next(records, None)
    records = chain([] if first is None else [first], records)
    is_manifest = is_manifest_like(headings) and (first is None or _status_of(first) in _STATUSES)
    read = partial(_fields, path=path, wanted=wanted, is_manifest=is_manifest)
    return ListFile(path, headings, is_manifest, map(read, records))


def manifest_root(path: Path) -> tuple[Path, bool]:
    """The folder that a manifest's paths are relative to, and whether its summary says so; else its own folder.

    Raises:
        DataError: the summary cannot be read, or names no folder.
    """
    summary = summary_of(path)
    if not summary.is_file():
        return path.absolute().parent, False
    try:
        facts = json.loads(summary.read_bytes())
    except (ValueError, RecursionError) as err:
        raise DataError(f"{summary}: not JSON ({err})") from err
    except OSError as err:
        raise DataError(f"{summary}: cannot be read ({err.strerror})") from err
    root = facts.get("root") if isinstance(facts, dict) else None
    if not isinstance(root, str) or not root:
        raise DataError(f"{summary} has no root, the folder that the paths of {path.name} are relative to")
    return Path(text_to_path(root)), True


def summary_of(path: Path) -> Path:
    """The summary beside a manifest."""
    return path.with_name(f"{path.name}.summary.json")


def _records(path: Path) -> tuple[Iterator[_Record], tuple[str, ...], int]:
    """The rows of a list with their headings, the first headings, and the line of these."""
    suffix = path.suffix.lower()
    if suffix in TABLE_SUFFIXES:
        table = read_table(path)
        line, cells = next(table, (1, []))
        headings = tuple(cells)
        return ((number, headings, row) for number, row in table), headings, line
    objects = read_json_lines(path) if suffix in JSON_LINES_SUFFIXES else read_json(path)
    first = next(objects, None)
    if first is None:
        return iter(()), (), 1
    return chain([first], objects), first[1], first[0]


def _columns(headings: tuple[str, ...], place: str, wanted: frozenset[str]) -> dict[str, int]:
    try:
        return dict(find_columns(headings, wanted))
    except ColumnError as err:
        raise DataError(f"{place}: {err}") from err


def _status_of(record: _Record) -> str:
    _, headings, cells = record
    position = find_columns(headings, frozenset({"status"})).get("status", -1)
    return str(cells[position]) if 0 <= position < len(cells) else ""


def _fields(record: _Record, *, path: Path, wanted: frozenset[str], is_manifest: bool) -> tuple[int, Fields]:
    """The wanted columns of a row as text."""
    number, headings, cells = record
    try:
        columns = find_columns(headings, wanted)
        fields = {
            column: _text(column, cells[position], is_manifest)
            for column, position in columns.items()
            if position < len(cells)
        }
    except ValueError as err:
        raise DataError(f"{_place(path, number)}: {err}") from err
    if is_manifest and path.suffix.lower() in TABLE_SUFFIXES:
        fields |= {column: from_cell(fields[column]) for column in _ESCAPED if column in fields}
    elif is_manifest and "path" in fields:
        fields["path"] = text_to_path(fields["path"])
    if not fields.get("path"):
        raise DataError(f"{_place(path, number)}: no path")
    return number, fields


def _text(column: str, value: Any, is_manifest: bool) -> str:
    """A value as text: a string as it is, an integer as it was written, and null where a row may be empty.

    Raises:
        ValueError: another value.
    """
    if type(value) is str:
        return value
    if value is None and column != "path" and (is_manifest or column in _MAY_BE_EMPTY):
        return ""
    if isinstance(value, Integer) and column != "path":
        return str(value)
    wanted = "a string" if column == "path" else "a string or an integer"
    raise ValueError(f"the {column} is {_shown(value)}, not {wanted}")


def _shown(value: Any) -> str:
    """A JSON value in words, as it was written."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    return str(value) if isinstance(value, Integer | Float) else json.dumps(value)


def _place(path: Path, number: int) -> str:
    return f"{path}, {'element' if path.suffix.lower() == '.json' else 'line'} {number}"


def _abbreviated(headings: tuple[str, ...], limit: int = 12, length: int = 40) -> str:
    """Headings as text that can always be printed; a file that is not a list may hold anything."""
    shown = [repr(path_to_text(heading[:length])) for heading in headings[:limit]]
    more = f" and {len(headings) - limit} more" if len(headings) > limit else ""
    return ", ".join(shown) + more
