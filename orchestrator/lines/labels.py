"""A line's bin map against the labels of its models: a label without a bin, and a bin for no label."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from modeling.registry.store import ModelStore
from orchestrator.contract.errors import UsageError
from orchestrator.contract.lines.settings import LineSettings

MOST_SHOWN = 5


@dataclass(frozen=True, slots=True)
class MapFindings:
    """What a bin map lacks and has too much, and which models make no decisions.

    models: the versions for which the references of the line stand now.
    """

    models: tuple[str, ...]
    labels: tuple[str, ...]
    without_bin: tuple[str, ...]
    unknown: tuple[str, ...]
    uncalibrated: tuple[str, ...]

    def warnings(self) -> list[str]:
        """One line for each finding that an operator should know."""
        lines = []
        if self.without_bin:
            count = f"{len(self.without_bin)} of {len(self.labels)} labels have no bin"
            lines.append(f"{count}, so their items will be answered `no_bin`: {shown(self.without_bin)}")
        if self.unknown:
            lines.append(f"{' and '.join(self.models)} has no label {shown(self.unknown)}; the map keeps it")
        lines += [
            f"{model} has no calibration: it accepts every image, and no item goes to the review bin"
            for model in self.uncalibrated
        ]
        return lines

    def require_known(self) -> None:
        """Raises UsageError where the map has a label that no model has: most likely a mistake in its spelling."""
        if not self.unknown:
            return
        near = get_close_matches(self.unknown[0], self.labels, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {shown(self.labels)}"
        raise UsageError(
            f"{' and '.join(self.models)} has no label {self.unknown[0]!r}; {hint} "
            "To keep bins for labels of a model to come, add --allow-unknown-labels"
        )


def check_map(line: LineSettings, models: ModelStore) -> MapFindings:
    """Compare a bin map with the labels of the line's models.

    Raises ModelNotFoundError where a model or an alias does not exist.
    """
    versions = [models.resolve(ref) for ref in (line.model, line.degraded) if ref is not None]
    cards = {version.ref: version.card() for version in versions}
    labels = dict.fromkeys(label for card in cards.values() for label in card.labels)
    return MapFindings(
        models=tuple(cards),
        labels=tuple(labels),
        without_bin=tuple(line.labels_without_bin(labels)),
        unknown=tuple(label for label in line.bins if label not in labels),
        uncalibrated=tuple(ref for ref, card in cards.items() if card.calibration is None),
    )


def shown(names: Sequence[str]) -> str:
    """A few names, and how many more there are."""
    more = f" and {len(names) - MOST_SHOWN} more" if len(names) > MOST_SHOWN else ""
    return ", ".join(repr(name) for name in names[:MOST_SHOWN]) + more
