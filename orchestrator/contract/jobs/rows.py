"""Manifest rows and the formats they are written in.

A part holds rows as the manifest will hold them, so that joining millions of them is copying bytes.
Nothing volatile goes into a row: the same images and the same model give the same bytes.
"""

import contextlib
import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Protocol, Self, cast

from modeling.inference.prediction import Prediction
from modeling.metrics.decisions import DECISIONS, Decision
from modeling.names import (
    csv_lines,
    escape_bytes,
    escape_formula,
    escape_unsafe,
    from_cell,
    path_to_text,
    text_to_cell,
    text_to_path,
    to_cell,
    unescape_formula,
)
from orchestrator.contract.errors import IntegrityError, UsageError
from orchestrator.contract.jobs.formats import Format

COLUMNS = ("path", "status", "decision", "label", "score", "top_k", "error_code", "error")
SCORE_DIGITS = 6

csv.field_size_limit(1 << 30)  # for the whole process; the default of 128 KiB is too small for --top-k 10000

_JSON = json.JSONEncoder(ensure_ascii=False)  # json.dumps makes one for every row
_OBEYED = re.compile("[\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")  # by terminals; JSON escapes those below
_NO_ANSWER = {"label": None, "score": None}  # of a row with an error, in JSON
_SCORE = f"%.{SCORE_DIGITS}f"
_TOP_K = re.compile(rf"(.*?):([0-9]\.[0-9]{{{SCORE_DIGITS}}})(?:;|\Z)", re.DOTALL)
_LIKE_A_SCORE = re.compile(rf"(:[0-9]\.[0-9]{{{SCORE_DIGITS}}});")  # a reader would end a label there
_LIKE_A_FORMULA = re.compile(r"(?![-+]?\d+(\.\d+)?\Z)[\"']*[-=+@\t\r]")  # but a label may be a number


@dataclass(frozen=True, slots=True)
class Row:
    """One image of a job: its path relative to the job's root, and its prediction."""

    path: str
    prediction: Prediction

    @classmethod
    def of(cls, path: str, prediction: Prediction, *, decides: bool) -> Self:
        """The row of an answer; decides: whether the model is calibrated: it rejects an image that failed."""
        return cls(path, replace(prediction, decision="reject") if decides and not prediction.ok else prediction)

    @property
    def status(self) -> str:
        """`ok` or `error`."""
        return "ok" if self.prediction.ok else "error"


class RowFormat(Protocol):
    """How rows become the bytes of a manifest: header, parts joined by the separator, footer."""

    separator: bytes

    def header(self, facts: Mapping[str, Any]) -> bytes:
        """The bytes before the first row; `facts` of the job are the same in every run."""

    def encode(self, rows: Iterable[Row]) -> bytes:
        """Rows of one part."""

    def footer(self) -> bytes:
        """The bytes after the last row."""

    def read(self, path: Path) -> Iterator[Row]:
        """All rows of a manifest, one after another, in constant memory. Raises IntegrityError."""
        with path.open("rb") as file:
            for _, row in self.read_on(file, path):
                yield row

    def read_on(self, file: BinaryIO, path: Path) -> Iterator[tuple[int, Row]]:
        """The rows from a place on, each with the offset where the next begins.

        file: the manifest at `path`, open at its start or where a row begins. Raises IntegrityError.
        """


