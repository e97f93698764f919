"""The tables of `benchmarks.defaults`, in Markdown."""

import statistics
from collections.abc import Iterable
from typing import Any

from modeling.networks.quality import DEFAULT_QUALITY, QUALITIES

PLAIN, NO_WEIGHTS = "default", "no-weights"
NAMED = ("cnn", "cnn_pyramid", "speednet", "mobilenet_v2")

Cells = dict[tuple[str, str], list[dict[str, Any]]]


def tables(cells: Iterable[dict[str, Any]]) -> str:
    """The defaults beside the networks that one might name, and the qualities, as far as there are cells."""
    grouped: Cells = {}
    for cell in cells:
        grouped.setdefault((cell["data"], cell["variant"]), []).append(cell)
    sets = list(dict.fromkeys(data for data, _ in grouped))
    return "\n\n".join(text for text in (_beside_named(grouped, sets), _qualities(grouped, sets)) if text)


def _beside_named(grouped: Cells, sets: list[str]) -> str:
    head = ["data", "what is taken", "accuracy", "cpu min", *NAMED, "best of these"]
    rows = []
    for data in sets:
        own = [variant for variant in (PLAIN, NO_WEIGHTS) if (data, variant) in grouped]
        named = {name: _accuracy(grouped[data, name]) for name in NAMED if (data, name) in grouped}
        for variant in own:
            found = grouped[data, variant]
            others = [f"{_figures(grouped[data, name])}" if name in named else "-" for name in NAMED]
            name = data if variant == PLAIN else f"{data}, no weights"
            rows.append([name, _taken(found[0]), _figures(found), _minutes(found), *others, _best(found, named)])
    return _table(head, rows) if rows else ""


def _qualities(grouped: Cells, sets: list[str]) -> str:
    variants = [PLAIN if name == DEFAULT_QUALITY else name for name in QUALITIES]
    head = ["data", *QUALITIES]
    rows = [
        [data, *(_quality(grouped[data, variant]) if (data, variant) in grouped else "-" for variant in variants)]
        for data in sets
        if any((data, variant) in grouped for variant in variants if variant != PLAIN)
    ]
    return _table(head, rows) if rows else ""


def _quality(cells: list[dict[str, Any]]) -> str:
    return f"{_taken(cells[0])}: {_accuracy(cells):.4f}, {_minutes(cells)} min"


def _taken(cell: dict[str, Any]) -> str:
    options = cell["options"]
    parts = [f"`{options['architecture']}`"]
    parts += ["pre-trained"] if options["from_weights"] else []
    parts += [f"{options['image_size']} px"] if options["image_size"] else []
    parts += [f"{options['epochs']} epochs"] if options["epochs"] else []
    return ", ".join(parts)


def _accuracy(cells: list[dict[str, Any]]) -> float:
    return float(statistics.mean(cell["metrics"]["test_accuracy"] for cell in cells))


def _figures(cells: list[dict[str, Any]]) -> str:
    return f"{_accuracy(cells):.4f} (n={len(cells)})"


def _minutes(cells: list[dict[str, Any]]) -> str:
    """Processor minutes of the first seed, which finds nothing in the cache."""
    first = min(cells, key=lambda cell: int(cell["seed"]))
    return f"{first['cpu_seconds'] / 60:.1f}"


def _best(own: list[dict[str, Any]], named: dict[str, float]) -> str:
    """The best that one might name, and what the default has more than it, in points."""
    if not named:
        return "-"
    name = max(named, key=lambda other: named[other])
    return f"`{name}`, {100 * (_accuracy(own) - named[name]):+.1f} points"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
