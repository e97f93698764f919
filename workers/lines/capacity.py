"""What this worker can do for a line, told honestly: admission refuses what could not be answered in time."""

from collections.abc import Sequence
from typing import Any

from modeling.images.quotas import num_cores
from workers.device_gate import DeviceGate
from workers.lines.batches import ANSWER_MS
from workers.lines.model import LineModel
from workers.lines.requests import OpenLine
from workers.lines.scheduler import Scheduler
from workers.lines.timings import BatchTimings

_SPARE = 1.15  # slower than measured: the queue that is admitted gets shorter, the throughput stays
_BUSY = 0.02  # of the device's time
_NOTHING = (0.0, 0.0)  # for scripts: no such model here


def capacity_of(
    line: OpenLine, lines: Sequence[OpenLine], scheduler: Scheduler, gate: DeviceGate
) -> tuple[str, dict[str, Any]]:
    """What `LineStore.report_capacity` takes: the numbers for admission, and the facts for people."""
    share = _share(line, lines, scheduler)
    bound_ms = max(gate.bound_ms, _longest_batch_ms(lines, scheduler))
    wait_ms = max(gate.bound_ms, _expected_batch_ms(lines, scheduler))
    first = _numbers(line, line.model, scheduler, share, wait_ms)
    second = _numbers(line, line.degraded, scheduler, share, wait_ms)
    text = " ".join(f"{number:.3f}" for number in (*first, *second))
    model = line.model
    facts: dict[str, Any] = {
        "state": line.state,
        "model": model.name if model else line.line.settings.model,
        "ms_per_image": round(first[0], 3),
        "lead_ms": round(first[1], 1),
        "decode_ms": round(line.decode.expected_ms, 2),
        "trouble": line.trouble or line.model_trouble,
        "loading": line.loading,
    }
    if model is not None:
        means = model.timings.all_expected_ms()
        facts |= {
            "streams": model.streams,
            "batch_ms": {str(size): round(ms, 2) for size, ms in means.items()},
            "bound_ms": round(bound_ms, 1),
            "utilisation": round(scheduler.utilisation(line), 3),
        }
    if line.degraded is not None:
        facts["degraded"] = line.degraded.name
    return text, facts


def _longest_batch_ms(lines: Sequence[OpenLine], scheduler: Scheduler) -> float:
    """Of pushes on this worker."""
    return max((timings.high_ms(size) for timings, size in _largest_batches(lines, scheduler)), default=0.0)


def _expected_batch_ms(lines: Sequence[OpenLine], scheduler: Scheduler) -> float:
    """As the longest takes that an urgent push may have to wait for: of one image while all lines are idle."""
    idle = all(scheduler.utilisation(line) < _BUSY for line in lines)
    batches = _largest_batches(lines, scheduler)
    return max((timings.expected_ms(1 if idle else size) for timings, size in batches), default=0.0)


def _largest_batches(lines: Sequence[OpenLine], scheduler: Scheduler) -> list[tuple[BatchTimings, int]]:
    """The measured times and the largest batch of every model in use."""
    used = [(line, model) for line in lines for model in (line.model, line.degraded) if model is not None]
    return [(model.timings, scheduler.largest_batch(line, model)) for line, model in used]


def _numbers(
    line: OpenLine, model: LineModel | None, scheduler: Scheduler, share: float, wait_ms: float
) -> tuple[float, float]:
    """Milliseconds per image, and from the server to the answer where nothing else waits.

    Steps are not all slow at once: high values of decoding and predicting, and expected ones of the rest.
    """
    if model is None:
        return _NOTHING
    cores = num_cores()
    decode_ms = line.decode.expected_ms
    size = scheduler.largest_batch(line, model)
    alone_ms = model.ms_per_image(size) + decode_ms / cores  # on cores that decode, too
    per_image = max(alone_ms, model.saturated_ms) * _SPARE / share
    overhead_ms = 2 * max(line.answer.expected_ms, ANSWER_MS)  # taking, and answering
    lead = line.decode.high_ms + wait_ms + model.timings.high_ms(1) + overhead_ms
    return per_image, lead


def _share(line: OpenLine, lines: Sequence[OpenLine], scheduler: Scheduler) -> float:
    """Of the device, that this line gets while others are as busy as they are."""
    others = [scheduler.utilisation(other) for other in lines if other is not line]
    busy = sum(used > _BUSY for used in others)
    return max(1.0 / (1 + busy), 1.0 - sum(others))
