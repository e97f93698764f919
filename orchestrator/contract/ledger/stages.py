"""Where the time of a classify job goes: seconds by stage, the rate of each stage, and the stage that bounds the job.

The stages are those of `modeling.inference.pipeline`, and `write`. Some threads `read` and `decode`; others wait for
decoded images (`wait`) and run the device (`predict`); one writes parts (`write`). A stage of several threads counts
with their mean: one second of any stage is a second of a whole worker. Seconds add up over shards and workers.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal

Bound = Literal["storage", "decode", "device", "write"]

STAGES = ("read", "decode", "wait", "predict", "write")
_LITTLE_WAITING = 0.1  # a device that waits for a smaller share of its time loses little


def name_bound(seconds: Mapping[str, float]) -> Bound | None:
    """The stage that a job waits for most, so that more of another would not help; None where none took time.

    A worker runs three lanes in parallel: threads read and decode, the device predicts, a thread writes. The lane that
    is busy for longest bounds the job; of the two stages of the first lane, the longer one. A lane's busy time is the
    sum of its stages, because stages that share threads take turns.

    One exception: if the device waits for less than a tenth of its time, images arrive as fast as it takes them, and
    it bounds the job, however busy the decode threads are: on a CPU they share cores with the device, and their
    seconds, which are wall-clock time, grow because they wait for a core.

    Ties count for `device`, then for `decode`.
    """
    read, decode, wait, predict, write = (seconds.get(stage, 0.0) for stage in STAGES)
    ahead = read + decode
    if ahead + predict + write <= 0:
        return None
    if write > max(ahead, predict):
        return "write"
    if predict >= ahead or wait < _LITTLE_WAITING * (wait + predict):
        return "device"
    return "storage" if read > decode else "decode"


def worker_seconds(seconds: Mapping[str, float]) -> float:
    """Seconds of whole workers that the stages took: those of the lane that was busy for longest (`name_bound`)."""
    read, decode, _, predict, write = (seconds.get(stage, 0.0) for stage in STAGES)
    return max(read + decode, predict, write)


def stage_rates(seconds: Mapping[str, float], num_images: int) -> dict[str, float]:
    """Images per second of each stage that took any time, on one worker, as if no other stage limited it.

    `read` and `decode` count as if each had all decode threads. Images that failed are counted, too.
    """
    timed = {stage: seconds.get(stage, 0.0) for stage in STAGES if stage != "wait"}
    return {stage: num_images / spent_s for stage, spent_s in timed.items() if spent_s > 0}


def add_seconds(all_seconds: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: Counter[str] = Counter()
    for seconds in all_seconds:
        total.update(seconds)
    return dict(total)
