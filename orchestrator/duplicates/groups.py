"""The groups of duplicates in a manifest: counted, one after another, and as CSV or JSON."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from modeling.data.duplicates import Grouping, members_of
from modeling.names import csv_lines, path_to_text, to_cell
from orchestrator.contract.jobs.rows import SCORE_DIGITS, Row
from orchestrator.jobs.results import Published
from orchestrator.jobs.row_images import row_at

Kind = Literal["exact", "near"]
COLUMNS = ("group", "kind", "path", "label", "score")
VERSION = 1


@dataclass(frozen=True, eq=False)
class Found:
    """Duplicates of a manifest. places: of the images' rows. errors: images that could not be read, by code."""

    places: NDArray[np.int64]
    grouping: Grouping
    errors: dict[str, int]

    def counts(self) -> dict[str, Any]:
        """What was found, in numbers; `num_redundant`: images beyond the first one of each group."""
        groups, exact = self.grouping.groups_N, self.grouping.exact_N
        sizes = np.bincount(groups, minlength=len(groups))  # at the first image of each group
        return {
            "num_images": len(self.places) + sum(self.errors.values()),
            "num_unreadable": sum(self.errors.values()),
            "unreadable": self.errors,
            "num_exact_groups": int(((sizes > 1) & exact).sum()),
            "num_near_groups": int(((sizes > 1) & ~exact).sum()),
            "num_redundant": int((sizes[sizes > 1] - 1).sum()),
            "num_look_alikes": int(self.grouping.alike_N.sum()),
        }


@dataclass(frozen=True)
class Group:
    """Images that show the same picture, in the order of the manifest; exact: all have the same bytes."""

    number: int
    kind: Kind
    rows: list[Row]

    def to_json(self) -> dict[str, Any]:
        return {"group": self.number, "kind": self.kind, "images": [_image(row) for row in self.rows]}


def groups_of(published: Published, file: BinaryIO, found: Found) -> Iterator[Group]:
    """The groups in the order of their first images; file: the manifest that they were found in."""
    for number, members in enumerate(members_of(found.grouping.groups_N), start=1):
        rows = [row_at(published, file, place) for place in found.places[members].tolist()]
        yield Group(number, "exact" if found.grouping.exact_N[members[0]] else "near", rows)


def write_groups(written: IO[bytes], suffix: str, published: Published, file: BinaryIO, found: Found) -> None:
    """Write all groups, in the format of that suffix."""
    if suffix.lower() == ".csv":
        _write_csv(written, groups_of(published, file, found))
    else:
        _write_json(written, describe(published, found), groups_of(published, file, found))


def groups_text(num: int) -> str:
    return f"{num:,} group{'' if num == 1 else 's'}"


def describe(published: Published, found: Found) -> dict[str, Any]:
    """The document of groups without its groups."""
    head = {"version": VERSION, "job": published.summary["job"], "manifest": path_to_text(str(published.manifest))}
    return head | found.counts()


def _write_csv(written: IO[bytes], groups: Iterator[Group]) -> None:
    written.write(csv_lines([COLUMNS]).encode())
    for group in groups:
        lines = csv_lines((group.number, group.kind, *_cells(row)) for row in group.rows)
        written.write(lines.encode("utf-8", "backslashreplace"))


def _cells(row: Row) -> tuple[str, str, str]:
    prediction = row.prediction
    if not prediction.ok:
        return to_cell(row.path), "", ""
    return to_cell(row.path), to_cell(prediction.labels[0]), f"{prediction.scores[0]:.{SCORE_DIGITS}f}"


def _write_json(written: IO[bytes], head: dict[str, Any], groups: Iterator[Group]) -> None:
    """One document, each group on a line of its own."""
    opening = json.dumps(head, indent=2, ensure_ascii=False).removesuffix("\n}")
    written.write((opening + ',\n  "groups": [').encode("utf-8", "backslashreplace"))
    separator = "\n"
    for group in groups:
        line = json.dumps(group.to_json(), ensure_ascii=False)
        written.write((separator + line).encode("utf-8", "backslashreplace"))
        separator = ",\n"
    written.write(b"\n  ]\n}\n")


def _image(row: Row) -> dict[str, Any]:
    prediction = row.prediction
    label, score = (prediction.labels[0], prediction.scores[0]) if prediction.ok else (None, None)
    return {"path": path_to_text(row.path), "label": label, "score": score and round(score, SCORE_DIGITS)}
