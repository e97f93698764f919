"""What becomes of a prediction: accepted, seen by a person, or rejected."""

from typing import Literal, get_args

Decision = Literal["accept", "review", "reject"]
DECISIONS: tuple[Decision, ...] = get_args(Decision)
