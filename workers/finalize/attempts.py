"""Which rows of a merged manifest come from which job."""

from array import array
from collections import defaultdict
from itertools import groupby
from typing import Any

from orchestrator.contract.errors import IntegrityError
from orchestrator.contract.jobs.merge_plan import Step


class Attempts:
    """The jobs that the rows come from, the oldest first; two bytes of memory for each row."""

    def __init__(self, base_summary: dict[str, Any], num_rows: int, job: str) -> None:
        """num_rows: of the base. Raises IntegrityError where its summary does not say which job each comes from."""
        earlier = base_summary.get("attempts") or [{"job": base_summary["job"], "rows": f"1-{num_rows}"}]
        self._jobs = [*(each["job"] for each in earlier), job]
        self._base = array("H", bytes(2 * num_rows))
        for number, each in enumerate(earlier):
            for first, last in parse_ranges(each["rows"]):
                if last > num_rows:
                    raise IntegrityError(f"the base's summary names row {last} of {num_rows}")
                self._base[first - 1 : last] = array("H", [number]) * (last - first + 1)
        self._rows = array("H")

    def add(self, step: Step) -> None:
        """The next rows of the merged manifest."""
        if step.row is None:
            self._rows.extend(array("H", [len(self._jobs) - 1]) * step.num_rows)
        else:
            self._rows.extend(self._base[step.row : step.row + step.num_rows])

    def to_json(self) -> list[dict[str, Any]]:
        """For each job that rows come from, their number, and which: from 1, in the order of the manifest."""
        ranges: dict[int, list[str]] = defaultdict(list)
        counts: dict[int, int] = defaultdict(int)
        first = 1
        for number, group in groupby(self._rows):
            count = sum(1 for _ in group)
            ranges[number].append(f"{first}-{first + count - 1}" if count > 1 else str(first))
            counts[number] += count
            first += count
        return [
            {"job": job, "num_rows": counts[number], "rows": ",".join(ranges[number])}
            for number, job in enumerate(self._jobs)
            if counts[number] or number == len(self._jobs) - 1
        ]


def parse_ranges(text: str) -> list[tuple[int, int]]:
    """`3,5-9` as pairs of the first and the last. Raises IntegrityError."""
    try:
        pairs = [part.partition("-") for part in text.split(",") if part]
        ranges = [(int(first), int(last or first)) for first, _, last in pairs]
    except (ValueError, AttributeError) as err:
        raise IntegrityError(f"{text!r:.80} names no rows") from err
    if not all(0 < first <= last for first, last in ranges):
        raise IntegrityError(f"{text!r:.80} names no rows")
    return ranges
