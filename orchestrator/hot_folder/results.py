"""What a hot folder says of a file: the sidecar of a pushed image, of an image of a job, and of a whole job."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.contract.jobs.rows import Row
from orchestrator.contract.lines.answers import Answer
from orchestrator.hot_folder.claims import Ending
from orchestrator.hot_folder.folders import bin_folder

REVIEW = "review"  # the folder of what a model without a line does not accept
_FAULTS = {"unreadable", "crashed"}  # of the image: another model or another day would not help


@dataclass(frozen=True, slots=True)
class Sorting:
    """Where good files go: into `done/` with a sidecar, or into a folder for each bin without one."""

    by_bin: bool = False

    def good(self, bin_: str, facts: dict[str, Any]) -> Ending:
        """The ending of a file with an answer."""
        if self.by_bin:
            return Ending("done", facts, bin_folder(bin_), sidecar=False)
        return Ending("done", facts)


def bad(reason: str, error: str, **facts: Any) -> Ending:
    """The ending of a file without an answer."""
    return Ending("error", {"reason": reason, "error": error} | facts)


def of_answer(answer: Answer, sorting: Sorting) -> Ending:
    """The ending of a pushed image."""
    facts = answer.to_json() | {"error": answer.error}
    return Ending("error", facts) if answer.reason in _FAULTS else sorting.good(answer.bin, facts)


def of_row(row: Row, job: str, model: str, sorting: Sorting) -> Ending:
    """The ending of an image that a job has answered."""
    prediction = row.prediction
    if not prediction.ok:
        return bad("unreadable", prediction.error or "", error_code=prediction.error_code, job=job, model=model)
    label, accepted = prediction.labels[0], prediction.decision in (None, "accept")
    bin_ = label if accepted else REVIEW
    facts = {
        "bin": bin_, "reason": None if accepted else "low_confidence", "label": label, "score": prediction.scores[0],
        "decision": prediction.decision, "model": model, "job": job,
    }  # fmt: skip
    return sorting.good(bin_, facts)


def of_job(job: str, state: str, model: str, counts: dict[str, Any], manifest: Path) -> Ending:
    """The ending of a folder or a ZIP: in `error/` where no image of it has an answer."""
    facts = {"job": job, "state": state, "model": model, "counts": counts}
    if counts["num_failed"] < counts["num_images"]:
        return Ending("done", facts, manifest=manifest)
    error = f"none of {counts['num_images']} images could be read"
    return Ending("error", {"reason": "unreadable", "error": error} | facts, manifest=manifest)
