"""What a look at a data set brings to light, in sentences for people and words for programs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing worth knowing about a data set.

    severity: `error` where no model can be trained on it, `warning` where the model suffers, else `info`.
    code: a short word that never changes, such as `near_duplicates`.
    message: one sentence for people, with figures and, for anything but `info`, what to do.
    """

    severity: Severity
    code: str
    message: str


def some(names: Sequence[str], limit: int = 5) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - limit:,} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