class CsvFormat(RowFormat):
    """One line of text for each image; quoted by the csv module, UTF-8."""

    separator = b""

    def header(self, facts: Mapping[str, Any]) -> bytes:
        return (",".join(COLUMNS) + "\n").encode()

    def encode(self, rows: Iterable[Row]) -> bytes:
        return csv_lines(self._cells(row) for row in rows).encode("utf-8", "backslashreplace")

    def footer(self) -> bytes:
        return b""

    def read_on(self, file: BinaryIO, path: Path) -> Iterator[tuple[int, Row]]:
        lines = _CountedLines(file)
        reader = csv.reader(lines)
        with _damage_as_integrity_error(path):
            if lines.start == 0 and tuple(next(reader, ())) != COLUMNS:
                raise IntegrityError(f"{path} is not a manifest: its first line is not {','.join(COLUMNS)}")
            for cells in reader:
                if len(cells) != len(COLUMNS):
                    place = lines.place(reader.line_num)
                    raise IntegrityError(f"{path}, {place}: {len(cells)} cells, not {len(COLUMNS)}")
                try:
                    row = self._row(cells)
                except ValueError as err:
                    raise _no_row(path, lines.place(reader.line_num), err) from err
                yield lines.end, row

    def _cells(self, row: Row) -> list[str]:
        prediction = row.prediction
        path, decision = to_cell(row.path), prediction.decision or ""
        if prediction.error_code is not None:
            error = text_to_cell(prediction.error or "")
            return [path, "error", decision, "", "", "", prediction.error_code, error]
        scores = [_SCORE % score for score in prediction.scores]
        labels = [_in_top_k(label, index == 0) for index, label in enumerate(prediction.labels)]
        top_k = ";".join(map(":".join, zip(labels, scores, strict=True)))
        return [path, "ok", decision, _label_cell(prediction.labels[0]), scores[0], escape_formula(top_k), "", ""]

    def _row(self, cells: list[str]) -> Row:
        path, status, decision, label, score, top_k, error_code, error = cells
        if status == "ok":
            pairs = _TOP_K.findall(unescape_formula(top_k))
            if pairs and (label, score) != pairs[0]:  # as they are where nothing is escaped
                _check_cells(label, score, *pairs[0])
            labels, scores = zip(*pairs, strict=True) if pairs else ((), ())
            prediction = Prediction(
                tuple(map(_label_in_top_k, labels)), tuple(map(float, scores)), decision=_decision(decision or None)
            )
        else:
            _check_best((label, score), ("", ""))
            prediction = Prediction(
                error_code=error_code, error=unescape_formula(error), decision=_decision(decision or None)
            )
        return Row(from_cell(path), prediction)


class JsonlFormat(RowFormat):
    """One JSON object on each line."""

    separator = b""

    def header(self, facts: Mapping[str, Any]) -> bytes:
        return b""

    def encode(self, rows: Iterable[Row]) -> bytes:
        return "".join(_to_json(row) + "\n" for row in rows).encode("utf-8", "backslashreplace")

    def footer(self) -> bytes:
        return b""

    def read_on(self, file: BinaryIO, path: Path) -> Iterator[tuple[int, Row]]:
        lines = _CountedLines(file)
        with _damage_as_integrity_error(path):
            for number, line in enumerate(lines, start=1):
                yield lines.end, _from_json(line, path, lines.place(number))


class JsonFormat(RowFormat):
    """One document: the job's facts and a `predictions` array with one row on each line."""

    separator = b",\n"

    def header(self, facts: Mapping[str, Any]) -> bytes:
        opening = json.dumps(dict(facts), ensure_ascii=False, indent=2).removesuffix("\n}")
        return (opening + ',\n  "predictions": [\n').encode()

    def encode(self, rows: Iterable[Row]) -> bytes:
        return ",\n".join(map(_to_json, rows)).encode("utf-8", "backslashreplace")

    def footer(self) -> bytes:
        return b"\n  ]\n}\n"

    def read_on(self, file: BinaryIO, path: Path) -> Iterator[tuple[int, Row]]:
        lines = _CountedLines(file)
        numbered = enumerate(lines, start=1)
        with _damage_as_integrity_error(path):
            if lines.start == 0 and not any(line.rstrip() == '  "predictions": [' for _, line in numbered):
                raise IntegrityError(f"{path} is not a manifest: it has no predictions array")
            for number, line in numbered:
                if line.rstrip() == "  ]":
                    return
                if line.strip():  # empty: the only line of a manifest without rows
                    yield lines.end, _from_json(line.rstrip(",\r\n"), path, lines.place(number))
            raise IntegrityError(f"{path} ends in the middle of its predictions")


FORMATS: dict[str, RowFormat] = {"csv": CsvFormat(), "json": JsonFormat(), "jsonl": JsonlFormat()}


def format_of(path: Path) -> Format:
    """The format of a manifest, by the suffix of its name. Raises UsageError if no format has that suffix."""
    name = path.suffix.lower().removeprefix(".")
    if name not in FORMATS:
        raise UsageError(f"{path.name!r} does not end in one of .{', .'.join(FORMATS)}; choose one with --format")
    return cast(Format, name)


