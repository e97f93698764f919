"""What the whole fleet has counted since the server was entered: images, errors, jobs, webhooks.

Scripts add in the same step in which a shard or a job is done, so what is counted is counted once. An emptied server
begins at zero again, as counters of Prometheus may. Names are of fixed sets; who reads them skips any other.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from orchestrator.contract.ledger.live_workers import PREFIX
from orchestrator.contract.ledger.stages import STAGES

if TYPE_CHECKING:
    import redis  # the type alone: commands show records without a server

COUNTS_KEY = f"{PREFIX}:counts"
OUTCOMES = ("ok", "accept", "review", "reject", "failed")  # ok: of a model without a calibration
ERROR_CODES = (
    "missing", "permission", "outside_root", "not_a_file", "unreadable", "empty", "too_large", "too_slow",
    "not_an_image", "unsupported", "truncated", "corrupt", "predict_failed", "crashed_worker", "given_up", "other",
)  # fmt: skip
DELIVERY_OUTCOMES = ("delivered", "failed", "given_up")


class FleetCounts:
    """The counts on one server; safe to share between threads."""

    def __init__(self, client: "redis.Redis") -> None:
        self._client = client

    def add(self, name: str, number: int = 1) -> None:
        self._client.hincrby(COUNTS_KEY, name, number)

    def read(self) -> dict[str, int]:
        """All counts by name; what is not a number is left out."""
        found = cast(dict[str, str], self._client.hgetall(COUNTS_KEY))
        return {name: int(value) for name, value in found.items() if value.isdecimal()}


def shard_counts(
    num_rows: int, errors: Mapping[str, int], decisions: Mapping[str, int], seconds: Mapping[str, float]
) -> dict[str, int]:
    """The counts of a shard that is done. decisions: rows by decision, failed ones as `reject`."""
    num_failed = sum(errors.values())
    counts = {"images:failed": num_failed}
    if decisions:
        counts |= {f"images:{name}": num for name, num in decisions.items()}
        counts["images:reject"] = max(0, counts.get("images:reject", 0) - num_failed)
    else:
        counts["images:ok"] = num_rows - num_failed
    for code, num in errors.items():
        name = f"errors:{code if code in ERROR_CODES else 'other'}"
        counts[name] = counts.get(name, 0) + num
    counts |= {f"stage_us:{stage}": round(seconds[stage] * 1e6) for stage in STAGES if stage in seconds}
    return {name: num for name, num in counts.items() if num > 0}
