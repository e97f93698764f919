"""When items reach the camera, and the images that they bring."""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from modeling.images.loader import load_ahead
from orchestrator.contract.errors import UsageError
from orchestrator.lines.request import read_file

MOST_PER_SECOND = 10_000.0  # one process cannot send more
LONGEST_MINUTES = 7 * 24 * 60.0
MOST_ITEMS = 1_000_000  # their answers are held until the report
FASTEST, LONGEST = 100.0, 10_000.0  # m/s and m: beyond is a slip of the unit
_NUM_AHEAD = 32  # images that are read before their items arrive: a slow disk must not slow the belt
_NUM_READERS = 2


@dataclass(frozen=True, slots=True)
class Load:
    """What a belt brings. speed: metres a second; distance: metres from camera to gate; seed: of chance.

    Raises UsageError for values that no belt has.
    """

    per_second: float
    minutes: float = 1.0
    poisson: bool = False
    speed: float = 3.0
    distance: float = 3.0
    seed: int = 0

    def __post_init__(self) -> None:
        """NaN is in no range."""
        if not 0 < self.per_second <= MOST_PER_SECOND:
            raise UsageError(f"--per-second {self.per_second:g} must be above 0 and at most {MOST_PER_SECOND:,.0f}")
        if not 0 < self.minutes <= LONGEST_MINUTES:
            raise UsageError(f"--minutes {self.minutes:g} must be above 0 and at most {LONGEST_MINUTES:,.0f}, a week")
        if not 0 < self.speed <= FASTEST:
            raise UsageError(f"--speed {self.speed:g} must be above 0 and at most {FASTEST:g} metres a second")
        if not 0 < self.distance <= LONGEST:
            raise UsageError(f"--distance {self.distance:g} must be above 0 and at most {LONGEST:,.0f} metres")
        if self.per_second * self.duration_s > MOST_ITEMS:
            raise UsageError(
                f"{self.per_second:g} items a second for {self.minutes:g} minutes are more than {MOST_ITEMS:,}; "
                "lower --minutes"
            )
        if self.per_second * self.duration_s < 1:
            raise UsageError(
                f"at {self.per_second:g} items a second none arrives in {self.minutes:g} minutes; raise --minutes"
            )

    @property
    def duration_s(self) -> float:
        return 60 * self.minutes

    @property
    def gate_ms(self) -> float:
        """From the trigger until the item is at the gate."""
        return 1000 * self.distance / self.speed

    def arrivals(self) -> Iterator[float]:
        """Seconds from the start to each item: evenly spaced, or a Poisson process from the seed."""
        if not self.poisson:
            yield from (number / self.per_second for number in range(round(self.per_second * self.duration_s)))
            return
        rng = random.Random(self.seed)
        at = rng.expovariate(self.per_second)
        while at < self.duration_s:
            yield at
            at += rng.expovariate(self.per_second)


def cycle_shuffled(paths: Sequence[Path], seed: int) -> Iterator[Path]:
    """The paths again and again, each time in another order: folders by class would bring one class after another."""
    for turn in count():
        order = list(paths)
        random.Random(f"{seed}/{turn}").shuffle(order)
        yield from order


def read_ahead(paths: Iterable[Path]) -> Iterator[bytes]:
    """The files' bytes in order, read before they are needed. Raises UsageError for one that cannot be read."""
    return load_ahead(paths, _bytes_of, num_ahead=_NUM_AHEAD, num_threads=_NUM_READERS)


def _bytes_of(path: Path) -> bytes:
    try:
        return read_file(path)
    except OSError as err:
        raise UsageError(f"image {str(path)!r} cannot be read: {err.strerror or err}") from err