_label_cell = lru_cache(maxsize=1 << 16)(to_cell)  # a model has few labels, and a job has many rows
_label_in_top_k = lru_cache(maxsize=1 << 16)(text_to_path)


@lru_cache(maxsize=1 << 16)
def _in_top_k(label: str, is_first: bool) -> str:
    """A label in the cell `top_k`, so that what it holds is taken for neither a score nor, behind a `;`, a formula."""
    text = escape_unsafe(_LIKE_A_SCORE.sub(r"\1\\x3b", path_to_text(label)))
    return text if is_first or not _LIKE_A_FORMULA.match(text) else escape_bytes(text[0]) + text[1:]


def _check_cells(label: str, score: str, first: str, first_score: str) -> None:
    """Check the label and the score of an answer against the first pair of its top_k."""
    wanted = _label_cell(_label_in_top_k(first))
    if label != wanted or float(score or "nan") != float(first_score):  # a spreadsheet saves 0.750000 as 0.75
        _check_best((label, score), (wanted, first_score))


def _check_best(found: tuple[object, object], wanted: tuple[object, object]) -> None:
    """Raises ValueError where label and score are not those of top_k: somebody has changed one of them."""
    if found != wanted:
        raise ValueError(f"its label and score are {found!r}, the first of its top_k {wanted!r}")


class _CountedLines:
    """The lines of a file in UTF-8. start: the offset of the first one; end: that after the last one that was read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.start = self.end = file.tell()

    def __iter__(self) -> Iterator[str]:
        for line in self._file:
            self.end += len(line)
            yield line.decode()

    def place(self, number: int) -> str:
        """Where the line `number` is, from 1, for errors."""
        return f"line {number}" if self.start == 0 else f"line {number} from byte {self.start:,}"


@contextlib.contextmanager
def _damage_as_integrity_error(path: Path) -> Iterator[None]:
    """Raise an error of a decoder as an IntegrityError: the manifest is damaged."""
    try:
        yield
    except (csv.Error, ValueError) as err:
        raise IntegrityError(f"{path} is damaged: {err}") from err


def _decision(text: str | None) -> Decision | None:
    """The decision of a row, None where the model has no calibration.

    Raises ValueError if the text is not a decision.
    """
    if text is not None and text not in DECISIONS:
        raise ValueError(f"{text!r} is not a decision")
    return text


def _to_json(row: Row) -> str:
    """A row as one line of JSON with the keys of COLUMNS."""
    prediction = row.prediction
    top_k = [
        {"label": label, "score": round(score, SCORE_DIGITS)}
        for label, score in zip(prediction.labels, prediction.scores, strict=True)
    ]
    best = top_k[0] if top_k else _NO_ANSWER
    record = {
        "path": path_to_text(row.path),
        "status": row.status,
        "decision": prediction.decision,
        **best,
        "top_k": top_k,
        "error_code": prediction.error_code,
        "error": prediction.error,
    }
    text = _JSON.encode(record)
    return text if text.isascii() else _OBEYED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _from_json(line: str, path: Path, place: str) -> Row:
    """The row that `_to_json` wrote at `place` of `path`."""
    try:
        record = json.loads(line)  # not by pydantic: a line an image, of which there are millions
        top_k = record["top_k"]
        best = top_k[0] if top_k else _NO_ANSWER
        _check_best((record["label"], record["score"]), (best["label"], best["score"]))
        prediction = Prediction(
            tuple(pair["label"] for pair in top_k),
            tuple(pair["score"] for pair in top_k),
            record["error_code"],
            record["error"],
            _decision(record["decision"]),
        )
        return Row(text_to_path(record["path"]), prediction)
    except ValueError as err:
        raise _no_row(path, place, err) from err
    except (KeyError, TypeError) as err:
        raise _no_row(path, place, repr(err)) from err


def _no_row(path: Path, place: str, problem: object) -> IntegrityError:
    return IntegrityError(f"{path}, {place} is not a manifest row: {problem}")


SUMMARY_VERSION = 1


def summary_path(manifest: Path) -> Path:
    return manifest.with_name(manifest.name + ".summary.json")
