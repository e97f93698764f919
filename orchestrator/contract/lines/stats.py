"""The counts of a line: outcomes, causes of misses, waits, batch sizes. Scripts and workers add, `read_stats` reads.

Every field of the counts is of a fixed set, so what clients send cannot make them grow. The server has them since the
line was created or the server was emptied, and by minute for two hours.
"""

import itertools
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.contract.lines.answers import STAGES
from orchestrator.contract.lines.limits import MOST_MINUTES
from orchestrator.contract.lines.store import LineStore

# Upper bounds in ms, as in common.lua; what is longer counts as `more`.
BUCKETS_MS = (
    1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100, 120, 150, 200, 250, 300, 400, 500, 600, 800, 1000,
    1200, 1500, 2000, 2500, 3000, 4000, 5000, 6000, 8000, 10000, 15000, 20000, 30000, 60000,
)  # fmt: skip
MORE = "more"
ACCEPT = "accept"  # the outcome without a reason
_LARGEST_EXACT_BATCH = 16


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many times took how long. counts: by upper bound in ms; more: longer than the last; sum_ms: all together."""

    counts: tuple[tuple[int, int], ...] = ()
    more: int = 0
    sum_ms: float = 0.0

    @property
    def num(self) -> int:
        return self.more + sum(num for _, num in self.counts)

    def quantile(self, share: float) -> float | None:
        """Milliseconds that this share did not exceed, interpolated in its bucket; None: nothing was counted.

        What is longer than the last bound counts as the last bound.
        """
        left = share * self.num
        if self.num == 0:
            return None
        for (lower, _), (upper, num) in itertools.pairwise([(0, 0), *self._all_buckets()]):
            if num and left <= num:
                return lower + (upper - lower) * left / num
            left -= num
        return float(BUCKETS_MS[-1])

    def _all_buckets(self) -> list[tuple[int, int]]:
        known = dict(self.counts)
        return [(bound, known.get(bound, 0)) for bound in BUCKETS_MS]


@dataclass(frozen=True, slots=True)
class LineStats:
    """The counts of a line between two times of the server's clock, in ms.

    outcomes: answers by reason, `accept` where there was none. causes: of misses. refused: pushes that were not
    admitted, by reason (busy: could not be done in time; bound: too many or too large waited; paused). batches: by the
    number of images. latency: from admission to the answer. waits: by stage. waiting: requests without an answer now.
    recovered: requests of dead workers that others got. delivered_alone: decisions that clients made without the
    server; disagreements: those that differ from the record. discharged: items whose real bin was reported;
    discharged_elsewhere: not in the bin of the record. restored: pushes that an archived answer answered.
    images_not_kept, answers_dropped, discharges_dropped: what did not fit into bounds.
    """

    from_ms: int
    to_ms: int
    admitted: int
    answers: int
    outcomes: dict[str, int]
    causes: dict[str, int]
    refused: dict[str, int]
    batches: dict[int, int]
    latency: Histogram
    waits: dict[str, Histogram]
    waiting: int
    recovered: int
    delivered_alone: int
    disagreements: int
    discharged: int
    discharged_elsewhere: int
    restored: int
    images_not_kept: int
    answers_dropped: int
    discharges_dropped: int

    @property
    def seconds(self) -> float:
        return (self.to_ms - self.from_ms) / 1000

    def share(self, outcome: str) -> float:
        """The share of the answers that had this outcome, in [0, 1]."""
        return self.outcomes.get(outcome, 0) / self.answers if self.answers else 0.0

    @property
    def mean_batch(self) -> float | None:
        """Images in a batch on average; None without a batch. Batches of more than 16 count as a power of two."""
        num = sum(self.batches.values())
        return sum(size * times for size, times in self.batches.items()) / num if num else None


def read_stats(store: LineStore, minutes: int | None = None) -> LineStats:
    """The counts of the last so many minutes (1 to 120), the present one included; None: of all the time.

    Raises ValueError for another number of minutes.
    """
    if minutes is not None and not 1 <= minutes <= MOST_MINUTES:
        raise ValueError(f"the counts of {minutes} minutes are not kept; ask for 1 to {MOST_MINUTES}, or for all")
    seconds, microseconds = store.client.time()
    now_ms = seconds * 1000 + microseconds // 1000
    this = now_ms // 60_000
    with store.client.pipeline(transaction=False) as pipeline:
        pipeline.hget(store.key("line"), "epoch")
        pipeline.zcard(store.key("deadlines"))
        for ago in range(minutes or 0):
            pipeline.hgetall(store.key(f"stats:{this - ago}"))
        epoch, waiting, *found = pipeline.execute()
    counts = Counter(store.counts()) if minutes is None else Counter[str]()
    for fields in found:
        counts.update({name.decode(): int(number) for name, number in fields.items()})
    entered_ms = int(epoch or now_ms * 1000) // 1000
    from_ms = entered_ms if minutes is None else max(entered_ms, (this - minutes + 1) * 60_000)
    return _stats(counts, from_ms, now_ms, waiting)


def _stats(counts: Mapping[str, int], from_ms: int, to_ms: int, waiting: int) -> LineStats:
    return LineStats(
        from_ms=from_ms,
        to_ms=to_ms,
        admitted=counts.get("admitted", 0),
        answers=counts.get("answers", 0),
        outcomes=_within(counts, "reason"),
        causes=_within(counts, "cause"),
        refused=_within(counts, "refused"),
        batches={int(size): num for size, num in _within(counts, "batch").items()},
        latency=_histogram(counts, "ms", counts.get("ms_sum", 0)),
        waits={stage: _histogram(counts, stage, counts.get(f"{stage}_us_sum", 0) / 1000) for stage in STAGES},
        waiting=waiting,
        recovered=counts.get("recovered", 0),
        delivered_alone=counts.get("delivered_alone", 0),
        disagreements=counts.get("disagreements", 0),
        discharged=counts.get("discharged", 0),
        discharged_elsewhere=counts.get("discharged_elsewhere", 0),
        restored=counts.get("restored", 0),
        images_not_kept=counts.get("images_not_kept", 0),
        answers_dropped=counts.get("answers_dropped", 0),
        discharges_dropped=counts.get("discharges_dropped", 0),
    )


def _within(counts: Mapping[str, int], group: str) -> dict[str, int]:
    """The counts whose field is `group:NAME`, by name, most frequent first."""
    found = {name.partition(":")[2]: num for name, num in counts.items() if name.startswith(f"{group}:")}
    return dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))


def _histogram(counts: Mapping[str, int], group: str, sum_ms: float) -> Histogram:
    found = _within(counts, group)
    more = found.pop(MORE, 0)
    return Histogram(tuple(sorted((int(bound), num) for bound, num in found.items())), more, sum_ms)


class WorkerCounts:
    """What a worker counts, to be sent with `LineStore.count` some times a second; safe to share between threads."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def batch(self, num_images: int) -> None:
        """A batch of so many images was predicted."""
        size = num_images if num_images <= _LARGEST_EXACT_BATCH else 1 << (num_images - 1).bit_length()
        self._add(f"batch:{size}")

    def wait(self, stage: str, ms: float) -> None:
        """A request spent so long in one of `STAGES`."""
        assert stage in STAGES
        self._add(f"{stage}:{next((bound for bound in BUCKETS_MS if ms <= bound), MORE)}")
        self._add(f"{stage}_us_sum", round(ms * 1000))

    def image_not_kept(self, num: int = 1) -> None:
        """Images that should have been kept were not."""
        self._add("images_not_kept", num)

    def take(self) -> dict[str, int]:
        """What was counted since the last call, which is zero again then."""
        with self._lock:
            taken, self._counts = self._counts, Counter()
        return dict(taken)

    def _add(self, name: str, num: int = 1) -> None:
        with self._lock:
            self._counts[name] += num
