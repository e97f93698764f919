"""Where the time of a classify job goes: seconds by stage, the rate of each stage, and the stage that bounds the job.

The stages are those of `modeling.inference.pipeline`, and `write`. Threads `read` and `decode`; others wait for
what they decode (`wait`) and let the device predict (`predict`); one writes parts (`write`). A stage that several
threads share counts with their mean: one second of any stage is a second of a whole worker. Seconds add up over shards
and workers.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Literal

Bound = Literal["storage", "decode", "device", "write"]

STAGES = ("read", "decode", "wait", "predict", "write")
_SELDOM = 0.1  # a device that waits for a smaller share of its time loses little by it


def name_bound(seconds: Mapping[str, float]) -> Bound | None:
    """The stage that a job waits for most, so that more of another would not help; None where none took time.

    A worker is three lines that work at once: threads read and decode, the device predicts, a thread writes. The line
    that is busy for longest bounds the job; of the two stages in the first the longer one. A line's busy time is the
    sum of its stages: stages that share threads take turns.

    One exception. Where the device waits for less than a tenth of its time, images come as fast as it takes them, and
    it bounds the job, whatever the decode threads were busy with: on a CPU they share cores with the device, and
    their seconds grow because they wait for a core. The stages are measured by the clock on the wall.

    What is equal counts for `device`, then for `decode`.
    """
    read, decode, wait, predict, write = (seconds.get(stage, 0.0) for stage in STAGES)
    ahead = read + decode
    if ahead + predict + write <= 0:
        return None
    if write > max(ahead, predict):
        return "write"
    if predict >= ahead or wait < _SELDOM * (wait + predict):
        return "device"
    return "storage" if read > decode else "decode"


def stage_rates(seconds: Mapping[str, float], num_images: int) -> dict[str, float]:
    """Images per second of each stage that took any time, on one worker, as if nothing else held it up.

    `read` and `decode` each as if they had all decode threads to themselves. Images that failed are counted, too.
    """
    timed = {stage: seconds.get(stage, 0.0) for stage in STAGES if stage != "wait"}
    return {stage: num_images / spent_s for stage, spent_s in timed.items() if spent_s > 0}


def add_seconds(all_seconds: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The sum over shards, stage by stage."""
    total: Counter[str] = Counter()
    for seconds in all_seconds:
        total.update(seconds)
    return dict(total)
