"""What faults of a chaos run leave to be repaired later."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Repairs:
    """Calls that end faults, each with the time when it is due."""

    due: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def later(self, seconds: float, repair: Callable[[], None]) -> None:
        """Call `repair` after some seconds."""
        self.due.append((time.monotonic() + seconds, repair))

    def make(self, *, everything: bool = False) -> None:
        """Make the repairs that are due, or all of them."""
        now = time.monotonic()
        ready = [entry for entry in self.due if everything or entry[0] <= now]
        self.due = [entry for entry in self.due if entry not in ready]
        for _, repair in ready:
            repair()
