"""A line as commands show it: as data, and as lines for people."""

from typing import TYPE_CHECKING, Any

from orchestrator.cli.output import size_text
from orchestrator.contract.lines.quantities import duration_text
from orchestrator.contract.server_url import redact

if TYPE_CHECKING:
    from orchestrator.contract.lines.settings import Line, LineSettings


def readable_settings(settings: "LineSettings") -> dict[str, str]:
    """The settings but for name, bins and what nobody set, with units."""
    facts = {
        "model": settings.model,
        "smaller model": settings.degraded or "",
        "deadline": duration_text(settings.deadline_ms),
        "fallback bin": settings.fallback,
        "review bin": settings.review,
        "may wait": f"{settings.max_requests:,} requests, {size_text(settings.max_bytes)}",
        "an image has": f"at most {size_text(settings.max_image_bytes)}",
        "answers": f"kept {duration_text(settings.keep_s * 1000)}",
        "images": _kept_images(settings),
        "roots": ", ".join(settings.roots),
        "server": redact(settings.server) if settings.server else "",
    }
    return {name: text for name, text in facts.items() if text}


def changes(before: "Line", after: "Line") -> list[str]:
    """What a change did, in words."""
    from orchestrator.lines.facts import settings_facts

    old, new = settings_facts(before.settings), settings_facts(after.settings)
    names = [name for name in new if name != "bins" and new[name] != old[name]]
    changed = [f"{name}: {_value(old[name])} -> {_value(new[name])}" for name in names]
    old_bins, new_bins = before.settings.bins, after.settings.bins
    labels = [label for label in {**old_bins, **new_bins} if old_bins.get(label) != new_bins.get(label)]
    for label in labels[:3]:
        changed.append(f"{label}: {_bins(old_bins.get(label))} -> {_bins(new_bins.get(label))}")
    return changed + ([f"and the bins of {len(labels) - 3} more labels"] if len(labels) > 3 else [])


def bin_states(line: "Line") -> dict[str, str]:
    """Each bin of the map, in its order: `open`, `full`, `disabled`, or both of these."""
    names = dict.fromkeys(name for bins in line.settings.bins.values() for name in bins)
    marks = {"full": line.full, "disabled": line.disabled}
    return {name: " and ".join(mark for mark, closed in marks.items() if name in closed) or "open" for name in names}


def closed_labels(line: "Line") -> list[str]:
    """The labels of which every bin is full or disabled: their items are answered with `bin_full`."""
    return [label for label, bins in line.settings.bins.items() if line.closed.issuperset(bins)]


def _kept_images(settings: "LineSettings") -> str:
    if not settings.keeps_images:
        return "not kept"
    bounds = f"{duration_text(settings.keep_images_s * 1000)}, {size_text(settings.keep_images_bytes)}"
    return f"kept {bounds}: those of review and fallback bin, and {settings.keep_share:.4g} of the others"


def _value(value: Any) -> str:
    return ", ".join(value) or "none" if isinstance(value, tuple) else "none" if value is None else str(value)


def _bins(bins: tuple[str, ...] | None) -> str:
    return ",".join(bins) if bins else "no bin"
