"""What differs between matched rows: counted, and the first of them kept."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from modeling.names import path_to_text
from orchestrator.diff.match import Answer, Pair

MOST_TRANSITIONS = 100_000  # pairs of labels that are counted one by one; further ones are counted together

Transition = tuple[str | None, str | None]
"""From and to; None for the label of an error row, and for the decision of a model without calibration."""


@dataclass(frozen=True, slots=True)
class Change:
    """A row that differs. kinds: `label`, `decision`, `error` and `score`, as they differ; or `removed` or `added`."""

    path: str
    kinds: tuple[str, ...]
    before: Answer | None
    after: Answer | None

    def to_json(self) -> dict[str, Any]:
        return {
            "path": path_to_text(self.path),
            "change": list(self.kinds),
            "before": _to_json(self.before),
            "after": _to_json(self.after),
        }


@dataclass
class Differences:
    """Counts of rows. num_other_scores: rows that differ in nothing but their score; largest_step: of those."""

    num_equal: int = 0
    num_changed: int = 0
    num_other_scores: int = 0
    num_removed: int = 0
    num_added: int = 0
    largest_step: float = 0.0
    labels: Counter[Transition] = field(default_factory=Counter)
    decisions: Counter[Transition] = field(default_factory=Counter)
    num_in_further_transitions: int = 0
    first: list[Change] = field(default_factory=list)

    @property
    def are_none(self) -> bool:
        """Whether the manifests say the same of every image."""
        return not (self.num_changed or self.num_other_scores or self.num_removed or self.num_added)


def find_changes(pairs: Iterable[Pair], differences: Differences, *, num_kept: int) -> Iterator[Change]:
    """The rows that differ, in the order of the pairs, which are counted meanwhile.

    num_kept: of the changes, scores alone left out, so many are kept.
    """
    for path, before, after in pairs:
        if before is None or after is None:
            change = Change(path, ("removed",) if after is None else ("added",), before, after)
            differences.num_removed += after is None
            differences.num_added += before is None
        elif before == after:
            differences.num_equal += 1
            continue
        else:
            change = Change(path, _kinds(before, after), before, after)
            _count(differences, change.kinds, before, after)
        if change.kinds != ("score",) and len(differences.first) < num_kept:
            differences.first.append(change)
        yield change


def _kinds(before: Answer, after: Answer) -> tuple[str, ...]:
    differ = {
        "label": before.label != after.label,
        "decision": before.decision != after.decision,
        "error": before.error_code != after.error_code,
        "score": before.score != after.score,
    }
    return tuple(kind for kind, differs in differ.items() if differs)


def _count(differences: Differences, kinds: tuple[str, ...], before: Answer, after: Answer) -> None:
    if kinds == ("score",):
        differences.num_other_scores += 1
        step = abs((before.score or 0.0) - (after.score or 0.0))
        differences.largest_step = max(differences.largest_step, step)
        return
    differences.num_changed += 1
    if "decision" in kinds:
        differences.decisions[before.decision, after.decision] += 1
    if "label" in kinds:
        transition = before.label, after.label
        if transition in differences.labels or len(differences.labels) < MOST_TRANSITIONS:
            differences.labels[transition] += 1
        else:
            differences.num_in_further_transitions += 1


def _to_json(answer: Answer | None) -> dict[str, Any] | None:
    if answer is None:
        return None
    return {
        "label": answer.label,
        "score": answer.score,
        "decision": answer.decision,
        "error_code": answer.error_code,
    }
