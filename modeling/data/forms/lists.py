"""Opens a list of images: CSV or JSONL with path and label, or a manifest with corrected labels."""

# Shapes: N images.
import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modeling.data.dataset import FREE, PART_NAMES, Dataset, Finding, abbreviate
from modeling.data.forms.folders import PART_FOLDERS
from modeling.errors import DataError
from modeling.names import is_text, path_to_text, text_to_path, unescape_formula

LIST_SUFFIXES = frozenset({".csv", ".jsonl", ".json"})
_EXPECTED = "expected columns path,label (and part, if the parts are given), or those of a manifest"
_MANIFEST_COLUMNS = {"path", "status", "label"}
_MAX_CELL = 1 << 30  # bytes; a manifest of many labels has long cells

Record = tuple[str, Mapping[str, Any]]
"""Where a row stands ("labels.csv, line 3"), and its fields."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A used row: its location in the list, and the image's path, label and official part."""

    place: str
    path: Path
    label: str
    part: int


def open_list(path: Path) -> Dataset:
    """The images that a list names.

    Raises:
        DataError: the list cannot be read, rows contradict each other, or images are missing.
    """
    records = _read_records(path)
    if not records:
        raise DataError(f"{path} names no images; {_EXPECTED}")
    columns = set(records[0][1])
    if columns >= _MANIFEST_COLUMNS:
        root, has_summary = _manifest_root(path)
        entries, findings = _manifest_entries(records, root, quoted=path.suffix.lower() == ".csv")
        hint = f"paths are relative to {_shown(root)}, by {_summary(path).name}; fix or remove these rows"
        if not has_summary:
            hint = f"they are relative to the job's root, which {_summary(path).name} would say"
        return _dataset("manifest", path, root, entries, findings, hint)
    if not columns >= {"path", "label"} or path.suffix.lower() == ".json":
        raise DataError(f"{path} has the columns {abbreviate(sorted(map(str, columns)), 12)}; {_EXPECTED}")
    root = path.absolute().parent
    hint = f"paths are relative to the list's folder, {_shown(root)}; fix or remove these rows"
    return _dataset("list", path, root, [_list_entry(root, *record) for record in records], [], hint)


def _dataset(
    kind: str, path: Path, root: Path, entries: Sequence[_Entry], findings: list[Finding], hint: str
) -> Dataset:
    kept, num_repeated = _without_repeats(entries)
    _check_present(path, kept, hint)
    if num_repeated:
        findings.append(Finding("info", "repeated_rows", f"{num_repeated} rows repeat an image and count once"))
    labels = tuple(sorted({entry.label for entry in kept}))
    number = {label: target for target, label in enumerate(labels)}
    parts_N = np.array([entry.part for entry in kept], dtype=np.int8)
    return Dataset(
        kind="manifest" if kind == "manifest" else "list",
        path=path,
        labels=labels,
        targets_N=np.array([number[entry.label] for entry in kept], dtype=np.int64),
        files=tuple(entry.path for entry in kept),
        parts_N=parts_N if (parts_N != FREE).any() else None,
        root=root,
        findings=tuple(findings),
    )


def _list_entry(root: Path, place: str, fields: Mapping[str, Any]) -> _Entry:
    name, label, part = _text(fields, "path"), _text(fields, "label").strip(), _text(fields, "part").strip().lower()
    if not name or not label:
        raise DataError(f"{place}: no {'label' if name else 'path'}")
    if part and part not in PART_FOLDERS:
        raise DataError(f"{place}: unknown part {part!r}; choose {', '.join(PART_NAMES)} or leave it empty")
    return _Entry(place, root / name, _checked_label(place, label), PART_FOLDERS[part] if part else FREE)


def _manifest_entries(records: Sequence[Record], root: Path, *, quoted: bool) -> tuple[list[_Entry], list[Finding]]:
    """The used rows of a manifest: corrected ones, and those whose label the model accepted."""
    entries = []
    used: Counter[str] = Counter()
    for place, fields in records:
        name, given, corrected = (_text(fields, key) for key in ("path", "label", "corrected_label"))
        if quoted:
            name, given, corrected = unescape_formula(name), unescape_formula(given), unescape_formula(corrected)
        corrected = corrected.strip()
        reason = _why_used(_text(fields, "status"), _text(fields, "decision"), corrected)
        used[reason] += 1
        if reason in ("corrected", "model"):
            label = _checked_label(place, corrected or given)
            entries.append(_Entry(place, root / text_to_path(name), label, FREE))
    message = (
        f"of {len(records):,} rows {used['corrected']:,} count with corrected_label and {used['model']:,} with the "
        f"model's own label; left out are {used['unsure']:,} of decision review or reject that nobody corrected, and "
        f"{used['error']:,} with an error"
    )
    return entries, [Finding("info", "manifest_rows", message)]


