"""Which rows of a manifest are tried again by a retry: those that carry an error."""

from array import array
from collections.abc import Collection, Iterator

from orchestrator.contract.errors import UsageError
from orchestrator.contract.jobs.merge_plan import PlanFacts, PlanWriter
from orchestrator.contract.jobs.sidecar import SidecarLine, is_unchanged, parse_line
from orchestrator.jobs.merging.base import Base
from orchestrator.jobs.merging.changed import OnCompared, prefix_of, start_now

_REPORT_EVERY = 2048  # images


class FailedRows:
    """The failed rows of a base, all or by their codes; eight bytes of memory for each."""

    def __init__(self, base: Base, codes: Collection[str]) -> None:
        """codes: none: all. Raises UsageError where no row has one of them."""
        _check_codes(base, codes)
        self._base = base
        self._rows = array(
            "Q",
            (
                number
                for number, row in enumerate(base.published.rows())
                if row.prediction.error_code is not None and (not codes or row.prediction.error_code in codes)
            ),
        )
        self._num_rows = self._num_changed = self._num_stale = 0

    def paths(self) -> Iterator[str]:
        """The images, in the order of their rows."""
        return (line.path for _, line, is_failed in self._lines() if is_failed)

    def choose(self, paths: Iterator[str], plan: PlanWriter, on_compared: OnCompared) -> Iterator[str]:
        """The same, with a plan that keeps all other rows; every image is compared with its file as it is now."""
        prefix = prefix_of(self._base.summary["root"])
        for data, line, is_failed in self._lines():
            has_changed = line.as_read is not None and not is_unchanged(data, start_now(prefix, line.path))
            if is_failed:
                self._num_changed += has_changed
                plan.add_new()
                yield line.path
            else:
                self._num_stale += has_changed
                plan.keep(self._num_rows)
            self._num_rows += 1
            if self._num_rows % _REPORT_EVERY == 0:
                on_compared(self._num_rows)

    def facts(self, plan: PlanWriter) -> PlanFacts:
        return PlanFacts(
            plan_sha256=plan.close(),
            sha256=self._base.summary["listing"]["sha256"],
            num_rows=self._num_rows,
            num_kept=plan.num_kept,
            num_new=plan.num_new,
            num_changed=self._num_changed,
            num_gone=0,
            num_stale=self._num_stale,
        )

    def _lines(self) -> Iterator[tuple[bytes, SidecarLine, bool]]:
        """Every line of the sidecar, parsed, and whether its row is to be tried again."""
        rows = iter(self._rows)
        failed = next(rows, None)
        path = self._base.files.sidecar
        with path.open("rb") as file:
            for number, line in enumerate(file):
                is_failed = number == failed
                if is_failed:
                    failed = next(rows, None)
                yield line, parse_line(line, f"{path}, line {number + 1}"), is_failed


def _check_codes(base: Base, codes: Collection[str]) -> None:
    found = base.summary["counts"]["error_codes"]
    if not found:
        raise UsageError(f"no image of {base.published.manifest} has failed; there is nothing to try again")
    if codes and not any(code in found for code in codes):
        shown = ", ".join(f"{code} {num:,}" for code, num in found.items())
        raise UsageError(f"no image of {base.published.manifest} has failed with {' or '.join(codes)}; it has {shown}")
