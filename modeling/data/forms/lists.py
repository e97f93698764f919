"""Opens a list of images with labels (CSV, JSON lines or JSON), or a manifest with corrected labels."""

# Shapes: N images.
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modeling.data.dataset import FREE, PART_NAMES, Dataset, Finding, abbreviate
from modeling.data.forms.layouts import part_of
from modeling.data.lists.advice import advise
from modeling.data.lists.faults import MISSING, PERMISSION, PathRoot, is_denied, is_file
from modeling.data.lists.reader import EXPECTED, ListFile, manifest_root, open_list_file, summary_of
from modeling.errors import DataError
from modeling.names import class_name, is_text, label_fault, path_to_text


@dataclass(frozen=True, slots=True)
class _Entry:
    """A used row: its number in the list, and the image's path as given, label and official part.

    corrected: whether a person gave the label, in a manifest.
    """

    number: int
    given: str
    path: Path
    label: str
    part: int
    corrected: bool = False


def open_list(path: Path) -> Dataset:
    """The images that a list names.

    Raises:
        DataError: the list cannot be read, rows contradict each other, or images are missing.
    """
    opened = open_list_file(path)
    if not opened.headings:
        raise DataError(f"{path} names no images; {EXPECTED}")
    if opened.is_manifest:
        root, has_summary = manifest_root(path)
        entries, findings = _manifest_entries(opened, root)
        hint = f"paths are relative to {_shown(root)}, by {summary_of(path).name}; fix or remove these rows"
        if not has_summary:
            hint = f"they are relative to the job's root, which {summary_of(path).name} would say"
    else:
        root = path.absolute().parent
        entries, findings = _list_entries(opened, root), []
        hint = f"paths are relative to the list's folder, {_shown(root)}; fix or remove these rows"
    return _dataset(opened, root, entries, findings, hint)


def _dataset(opened: ListFile, root: Path, entries: Sequence[_Entry], findings: list[Finding], hint: str) -> Dataset:
    path = opened.path
    kept, num_repeated = _without_repeats(opened, entries)
    _check_present(path, root, kept, hint)
    if num_repeated:
        findings.append(Finding("info", "repeated_rows", f"{num_repeated} rows repeat an image and count once"))
    findings += _outside(root, kept)
    labels = tuple(sorted({entry.label for entry in kept}))
    number = {label: target for target, label in enumerate(labels)}
    parts_N = np.array([entry.part for entry in kept], dtype=np.int8)
    return Dataset(
        kind="manifest" if opened.is_manifest else "list",
        path=path,
        labels=labels,
        targets_N=np.array([number[entry.label] for entry in kept], dtype=np.int64),
        files=tuple(entry.path for entry in kept),
        parts_N=parts_N if (parts_N != FREE).any() else None,
        root=root,
        findings=tuple(findings),
        corrected_N=np.array([entry.corrected for entry in kept], dtype=bool) if opened.is_manifest else None,
    )


def _list_entries(opened: ListFile, root: Path) -> list[_Entry]:
    entries = []
    for number, fields in opened.rows:
        place = opened.place(number)
        if "label" not in fields:
            shown = abbreviate(sorted(opened.headings), 12)
            raise DataError(f"{place}: no label; {opened.path} has the columns {shown}; {EXPECTED}")
        label, part = class_name(fields["label"]), fields.get("part", "").strip().lower()
        if not label:
            raise DataError(f"{place}: no label")
        part_number = part_of(part) if part else FREE
        if part_number is None:
            raise DataError(f"{place}: unknown part {part!r}; choose {', '.join(PART_NAMES)} or leave it empty")
        name = fields["path"]
        entries.append(_Entry(number, name, root / name, _checked_label(place, label), part_number))
    if not entries:
        raise DataError(f"{opened.path} names no images; {EXPECTED}")
    return entries


