"""What a simulation measured: shares by reason, answer times, missed gates, and the load generator itself."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.contract.lines.answers import REASONS
from orchestrator.lines.simulate.belt import BeltPlan, Sample

ACCEPTED = "accept"  # stands for the reason of an answer that has none
LATE_SEND_MS = 10.0  # a push that began later than this after its item was due is a late send
MOST_LATE_SENDS = 0.01  # of the items: beyond this share the figures say more of the generator than of the line
_REASON_ORDER = {ACCEPTED: -1} | {reason: place for place, reason in enumerate(REASONS)}
_NO_DECISION_ON_THE_IMAGE = {"unreadable"}  # the answer was in time, whatever the image was


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds from the moment at which an item was due to its answer; by rank, so that each was measured."""

    p50: float
    p95: float
    p99: float
    worst: float


@dataclass(frozen=True, slots=True)
class Generator:
    """What the load generator says of itself.

    cpu_share: of one core, with the line's client. num_late: pushes that began more than LATE_SEND_MS late.
    """

    cpu_share: float
    num_late: int
    worst_late_ms: float
    valid: bool


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of one run on the belt.

    by_reason: items, `accept` first. by_cause: of the misses, where the time was lost. num_missed: items whose answer
    was no prediction in time, or came after the gate. num_after_gate: of these, answers that came after the gate.
    num_unanswered: items without any answer. times: None where nothing was answered.
    """

    num_items: int
    elapsed_s: float
    by_reason: dict[str, int]
    by_cause: dict[str, int]
    by_bin: dict[str, int]
    times: Times | None
    num_missed: int
    num_after_gate: int
    num_unanswered: int
    generator: Generator

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def reason_of(sample: Sample) -> str:
    """The reason of an answer; `accept` where it has none."""
    return sample.answer.reason or ACCEPTED


def make_figures(
    samples: Sequence[Sample],
    unanswered_sends_ms: Sequence[float],
    plan: BeltPlan,
    *,
    elapsed_s: float,
    cpu_s: float,
) -> Figures:
    """unanswered_sends_ms: by how much the push of each item without an answer was late. cpu_s: of the generator."""
    late_sends = [sample.late_send_ms for sample in samples] + list(unanswered_sends_ms)
    reasons = Counter(map(reason_of, samples))
    num_after_gate = sum(sample.ms > plan.gate_ms for sample in samples)
    return Figures(
        num_items=len(late_sends),
        elapsed_s=elapsed_s,
        by_reason={reason: reasons[reason] for reason in sorted(reasons, key=_place)},
        by_cause=dict(Counter(sample.answer.cause for sample in samples if sample.answer.cause).most_common()),
        by_bin=dict(Counter(sample.answer.bin for sample in samples).most_common()),
        times=_times([sample.ms for sample in samples]),
        num_missed=sum(missed_gate(sample, plan) for sample in samples) + len(unanswered_sends_ms),
        num_after_gate=num_after_gate,
        num_unanswered=len(unanswered_sends_ms),
        generator=_generator(late_sends, cpu_s / max(elapsed_s, 1e-9)),
    )


def missed_gate(sample: Sample, plan: BeltPlan) -> bool:
    """Whether the item passed the gate without a prediction."""
    decided = sample.answer.predicted or sample.answer.reason in _NO_DECISION_ON_THE_IMAGE
    return not decided or sample.ms > plan.gate_ms


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of the values does not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _times(values: list[float]) -> Times | None:
    if not values:
        return None
    values.sort()
    return Times(percentile(values, 0.5), percentile(values, 0.95), percentile(values, 0.99), values[-1])


def _generator(late_sends: Sequence[float], cpu_share: float) -> Generator:
    num_late = sum(late > LATE_SEND_MS for late in late_sends)
    valid = num_late <= MOST_LATE_SENDS * len(late_sends)
    return Generator(cpu_share, num_late, max(late_sends, default=0.0), valid)


def _place(reason: str) -> tuple[int, str]:
    """Where a reason stands; an unknown one comes last."""
    return _REASON_ORDER.get(reason, len(_REASON_ORDER)), reason
