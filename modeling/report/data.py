"""The data report for the page: what the images are, what is wrong with them, how many each class has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_OPEN_CLASSES = 20  # the rest is folded away
_MOST_CLASSES = 1000
_MOST_LISTED = 40  # findings, unreadable images, sets of duplicates; the JSON holds more
_MOST_COPIES = 4  # named of a set
_SEVERITIES = {"error": "error", "warning": "warning", "info": "note"}
_NUMBERS = {
    "num_images": "images",
    "num_unreadable": "unreadable",
    "num_extra_copies": "extra copies",
    "num_leaked": "left out as copies of test images",
    "num_turned": "turned by their camera",
    "num_grey": "without colour",
    "num_ignored": "other files",
}
_DETAILS = {
    "path": "folder or file",
    "kind": "kind",
    "parts": "parts it came with",
    "formats": "formats",
    "modes": "modes",
    "sizes": "sizes in pixels",
    "error_codes": "why unreadable",
}


@dataclass(frozen=True, slots=True)
class FindingText:
    """A finding's message; `word` names its severity on the page."""

    severity: str
    word: str
    message: str


@dataclass(frozen=True, slots=True)
class ClassCount:
    """Images of a class, as a share of all and in relation to the largest class."""

    label: str
    num_images: int
    share: float
    of_largest: float


@dataclass(frozen=True, slots=True)
class Copies:
    """A set of copies: the first names, how many more there are, `exact` or `near`, and the classes they are in."""

    names: Sequence[str]
    num_more: int
    kind: str
    labels: Sequence[str]


@dataclass(frozen=True, slots=True)
class DataSummary:
    """What the page shows of a data report; each list is cut, and `num_more_*` says by how many.

    numbers: value and words. unreadable: path and message. details: name and value.
    """

    numbers: Sequence[tuple[int, str]]
    findings: Sequence[FindingText]
    num_more_findings: int
    num_classes: int
    open_classes: Sequence[ClassCount]
    folded_classes: Sequence[ClassCount]
    num_more_classes: int
    num_sets: int
    copies: Sequence[Copies]
    num_more_sets: int
    unreadable: Sequence[tuple[str, str]]
    num_more_unreadable: int
    details: Sequence[tuple[str, str]]


def summarise_data(report: Mapping[str, Any]) -> DataSummary:
    """The numbers, findings and classes of a `DataReport.to_json()`, as far as it has them."""
    findings, classes = _findings(report.get("findings") or ()), _classes(report.get("classes") or {})
    copies = _copies(report.get("duplicates") or ())
    num_sets = max(sum(report.get(f"num_{kind}_duplicate_sets") or 0 for kind in ("exact", "near")), len(copies))
    images = report.get("unreadable") or ()
    unreadable = [(str(image.get("path", "")), str(image.get("message", ""))) for image in images]
    num_unreadable = max(report.get("num_unreadable") or 0, len(unreadable))
    shown_classes = classes[:_MOST_CLASSES]
    return DataSummary(
        numbers=_numbers(report),
        findings=findings[:_MOST_LISTED],
        num_more_findings=_rest(len(findings)),
        num_classes=len(classes),
        open_classes=shown_classes[:_OPEN_CLASSES],
        folded_classes=shown_classes[_OPEN_CLASSES:],
        num_more_classes=_rest(len(classes), _MOST_CLASSES),
        num_sets=num_sets,
        copies=copies[:_MOST_LISTED],
        num_more_sets=_rest(num_sets),
        unreadable=unreadable[:_MOST_LISTED],
        num_more_unreadable=_rest(num_unreadable),
        details=[(words, value) for key, words in _DETAILS.items() if (value := _on_one_line(report.get(key)))],
    )


def _numbers(report: Mapping[str, Any]) -> list[tuple[int, str]]:
    """The counts; zeros are left out, as they are no news."""
    shown = [(report[key], words) for key, words in _NUMBERS.items() if report.get(key)]
    if classes := report.get("classes"):
        shown.insert(1, (len(classes), "classes"))
    return shown


def _findings(findings: Sequence[Mapping[str, Any]]) -> list[FindingText]:
    """The findings, the most severe first."""
    order = list(_SEVERITIES)
    ordered = sorted(findings, key=lambda finding: order.index(_severity(finding)))
    return [
        FindingText(_severity(finding), _SEVERITIES[_severity(finding)], str(finding.get("message", "")))
        for finding in ordered
    ]


def _severity(finding: Mapping[str, Any]) -> str:
    severity = str(finding.get("severity"))
    return severity if severity in _SEVERITIES else "info"


def _classes(classes: Mapping[str, int]) -> list[ClassCount]:
    """Images of each class, the largest first."""
    if not classes:
        return []
    pairs = sorted(classes.items(), key=lambda pair: (-pair[1], pair[0]))
    largest, total = max(pairs[0][1], 1), max(sum(classes.values()), 1)
    return [ClassCount(label, number, number / total, number / largest) for label, number in pairs]


def _copies(sets: Sequence[Mapping[str, Any]]) -> list[Copies]:
    """Sets of copies; those in several classes first, as one of their labels is wrong."""
    ordered = sorted(sets, key=lambda found: -len(found.get("labels", ())))
    return [
        Copies(
            names=[str(name) for name in found.get("images", ())[:_MOST_COPIES]],
            num_more=_rest(len(found.get("images", ())), _MOST_COPIES),
            kind="exact" if found.get("exact") else "near",
            labels=[str(label) for label in found.get("labels", ())],
        )
        for found in ordered
    ]


def _on_one_line(value: Any) -> str:
    """A value in a line; what is nested deeper is left out."""
    if not isinstance(value, Mapping):
        return "" if value is None else str(value)
    flat = [(str(key), each) for key, each in value.items() if isinstance(each, int | float | str)]
    named = [(key.removeprefix("num_").replace("_", " "), each) for key, each in flat]
    return ", ".join(f"{name} {each:,}" if isinstance(each, int) else f"{name} {each}" for name, each in named)


def _rest(number: int, shown: int = _MOST_LISTED) -> int:
    """How many more there are than the page shows."""
    return max(number - shown, 0)
