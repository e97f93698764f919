"""Runs a job again beside its manifest, and says whether both are the same to the byte, or where they differ."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from modeling.names import path_to_text, text_to_path
from orchestrator.contract.errors import IntegrityError
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.requests import ClassifyRequest
from orchestrator.contract.jobs.sidecar import sidecar_path
from orchestrator.contract.settings import Settings
from orchestrator.jobs.pinned import pin_again, published_request
from orchestrator.jobs.prepare import PreparedClassify
from orchestrator.jobs.prune import remove_folder
from orchestrator.jobs.results import Published, find_published
from orchestrator.jobs.sources import Source
from orchestrator.jobs.specs import ClassifySpec
from orchestrator.jobs.walk import SourceOptions

MOST_SHOWN = 10  # rows that differ
_RETIRED_S = 10.0


@dataclass(frozen=True)
class ManifestComparison:
    """Two manifests of one listing. reasons: why they may differ, most telling first; also where they do not."""

    job: str
    rerun: str
    identical: bool
    num_images: int
    num_different: int
    first_different: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)


def prepare_rerun(settings: Settings, job: str, *, need_worker: bool) -> PreparedClassify:
    """A job that classifies the images of `job` again, into a folder of its own.

    Raises NotFoundError where the job, its manifest, model or source is not there, UsageError where it cannot be run
    again, IntegrityError where the manifest was changed, ModelingError where another model has its name.
    """
    request, published = _published(settings, job)
    model, root = pin_again(settings, request), text_to_path(request.root)
    source = Source(text_to_path(request.source), root, (row.path for row in published.rows()), is_list=True)
    spec = ClassifySpec(
        source.text,
        request.model.ref,
        top_k=request.top_k,
        shard_size=request.shard_size,
        precision=request.precision,
        checksum=request.checksum,
        rerun_of=job,
        priority=request.priority,
        need_worker=need_worker,
        reading=SourceOptions(follow_symlinks=request.follow_symlinks),
    )
    return PreparedClassify(settings, spec, source, model, None, request.output_format, None)


def _published(settings: Settings, job: str) -> tuple[ClassifyRequest, Published]:
    """The request and the manifest of a job, if its manifest is as the job wrote it."""
    request = published_request(settings, job)
    published = find_published(settings, job)
    if not published.is_unchanged():
        raise IntegrityError(f"{published.manifest} was changed since job {job} wrote it; there is nothing to compare")
    return request, published


def rerun_of(settings: Settings, job: str) -> str | None:
    """The job that `job` repeats; None where it is none of `jobs rerun`."""
    request = JobFolder.open(settings, job).request()
    return request.rerun_of if isinstance(request, ClassifyRequest) else None


def compare(settings: Settings, job: str, rerun: str) -> ManifestComparison:
    """Compare the manifest of `job` with that of its rerun, which has ended.

    Raises NotFoundError where one of them is not there, IntegrityError where one was changed.
    """
    _, before = _published(settings, job)
    _, after = _published(settings, rerun)
    num_images = before.summary["counts"]["num_images"]
    identical = before.summary["manifest"]["sha256"] == after.summary["manifest"]["sha256"]
    num_different, first = (0, []) if identical else _different_rows(before, after)
    reasons = list(_reasons(before, after))
    return ManifestComparison(job, rerun, identical, num_images, num_different, first, reasons)


def remove_rerun(settings: Settings, job: str) -> None:
    """Remove a rerun that has nothing more to say, once its worker has entered its end; later, `jobs prune` does."""
    deadline = time.monotonic() + _RETIRED_S
    while (settings.active / job).exists():
        if time.monotonic() > deadline:
            return
        time.sleep(0.05)
    remove_folder(settings, job)


def _different_rows(before: Published, after: Published) -> tuple[int, list[str]]:
    """The number of rows that differ, and the first of their paths."""
    number, first = 0, list[str]()
    for old, new in zip_longest(before.rows(), after.rows()):
        if old != new:
            number += 1
            if len(first) < MOST_SHOWN:
                first.append(path_to_text((old or new).path))
    return number, first


def _reasons(before: Published, after: Published) -> Iterator[str]:
    """What was different between the two runs."""
    changed = _changed_images(before.manifest, after.manifest)
    if changed is None:
        yield "whether images were changed is unknown: a sidecar is missing"
    elif changed:
        yield f"images were changed since: {changed:,} have another size, time or digest, or cannot be read any more"
    for key, words in (("made_with", "processor or versions"), ("engines", "engine")):
        then, now = _listed(before.summary, key), _listed(after.summary, key)
        if then != now:
            yield f"another {words}: {' and '.join(then) or 'unknown'}; now {' and '.join(now) or 'unknown'}"
    for published, when in ((before, "then"), (after, "now")):
        if published.summary["shards"]["shards_given_up"]:
            yield f"{when}, shards were given up: workers died on them"
        if stopped := published.summary["repeats"]["too_slow_by_clock"]:
            yield f"{when}, the clock stopped {stopped:,} images, which a faster machine may decode"
        if crashed := published.summary["counts"]["error_codes"].get("crashed_worker"):
            yield f"{when}, {crashed:,} images ended workers, which they may not do elsewhere"
    if before.summary.get("attempts"):
        yield "the manifest was merged from several jobs: its images were in other batches"


def _listed(summary: dict[str, Any], key: str) -> list[str]:
    return [str(each) for each in summary.get(key, [])]


def _changed_images(before: Path, after: Path) -> int | None:
    """The images that were read with another size, time or digest; None where a sidecar is missing."""
    try:
        with sidecar_path(before).open("rb") as old, sidecar_path(after).open("rb") as new:
            return sum(1 for first, second in zip_longest(old, new) if first != second)
    except FileNotFoundError:
        return None
