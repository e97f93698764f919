"""Findings about a data set: a sentence for people, and a code for programs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding about a data set.

    severity: `error` if no model can be trained on it, `warning` if it harms the model, else `info`.
    code: a short, stable identifier, such as `near_duplicates`.
    message: one sentence for people, with figures and, for anything but `info`, what to do.
    """

    severity: Severity
    code: str
    message: str


def abbreviate(names: Sequence[str], limit: int = 5) -> str:
    """The first `limit` names, and the number of the others."""
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
