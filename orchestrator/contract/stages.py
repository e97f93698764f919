"""Where the time of a classify job goes: seconds by stage, the rate of each stage, and the stage that bounds the job.

The stages are those of `modeling.pipeline`, and `write`. Threads `read` and `decode`; the worker's main thread waits
for what they decode (`wait`), lets the device predict (`predict`), and writes parts (`write`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

Bound = Literal["storage", "decode", "device", "write"]

STAGES = ("read", "decode", "wait", "predict", "write")
_THREADED = ("read", "decode")  # shared by all decode threads of a worker; the rest is its main thread's
_SELDOM = 0.1  # a main thread that waits for a smaller share of its time loses little by it


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Seconds by stage, of a shard or summed over shards and workers; `read` and `decode` are summed over threads.

    decode_threads: of the worker; where several are summed, their mean.
    """

    seconds: Mapping[str, float] = field(default_factory=dict)
    decode_threads: float = 1.0

    @property
    def bound(self) -> Bound | None:
        """What bounds it, by `name_bound`."""
        return name_bound(self.seconds, self.decode_threads)


UNTIMED = StageTimes()


def name_bound(seconds: Mapping[str, float], decode_threads: float) -> Bound | None:
    """The stage that a job waits for most, so that more of another would not help; None where none took time.

    A worker is two lines that work at once: its decode threads read and decode, its main thread predicts and writes.
    The line that is busy for longer bounds the job, and of the two stages in that line the longer one. A line's busy
    time is the sum of its stages over the number of its threads: stages that share threads take turns.

    One exception. Where the main thread waits for less than a tenth of its time, images come as fast as it takes them,
    and the main thread bounds the job, whatever the decode threads were busy with: on a CPU they share cores with the
    device, and their seconds grow because they wait for a core. The stages are measured by the clock on the wall.

    What is equal counts for the main thread, and for `device` and `decode`.
    """
    read, decode, wait, predict, write = (seconds.get(stage, 0.0) for stage in STAGES)
    ahead, main = (read + decode) / max(decode_threads, 1.0), predict + write
    if ahead + main <= 0:
        return None
    if main >= ahead or wait < _SELDOM * (wait + main):
        return "write" if write > predict else "device"
    return "storage" if read > decode else "decode"


def stage_rates(times: StageTimes, num_images: int) -> dict[str, float]:
    """Images per second of each stage that took any time, on one worker, as if nothing else held it up.

    `read` and `decode` each as if they had all decode threads to themselves. Images that failed are counted, too.
    """
    threads = {stage: max(times.decode_threads, 1.0) if stage in _THREADED else 1.0 for stage in STAGES}
    return {
        stage: num_images * threads[stage] / times.seconds[stage]
        for stage in STAGES
        if stage != "wait" and times.seconds.get(stage, 0.0) > 0
    }


def add_times(all_times: Iterable[StageTimes]) -> StageTimes:
    """The sum over shards: their seconds, and the mean of their decode threads."""
    seconds: dict[str, float] = {}
    num_threads, num_shards = 0.0, 0
    for times in all_times:
        num_threads, num_shards = num_threads + times.decode_threads, num_shards + 1
        for stage, value in times.seconds.items():
            seconds[stage] = seconds.get(stage, 0.0) + value
    return StageTimes(seconds, num_threads / num_shards if num_shards else 1.0)
