"""All rows that differ, as a file: CSV for spreadsheets and tables, or a line of JSON each."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

from modeling.names import csv_lines, text_to_cell, to_cell
from orchestrator.contract.errors import UsageError
from orchestrator.contract.jobs.rows import SCORE_DIGITS
from orchestrator.diff.differences import Change
from orchestrator.diff.match import Answer

_SIDES = ("label", "score", "decision", "error_code")
COLUMNS = ("path", "change", *(f"{name}_{side}" for side in ("before", "after") for name in _SIDES))


def check_suffix(output: Path) -> None:
    """Raises UsageError for a file whose name says no format."""
    if output.suffix.lower() not in _FORMATS:
        raise UsageError(f"output {str(output)!r} does not end in {' or '.join(_FORMATS)}")


def written(changes: Iterable[Change], output: Path, file: IO[bytes]) -> Iterator[Change]:
    """The changes, each written to `file` in the format that the name `output` says."""
    encode = _FORMATS[output.suffix.lower()]
    if encode is _csv_line:
        file.write(_line(COLUMNS))
    for change in changes:
        file.write(encode(change))
        yield change


def _csv_line(change: Change) -> bytes:
    return _line((to_cell(change.path), " ".join(change.kinds), *_cells(change.before), *_cells(change.after)))


def _line(cells: tuple[str, ...]) -> bytes:
    return csv_lines([cells]).encode("utf-8", "backslashreplace")


def _cells(answer: Answer | None) -> tuple[str, ...]:
    if answer is None:
        return ("",) * len(_SIDES)
    score = "" if answer.score is None else f"{answer.score:.{SCORE_DIGITS}f}"
    return to_cell(answer.label or ""), score, answer.decision or "", text_to_cell(answer.error_code or "")


def _json_line(change: Change) -> bytes:
    return (json.dumps(change.to_json()) + "\n").encode()


_FORMATS: dict[str, Callable[[Change], bytes]] = {".csv": _csv_line, ".jsonl": _json_line}