def _manifest_entries(opened: ListFile, root: Path) -> tuple[list[_Entry], list[Finding]]:
    """The used rows of a manifest: corrected ones, and those whose label the model accepted."""
    entries = []
    used: Counter[str] = Counter()
    for number, fields in opened.rows:
        corrected = class_name(fields.get("corrected_label", ""))
        reason = _why_used(fields.get("status", ""), fields.get("decision", ""), corrected)
        if reason == "unknown":
            raise DataError(
                f"{opened.place(number)}: the status is {fields.get('status', '')!r}, not ok or error, as rows of a "
                "manifest have it; give a corrected_label, or if this is not a manifest, rename its column status"
            )
        used[reason] += 1
        if reason in ("corrected", "model"):
            label = _checked_label(opened.place(number), corrected or class_name(fields.get("label", "")))
            entries.append(_Entry(number, fields["path"], root / fields["path"], label, FREE, bool(corrected)))
    message = (
        f"of {used.total():,} rows {used['corrected']:,} count with corrected_label and {used['model']:,} with the "
        f"model's own label; left out are {used['unsure']:,} of decision review or reject that nobody corrected, and "
        f"{used['error']:,} with an error"
    )
    return entries, [Finding("info", "manifest_rows", message)]


def _why_used(status: str, decision: str, corrected: str) -> str:
    """Why a row is used (`corrected`, `model`) or not (`unsure`, `error`, `unknown`)."""
    if corrected:
        return "corrected"
    if status != "ok":
        return "error" if status == "error" else "unknown"
    return "model" if decision in ("", "accept") else "unsure"


def _checked_label(place: str, label: str) -> str:
    if not is_text(label):
        raise DataError(f"{place}: the label {path_to_text(label)!r} is not UTF-8; save the list as UTF-8")
    if fault := label_fault([label]):
        raise DataError(f"{place}: {fault}")
    return label


def _without_repeats(opened: ListFile, entries: Sequence[_Entry]) -> tuple[list[_Entry], int]:
    """Each image once, and the number of repeated rows; contradictory rows are an error."""
    first: dict[Path, _Entry] = {}
    for entry in entries:
        known = first.setdefault(entry.path, entry)
        if entry.label == known.label and entry.part == known.part:
            continue
        before, after = opened.place(known.number), opened.place(entry.number)
        if entry.label != known.label:
            labels = f"{known.label} in {before} and {entry.label} in {after}"
            raise DataError(f"{_shown(entry.path)} is labelled {labels}; keep one of them")
        raise DataError(f"{_shown(entry.path)} is in two parts, by {before} and {after}; keep one of them")
    return list(first.values()), len(entries) - len(first)


def _check_present(path: Path, root: Path, entries: Sequence[_Entry], hint: str) -> None:
    missing = [entry for entry in entries if not is_file(str(entry.path))]
    if missing:
        shown = ", ".join(_shown(entry.path) for entry in missing[:3])
        more = f" and {len(missing) - 3:,} more" if len(missing) > 3 else ""
        raise DataError(
            f"{path}: {len(missing):,} of {len(entries):,} images are missing: {shown}{more}; "
            f"{_advice(path, root, missing, hint)}"
        )
    if not entries:
        raise DataError(f"{path}: no row counts; a row needs a label of its own or a corrected_label")


def _advice(path: Path, root: Path, missing: Sequence[_Entry], hint: str) -> str:
    """What would cure it, if that is known."""
    paths = [entry.given for entry in missing]
    move = "put the list into {root!r}, or make its paths absolute"
    code = PERMISSION if is_denied(str(missing[0].path)) else MISSING
    found = advise(PathRoot(str(root), follow=True), paths, code, [], move)
    return found if "there are no such files" not in found else hint


def _outside(root: Path, entries: Iterable[_Entry]) -> list[Finding]:
    """Who gives a list to somebody chooses which of that person's files are read."""
    outside = [entry.path for entry in entries if not Path(os.path.normpath(entry.path)).is_relative_to(root)]
    if not outside:
        return []
    message = f"{len(outside):,} images lie outside of {_shown(root)}, such as {_shown(outside[0])}; reports show some"
    return [Finding("info", "outside_images", message)]


def _shown(path: Path) -> str:
    """A path as text that can always be printed."""
    return path_to_text(str(path)).encode("utf-8", "backslashreplace").decode()
