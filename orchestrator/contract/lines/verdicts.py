"""Which bin an item gets, from its prediction and the line's bin map."""

from modeling.metrics.decisions import Decision
from orchestrator.contract.lines.answers import STAGES, Cause, Verdict
from orchestrator.contract.lines.settings import Line


def choose_verdict(line: Line, label: str, decision: Decision | None, *, degraded: bool = False) -> Verdict:
    """The bin of a predicted item. decision: None: the model has no calibration, and every label is accepted.

    degraded: the smaller model answered.
    """
    settings = line.settings
    if decision in ("review", "reject"):
        return Verdict(settings.review, "low_confidence")
    if settings.of_model:
        return Verdict(settings.fallback)  # it has no bins
    bins = settings.bins.get(label)
    if bins is None:
        return Verdict(settings.fallback, "no_bin")
    opened = next((bin_ for bin_ in bins if bin_ not in line.closed), None)
    if opened is None:
        return Verdict(settings.fallback, "bin_full")
    if opened != bins[0]:
        return Verdict(opened, "next_bin")
    return Verdict(opened, "degraded" if degraded else None)


def late_verdict(line: Line, cause: Cause) -> Verdict:
    """The bin of an item that was not predicted in time."""
    return Verdict(line.settings.fallback, "late", cause)


def cause_of(stage_ms: dict[str, float]) -> Cause:
    """Where most of the time went."""
    causes: dict[str, Cause] = {"queue": "queue", "decode": "decode", "device": "device"}
    return causes[max(STAGES, key=lambda stage: stage_ms.get(stage, 0.0))]
