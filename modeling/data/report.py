"""The data report: the result of a scan, as JSON and as a list of images to check."""

# Shapes: N images.
import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from modeling.data.dataset import FREE, PART_NAMES, TEST, TRAIN, VALIDATION, Dataset, Finding, abbreviate
from modeling.data.duplicates import Duplicates
from modeling.data.facts import ImageFacts
from modeling.durable import replace_durably
from modeling.errors import DataError
from modeling.names import text_to_cell

MIN_SIDE = 8  # px; smaller images contain too little information
_MAX_LISTED = 200  # unreadable images, and sets of duplicates, listed in JSON; counts include all
_MAX_SIZES = 10
_QUARANTINE_COLUMNS = ("path", "label", "reason", "detail")


class Suspect(NamedTuple):
    """A row of the quarantine list: an image to check, with a reason code and details."""

    path: str
    label: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True, eq=False)
class DataReport:
    """The result of a scan.

    digests: sha256 of each image's bytes (of its pixels if the format stores pixels); empty if the file cannot be read.
    facts: of each image, without thumbnails; None if it cannot be decoded.
    errors: code and message of images that cannot be decoded, by index.
    duplicates: sets of images that show the same picture.
    groups_N: a number for each image, equal for duplicates; a split keeps a group together.
    look_alikes: indices of images that are too similar to detect near duplicates among them.
    flat: indices of images of a single colour.
    findings: sorted by severity.
    """

    dataset: Dataset
    digests: tuple[str, ...]
    facts: tuple[ImageFacts | None, ...]
    errors: Mapping[int, tuple[str, str]]
    duplicates: tuple[Duplicates, ...]
    groups_N: NDArray[np.int64]
    look_alikes: tuple[int, ...] = ()
    flat: tuple[int, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def readable_N(self) -> NDArray[np.bool_]:  # noqa: N802
        """Whether each image can be decoded."""
        readable_N = np.ones(self.dataset.num_images, dtype=bool)
        readable_N[list(self.errors)] = False
        return readable_N

    @property
    def leaked_N(self) -> NDArray[np.bool_]:  # noqa: N802
        """Whether each readable image outside the official test (or validation) part is a duplicate of one in it.

        A split excludes these: the network must not be trained on images that evaluate it.
        """
        leaked_N = np.zeros(self.dataset.num_images, dtype=bool)
        parts_N = self.dataset.parts_N
        if parts_N is None:
            return leaked_N
        for part in (TEST, VALIDATION):
            lower_N = parts_N < part  # train and free < validation < test
            held = self.groups_N[(parts_N == part) & self.readable_N]
            leaked_N |= lower_N & np.isin(self.groups_N, held)
        return leaked_N & self.readable_N

    @property
    def learnable_N(self) -> NDArray[np.bool_]:  # noqa: N802
        """Whether each image may be used for training, or be held out from the training images."""
        usable_N = self.readable_N & ~self.leaked_N
        return usable_N if self.dataset.parts_N is None else usable_N & (self.dataset.parts_N <= TRAIN)

    def check_trainable(self) -> None:
        """Raise an error if no network can be trained on the data.

        Raises:
            DataError: the message of the first finding that is an error.
        """
        for finding in self.findings:
            if finding.severity == "error":
                raise DataError(finding.message)

    def to_json(self) -> dict[str, Any]:
        """The report as a dict that JSON can hold; long lists are cut."""
        dataset, kinds = self.dataset, [fact for fact in self.facts if fact is not None]
        exact = [found for found in self.duplicates if found.exact]
        codes = Counter(code for code, _ in self.errors.values())
        return {
            "path": dataset.shown,
            "kind": dataset.kind,
            **({"sources": [asdict(source) for source in dataset.sources]} if dataset.sources else {}),
            "trainable": all(finding.severity != "error" for finding in self.findings),
            "num_images": dataset.num_images,
            "num_unreadable": len(self.errors),
            "num_ignored": dataset.num_ignored,
            "num_exact_duplicate_sets": len(exact),
            "num_near_duplicate_sets": len(self.duplicates) - len(exact),
            "num_extra_copies": sum(len(found.indices) - 1 for found in self.duplicates),
            "num_look_alikes": len(self.look_alikes),
            "num_leaked": int(self.leaked_N.sum()),
            "classes": self._class_counts(),
            "parts": self._part_counts(),
            "error_codes": dict(codes.most_common()),
            "formats": dict(Counter(fact.format for fact in kinds).most_common()),
            "modes": dict(Counter(fact.mode for fact in kinds).most_common()),
            "sizes": _sizes(kinds),
            "num_turned": sum(fact.orientation > 1 for fact in kinds),
            "num_grey": sum(fact.grey for fact in kinds),
            "findings": [asdict(finding) for finding in self.findings],
            "unreadable": [
                {"path": dataset.name(index), "code": code, "message": message}
                for index, (code, message) in list(self.errors.items())[:_MAX_LISTED]
            ],
            "duplicates": [self._duplicates_json(found) for found in self.duplicates[:_MAX_LISTED]],
        }

    def labels_of(self, found: Duplicates) -> tuple[str, ...]:
        """The classes of a set of duplicates, in order."""
        return tuple(self.dataset.labels[target] for target in sorted(set(self.dataset.targets_N[[*found.indices]])))

    def mixed_duplicates(self) -> list[Duplicates]:
        """The sets of duplicates that lie in several classes."""
        return [found for found in self.duplicates if len(self.labels_of(found)) > 1]

    def parts_of(self, found: Duplicates) -> tuple[int, ...]:
        """The official parts of a set of duplicates, in order; empty if the data set has none."""
        if self.dataset.parts_N is None:
            return ()
        return tuple(sorted({int(part) for part in self.dataset.parts_N[[*found.indices]]}))

    def quarantine(self) -> Iterator[Suspect]:
        """Images to check, in this order: unreadable, duplicates (also across classes or parts), tiny, one colour."""
        for index, (code, message) in self.errors.items():
            yield self._suspect(index, code, message)
        for found in self.duplicates:
            yield from self._suspect_copies(found)
        for index, fact in enumerate(self.facts):
            if fact is not None and min(fact.size) < MIN_SIDE:
                yield self._suspect(index, "tiny", f"{fact.size[0]} x {fact.size[1]} px")
        for index in self.flat:
            yield self._suspect(index, "single_colour", "it shows nothing but one colour")

    def write_quarantine(self, path: Path) -> int:
        """Write the list as CSV with the columns path, label, reason and detail; returns the number of rows."""
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerow(_QUARANTINE_COLUMNS)
        rows = [[text_to_cell(cell) for cell in suspect] for suspect in self.quarantine()]
        writer.writerows(rows)
        replace_durably(path, text.getvalue().encode("utf-8", "backslashreplace"))
        return len(rows)

    def _suspect(self, index: int, reason: str, detail: str) -> Suspect:
        label = self.dataset.labels[self.dataset.targets_N[index]]
        return Suspect(self.dataset.name(index), label, reason, detail)

    def _suspect_copies(self, found: Duplicates) -> Iterator[Suspect]:
        """All images of a set that spans several classes or parts; else all but the first."""
        kind = "duplicate" if found.exact else "near_duplicate"
        labels, parts = self.labels_of(found), self.parts_of(found)
        mixed = len(labels) > 1 or len(parts) > 1
        reason = f"{kind}_across_{'classes' if len(labels) > 1 else 'parts'}" if mixed else kind
        for index in found.indices if mixed else found.indices[1:]:
            others = [self.dataset.name(other) for other in found.indices if other != index]
            yield self._suspect(index, reason, f"the same picture as {abbreviate(others, 3)}")

    def _duplicates_json(self, found: Duplicates) -> dict[str, Any]:
        names = [self.dataset.name(index) for index in found.indices[:_MAX_LISTED]]
        parts = [_part_name(part) for part in self.parts_of(found)]
        return {"exact": found.exact, "labels": list(self.labels_of(found)), "parts": parts, "images": names}

    def _class_counts(self) -> dict[str, int]:
        """Readable images of each class."""
        counts = np.bincount(self.dataset.targets_N[self.readable_N], minlength=len(self.dataset.labels))
        return dict(zip(self.dataset.labels, counts.tolist(), strict=True))

    def _part_counts(self) -> dict[str, int]:
        """Readable images of each official part."""
        if self.dataset.parts_N is None:
            return {}
        counts = Counter(self.dataset.parts_N[self.readable_N].tolist())
        return {_part_name(part): counts[part] for part in sorted(counts)}


def _part_name(part: int) -> str:
    return "no part" if part == FREE else PART_NAMES[part]


def _sizes(facts: list[ImageFacts]) -> dict[str, Any]:
    """The smallest, median and largest image by its pixels, and the most common sizes, as `640 x 480`."""
    if not facts:
        return {}
    counts = Counter(fact.size for fact in facts)
    ordered = sorted((fact.size for fact in facts), key=lambda size: (size[0] * size[1], size))
    named = {"smallest": ordered[0], "median": ordered[len(ordered) // 2], "largest": ordered[-1]}
    return {
        **{name: _size(size) for name, size in named.items()},
        "num_distinct": len(counts),
        "most_common": {_size(size): count for size, count in counts.most_common(_MAX_SIZES)},
    }


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
