"""The data report as a section: what the images are, what is wrong with them, how many each class has."""

from collections.abc import Mapping, Sequence
from typing import Any

from modeling.report.figures import count, percent
from modeling.report.html import Html, element, join, short
from modeling.report.section import Section, bar, table

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


def data_section(report: Mapping[str, Any]) -> Section:
    """Numbers, findings and classes of a `DataReport.to_json()`, as far as it has them."""
    lead = (
        "What the scan found before training, with nothing of yours changed. Settle errors and warnings first: better "
        "data improve a model more than longer training does."
    )
    pieces = [
        _numbers(report),
        _findings(report.get("findings") or ()),
        _classes(report.get("classes") or {}),
        _duplicates(report.get("duplicates") or (), _num_sets(report)),
        _unreadable(report.get("unreadable") or (), report.get("num_unreadable") or 0),
        _details(report),
    ]
    return Section("data", "The data", lead, join(pieces))


def _numbers(report: Mapping[str, Any]) -> Html | None:
    """The counts, large; zeros are left out, as they are no news."""
    shown = [(report[key], words) for key, words in _NUMBERS.items() if report.get(key)]
    if classes := report.get("classes"):
        shown.insert(1, (len(classes), "classes"))
    items = [element("li", element("b", f"{number:,}"), element("span", words)) for number, words in shown]
    return element("ul", *items, class_="numbers") if items else None


def _findings(findings: Sequence[Mapping[str, Any]]) -> Html:
    """What is worth knowing, the worst first."""
    order = list(_SEVERITIES)
    known = sorted(findings, key=lambda finding: order.index(_severity(finding)))
    items = [
        element(
            "li",
            element("span", _SEVERITIES[_severity(finding)], class_=f"severity {_severity(finding)}"),
            element("span", str(finding.get("message", ""))),
        )
        for finding in known[:_MOST_LISTED]
    ]
    heading = element("h3", "Findings")
    if not items:
        return join([heading, element("p", "Nothing to complain about.", class_="note")])
    return join([heading, element("ul", *items, class_="findings"), _rest(len(known), "finding")])


def _severity(finding: Mapping[str, Any]) -> str:
    severity = str(finding.get("severity"))
    return severity if severity in _SEVERITIES else "info"


def _classes(classes: Mapping[str, int]) -> Html | None:
    """Images of each class as bars, the largest first."""
    if not classes:
        return None
    pairs = sorted(classes.items(), key=lambda pair: (-pair[1], pair[0]))
    largest, total = max(pairs[0][1], 1), max(sum(classes.values()), 1)
    items = [
        element(
            "li",
            element("span", short(label, 26)),
            bar(number / largest),
            element("span", f"{number:,}", class_="number", title=percent(number / total)),
        )
        for label, number in pairs[:_MOST_CLASSES]
    ]
    folded = items[_OPEN_CLASSES:]
    heading = element("h3", f"Images in {count(len(pairs), 'class', 'classes')}")
    pieces = [heading, element("ul", *items[:_OPEN_CLASSES], class_="counts")]
    if folded:
        words = f"The {len(folded):,} smaller classes, down to {pairs[len(items) - 1][1]:,} images"
        pieces.append(_folded(words, element("ul", *folded, class_="counts")))
    return join([*pieces, _rest(len(pairs), "class", "classes", shown=_MOST_CLASSES)])


def _num_sets(report: Mapping[str, Any]) -> int:
    return sum(report.get(f"num_{kind}_duplicate_sets") or 0 for kind in ("exact", "near"))


def _duplicates(sets: Sequence[Mapping[str, Any]], num_sets: int) -> Html | None:
    """Sets of copies; those in several classes first, as one of their labels is wrong."""
    if not sets:
        return None
    ordered = sorted(sets, key=lambda found: -len(found.get("labels", ())))
    rows = []
    for found in ordered[:_MOST_LISTED]:
        images, labels = found.get("images", ()), found.get("labels", ())
        names = [element("span", short(str(name), 40), class_="line") for name in images[:_MOST_COPIES]]
        if len(images) > _MOST_COPIES:
            names.append(element("span", f"and {len(images) - _MOST_COPIES:,} more", class_="line key"))
        kind = "exact" if found.get("exact") else "near"
        mixed = element("b", ", ".join(map(str, labels)), class_="mixed") if len(labels) > 1 else ", ".join(labels)
        rows.append(element("tr", element("td", *names), element("td", kind), element("td", mixed)))
    head = [element("th", name, scope="col") for name in ("images that show the same", "copy", "class")]
    words = f"Copies: {count(max(num_sets, len(sets)), 'set')}, those in several classes first"
    return _folded(words, table(head, rows, "copies"), _rest(max(num_sets, len(sets)), "set"))


def _unreadable(images: Sequence[Mapping[str, Any]], num_unreadable: int) -> Html | None:
    """Images that cannot be decoded, and why."""
    if not images:
        return None
    rows = [
        element(
            "tr", element("td", short(str(image.get("path", "")), 40)), element("td", str(image.get("message", "")))
        )
        for image in images[:_MOST_LISTED]
    ]
    head = [element("th", name, scope="col") for name in ("image", "why it cannot be read")]
    return _folded(
        "Images that cannot be read", table(head, rows, "copies"), _rest(max(num_unreadable, len(images)), "image")
    )


def _details(report: Mapping[str, Any]) -> Html | None:
    """Formats, modes, sizes and where the data came from, a line each."""
    told = [(words, said) for key, words in _DETAILS.items() if (said := _said(report.get(key)))]
    lines = [piece for words, said in told for piece in (element("dt", words), element("dd", said))]
    return join([element("h3", "Details"), element("dl", *lines, class_="facts")]) if lines else None


def _said(value: Any) -> str:
    """A value in a line; what is nested deeper is left out."""
    if not isinstance(value, Mapping):
        return "" if value is None else str(value)
    flat = [(key, each) for key, each in value.items() if isinstance(each, int | float | str)]
    return ", ".join(
        f"{_named(str(key))} {each:,}" if isinstance(each, int) else f"{_named(str(key))} {each}" for key, each in flat
    )


def _named(key: str) -> str:
    return key.removeprefix("num_").replace("_", " ")


def _folded(summary: str, *body: Html | None) -> Html:
    return element("details", element("summary", summary), *body)


def _rest(number: int, singular: str, plural: str | None = None, shown: int = _MOST_LISTED) -> Html | None:
    """How many more there are than a page has room for."""
    if number <= shown:
        return None
    return element("p", f"And {count(number - shown, singular, plural)} more.", class_="note")
