"""Splits a data set into training, validation and test images.

Own code, not scikit-learn: a split must repeat to the bit on every processor and with every version of a library.
"""

# Shapes: N images.
import csv
import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from modeling.data.dataset import FREE, PART_NAMES, TEST, TRAIN, VALIDATION, Dataset, Targets
from modeling.data.report import DataReport
from modeling.durable import replace_durably
from modeling.errors import DataError
from modeling.names import from_cell, text_to_cell, to_cell, unescape_formula

_COLUMNS = ("name", "label", "part", "sha256", "group")
UNREADABLE, LEAKED, LOST = "unreadable", "leaked", "lost"


def _no_indices() -> Targets:
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Indices of the images in each part, ascending.

    unreadable: images that cannot be decoded; they are in no part.
    leaked: images in no part because they are duplicates of an official test or validation image.
    lost: images that were in a part, and that the training could not read again (modeling.data.lost).
    """

    train: Targets
    validation: Targets
    test: Targets
    unreadable: Targets = field(default_factory=_no_indices)
    leaked: Targets = field(default_factory=_no_indices)
    lost: Targets = field(default_factory=_no_indices)


class SplitRow(NamedTuple):
    """One image in the split: `part` is train, validation, test, unreadable, leaked or lost."""

    name: str
    label: str
    part: str
    sha256: str
    group: int


def split_dataset(dataset: Dataset, report: DataReport, *, seed: int, validation: float, test: float) -> Split:
    """A seeded, stratified split that keeps duplicates in the same part.

    Official parts are kept: a test part is created only if there are no official parts, and a validation part is taken
    from training if there is no official one. A class always keeps an image for training; with at least two groups of
    duplicates it has one for validation, with at least three also one for the test (if those shares are above 0).

    The split depends on the seed and on the content of the images, not on their names or their order.

    Raises:
        DataError: no network can be trained on these data.
    """
    report.check_trainable()
    parts_N = np.full(dataset.num_images, TRAIN, dtype=np.int8)
    learnable_N = report.learnable_N
    shares = {TEST: test, VALIDATION: validation}
    if dataset.parts_N is not None:
        shares[TEST] = 0.0
        for part in (VALIDATION, TEST):
            parts_N[dataset.parts_N == part] = part
            if (dataset.parts_N == part).any():
                shares[part] = 0.0
    _hold_out(parts_N, _groups_by_class(dataset, report, learnable_N, seed), shares)
    _keep_every_class(parts_N, dataset.targets_N, report.groups_N, learnable_N)
    readable_N, leaked_N = report.readable_N, report.leaked_N
    parts_N[~readable_N | leaked_N] = FREE
    return Split(
        train=np.flatnonzero(parts_N == TRAIN),
        validation=np.flatnonzero(parts_N == VALIDATION),
        test=np.flatnonzero(parts_N == TEST),
        unreadable=np.flatnonzero(~readable_N),
        leaked=np.flatnonzero(leaked_N),
    )


def _groups_by_class(
    dataset: Dataset, report: DataReport, learnable_N: NDArray[np.bool_], seed: int
) -> list[list[Targets]]:
    """The groups of each class, in a seeded order; a group belongs to the class of most of its images."""
    members: dict[int, list[int]] = {}
    for index in np.flatnonzero(learnable_N).tolist():
        members.setdefault(int(report.groups_N[index]), []).append(index)
    ranked: list[list[tuple[str, Targets]]] = [[] for _ in dataset.labels]
    for indices in members.values():
        group = np.array(indices, dtype=np.int64)
        owner = int(
            dataset.targets_N[indices[0]] if len(indices) == 1 else np.bincount(dataset.targets_N[group]).argmax()
        )
        digest = min(report.digests[index] for index in indices)
        ranked[owner].append((hashlib.sha256(f"{seed} {digest}".encode()).hexdigest(), group))
    return [[group for _, group in sorted(groups, key=lambda pair: pair[0])] for groups in ranked]


def _hold_out(parts_N: NDArray[np.int8], classes: Iterable[list[Targets]], shares: dict[int, float]) -> None:
    """Move groups of each class from the training part to the test and validation parts."""
    for groups in classes:
        count = sum(len(group) for group in groups)
        num_test = min(_share(count, shares[TEST]), count - 1) if len(groups) >= 3 else 0
        num_validation = min(_share(count, shares[VALIDATION]), count - num_test - 1)
        left = groups
        for part, num_needed in ((TEST, num_test), (VALIDATION, num_validation)):
            taken, left = _choose_groups(left, num_needed)
            for group in taken:
                parts_N[group] = part


def _share(count: int, fraction: float) -> int:
    """The share of `count` as a number, at least 1; exact for the decimal fraction as written, unlike a float."""
    return max(1, round(count * Fraction(str(fraction)))) if fraction > 0 else 0


def _choose_groups(groups: list[Targets], num_needed: int) -> tuple[list[Targets], list[Targets]]:
    """Choose groups with `num_needed` images in total (the smallest group if none fits); at least one group is left."""
    taken: list[int] = []
    room = num_needed
    for number, group in enumerate(groups):
        if len(group) <= room and len(taken) < len(groups) - 1:
            taken.append(number)
            room -= len(group)
    if num_needed > 0 and not taken and len(groups) > 1:
        taken = [min(range(len(groups)), key=lambda number: len(groups[number]))]
    chosen = set(taken)
    return [groups[number] for number in taken], [group for i, group in enumerate(groups) if i not in chosen]


def _keep_every_class(
    parts_N: NDArray[np.int8], targets_N: Targets, groups_N: Targets, learnable_N: NDArray[np.bool_]
) -> None:
    """Return a group to training for each class without one, because its images are duplicates of other classes."""
    for target in np.unique(targets_N[learnable_N]):
        own = np.flatnonzero(learnable_N & (targets_N == target))
        if not (parts_N[own] == TRAIN).any():
            parts_N[learnable_N & (groups_N == groups_N[own[0]])] = TRAIN


def split_rows(dataset: Dataset, report: DataReport, split: Split) -> list[SplitRow]:
    """The row of every image, in the order of the data set."""
    parts = [""] * dataset.num_images
    chosen = (split.train, split.validation, split.test, split.unreadable, split.leaked, split.lost)
    for name, indices in zip((*PART_NAMES, UNREADABLE, LEAKED, LOST), chosen, strict=True):
        for index in indices.tolist():
            parts[index] = name
    return [
        SplitRow(dataset.name(index), dataset.labels[target], part, report.digests[index], int(report.groups_N[index]))
        for index, (target, part) in enumerate(zip(dataset.targets_N.tolist(), parts, strict=True))
    ]


def write_split(path: Path, dataset: Dataset, report: DataReport, split: Split) -> None:
    """Save a split as CSV with the columns name, label, part, sha256 and group, for `read_split`."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(_COLUMNS)
    for row in split_rows(dataset, report, split):
        writer.writerow((text_to_cell(row.name), to_cell(row.label), *row[2:]))
    replace_durably(path, text.getvalue().encode("utf-8", "backslashreplace"))


def read_split(path: Path) -> list[SplitRow]:
    """The reverse of `write_split`; a later evaluation recognises training images by their sha256.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
            if tuple(header) != _COLUMNS:
                raise DataError(
                    f"{path} is not a split: its columns are {', '.join(header)}, not {', '.join(_COLUMNS)}"
                )
            return [_row(path, cells) for cells in rows]
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as err:
        if isinstance(err, DataError):
            raise
        raise DataError(f"{path}: the split cannot be read ({err})") from err


def _row(path: Path, cells: Sequence[str]) -> SplitRow:
    if len(cells) != len(_COLUMNS):
        raise DataError(f"{path}: a row of {len(cells)} cells, not {len(_COLUMNS)}")
    name, label, part, sha256, group = cells
    return SplitRow(unescape_formula(name), from_cell(label), part, sha256, int(group))