def _why_used(status: str, decision: str, corrected: str) -> str:
    """Why a row is used (`corrected`, `model`) or not (`unsure`, `error`)."""
    if corrected:
        return "corrected"
    if status != "ok":
        return "error"
    return "model" if decision in ("", "accept") else "unsure"


def _checked_label(place: str, label: str) -> str:
    if not label or not is_text(label):
        raise DataError(f"{place}: the label {path_to_text(label)!r} is {'not UTF-8' if label else 'empty'}")
    return label


def _text(fields: Mapping[str, Any], key: str) -> str:
    """A field as text; empty if it is absent or null."""
    value = fields.get(key)
    return "" if value is None else str(value)


def _without_repeats(entries: Sequence[_Entry]) -> tuple[list[_Entry], int]:
    """Each image once, and the number of repeated rows; contradictory rows are an error."""
    first: dict[Path, _Entry] = {}
    for entry in entries:
        known = first.setdefault(entry.path, entry)
        if entry.label != known.label:
            labels = f"{known.label} in {known.place} and {entry.label} in {entry.place}"
            raise DataError(f"{_shown(entry.path)} is labelled {labels}; keep one of them")
        if entry.part != known.part:
            raise DataError(
                f"{_shown(entry.path)} is in two parts, by {known.place} and {entry.place}; keep one of them"
            )
    return list(first.values()), len(entries) - len(first)


def _check_present(path: Path, entries: Sequence[_Entry], hint: str) -> None:
    missing = [_shown(entry.path) for entry in entries if not entry.path.is_file()]
    if missing:
        raise DataError(
            f"{path}: {len(missing):,} of {len(entries):,} images are missing: {abbreviate(missing, 3)}; {hint}"
        )
    if not entries:
        raise DataError(f"{path}: no row counts; a row needs a label of its own or a corrected_label")


def _shown(path: Path) -> str:
    """A path as text that can always be printed."""
    return path_to_text(str(path)).encode("utf-8", "backslashreplace").decode()


def _summary(path: Path) -> Path:
    return path.with_name(f"{path.name}.summary.json")


def _manifest_root(path: Path) -> tuple[Path, bool]:
    """The folder that a manifest's paths are relative to, and whether its summary says so; else its own folder."""
    summary = _summary(path)
    if not summary.is_file():
        return path.absolute().parent, False
    root = _parsed(str(summary), _read_text(summary)).get("root")
    if not isinstance(root, str) or not root:
        raise DataError(f"{summary} has no root, the folder that the paths of {path.name} are relative to")
    return Path(text_to_path(root)), True


def _read_records(path: Path) -> list[Record]:
    """Every row of a list, with the place where it stands."""
    text = _read_text(path)
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return list(_csv_records(path, text))
    if suffix == ".jsonl":
        lines = ((f"{path}, line {number}", line) for number, line in enumerate(text.split("\n"), start=1))
        return [(place, _parsed(place, line)) for place, line in lines if line.strip()]
    rows = _parsed(str(path), text).get("predictions")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path} is no manifest: it has no array predictions; a list of images is .csv or .jsonl")
    return [(f"{path}, prediction {number}", row) for number, row in enumerate(rows, start=1)]


def _read_text(path: Path) -> str:
    """The text of a list; bytes that are not UTF-8 survive, as they may be part of a file name."""
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            return file.read()
    except OSError as err:
        raise DataError(f"{path}: cannot be read ({err.strerror})") from err


def _csv_records(path: Path, text: str) -> Iterator[Record]:
    """Rows of a CSV, whose cells are parted by commas, or by semicolons as some spreadsheets do."""
    heading = text.partition("\n")[0]
    csv.field_size_limit(_MAX_CELL)
    reader = csv.DictReader(
        io.StringIO(text, newline=""), delimiter=";" if ";" in heading and "," not in heading else ","
    )
    try:
        for row in reader:
            place = f"{path}, line {reader.line_num}"
            if None in row or None in row.values():
                raise DataError(f"{place}: not {len(reader.fieldnames or ())} cells, as the first line has")
            yield place, row
    except csv.Error as err:
        raise DataError(f"{path}, line {reader.line_num}: {err}") from err


def _parsed(place: str, text: str) -> dict[str, Any]:
    """The JSON object that a text holds."""
    try:
        value = json.loads(text)  # not by pydantic: a line an image, of which there are millions
    except (ValueError, RecursionError) as err:
        raise DataError(f"{place}: not JSON ({err})") from err
    if not isinstance(value, dict):
        raise DataError(f"{place}: not a JSON object; {_EXPECTED}")
    return value
