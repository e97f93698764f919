"""Rows of a CSV: separated by commas, semicolons, tabs or bars, whichever its heading shows."""

import csv
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from modeling.data.lists.columns import PATH_NAMES, plain_name
from modeling.data.lists.text import Lines, open_text
from modeling.errors import DataError

Cells = tuple[int, list[str]]
"""The number of a row's first line, and its cells."""

_SEPARATORS = (",", ";", "\t", "|")
_DIRECTIVE = re.compile(r"\ufeff?\"?sep=(.)\"?\s*", re.IGNORECASE)  # the first line that Excel may write

csv.field_size_limit(1 << 30)  # for the whole process; `Lines` has a limit of its own


def read_table(path: Path) -> Iterator[Cells]:
    """The heading, then the rows; blank lines are passed over.

    Raises:
        DataError: the file cannot be read, or a line is not CSV or has more cells than the heading.
    """
    with open_text(path) as text:
        lines = Lines(text, path)
        heading, separator = _find_heading(lines, "\t" if path.suffix.lower() == ".tsv" else ",")
        number = lines.number
        reader = csv.reader(
            chain([heading] if heading else [], lines),
            delimiter=separator,
            skipinitialspace=_is_spaced(heading, separator),
            strict=True,  # else a quote that is not closed would swallow the rows after it
        )
        width = 0
        try:
            for cells in reader:
                lines.pending = 0
                width = width or len(cells)
                if len(cells) > width and any(map(str.strip, cells[width:])):
                    raise DataError(_too_many(f"{path}, line {number}", len(cells), width, separator))
                if any(map(str.strip, cells)):
                    yield number, cells
                number = lines.number + 1
        except csv.Error as err:
            raise DataError(f"{path}, line {number}: not CSV ({err}); a quote in a cell is written twice") from err


def _find_heading(lines: Lines, default: str) -> tuple[str, str]:
    """The first line that is not blank, and its separator; the line is empty where there is none."""
    directed = ""
    for line in lines:
        if found := _DIRECTIVE.fullmatch(line):
            directed = found[1]
            continue
        separator = directed or _separator_of(line, default)
        is_comment = line.startswith("#") and not _has_path(_cells(line, separator))
        if line.strip(' \t\r\n,;|"\ufeff') and not is_comment:
            return line, separator
    return "", default


def _separator_of(heading: str, default: str) -> str:
    """The separator by which a heading has a path column and the most cells."""
    ordered = sorted(_SEPARATORS, key=lambda separator: separator != default)  # of equals, `max` takes the first
    return max(ordered, key=lambda separator: (_has_path(cells := _cells(heading, separator)), len(cells)))


def _cells(line: str, separator: str) -> list[str]:
    return next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])


def _has_path(headings: list[str]) -> bool:
    return any(plain_name(heading) in PATH_NAMES for heading in headings)


def _is_spaced(heading: str, separator: str) -> bool:
    """Whether a space follows each separator of a heading, so that it belongs to no cell."""
    return heading.count(separator) == heading.count(f"{separator} ") > 0


def _too_many(place: str, num_cells: int, width: int, separator: str) -> str:
    name = {"\t": "a tab", " ": "a space"}.get(separator, repr(separator))
    return (
        f"{place}: not {width} cells, as the heading has, but {num_cells}; a cell that holds {name} needs double quotes"
    )
