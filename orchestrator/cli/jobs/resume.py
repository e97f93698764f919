"""`pigeonhole jobs resume`."""

import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from modeling.names import path_to_text
from orchestrator.cli.client import open_or_start_client, server_answers
from orchestrator.cli.output import json_option, print_json, print_line, print_message, redraw_line
from orchestrator.cli.parameters import FailureLimit
from orchestrator.cli.speaking import doing

if TYPE_CHECKING:
    from orchestrator.contract.jobs.requests import MaxFailures
    from orchestrator.contract.ledger.record import JobRecord
    from orchestrator.contract.settings import Settings
    from orchestrator.jobs.lister import OnListing
    from orchestrator.jobs.merging.changed import Changes
    from orchestrator.jobs.resume import Resumed


@click.command("resume")
@click.argument("job")
@click.option(
    "--max-failures",
    type=FailureLimit(),
    help="Another limit of failed images, for a job that ended because of too many; default: as before.",
)
@click.option("--new-version", is_flag=True, help="Let it go on with the version of the workers, if another began it.")
@click.option("--detach", is_flag=True, help="Print what is missing, and return.")
@json_option
def resume_job(job: str, max_failures: "MaxFailures | None", new_version: bool, detach: bool, as_json: bool) -> None:
    """Go on with a JOB that was cancelled or has failed, or that its server forgot; only what is missing is done.

    The job keeps its id and its output; the manifest is that of an undisturbed run. A training goes on from its last
    checkpoint. Where a job ended before all its images were listed, they are listed again.

    Workers of another version than the one that began a job leave it alone. With --new-version it goes on with theirs,
    also if it has not ended and waits; rows may then differ from those of the other version. The summary says so.

    \b
    Examples:
      pigeonhole jobs resume c261123-143355-7f3a2b
      pigeonhole jobs resume c261123-143355-7f3a2b --max-failures 5% --detach
    """
    from orchestrator.contract.settings import get_settings
    from orchestrator.jobs.follow import exit_code
    from orchestrator.jobs.resumable import check_resumable
    from orchestrator.jobs.resume import ResumeOptions, resume

    settings = get_settings()
    with doing(f"checking job {job}"):
        folder = check_resumable(settings, job)
    just_started = not server_answers(settings)
    client = open_or_start_client()
    options = ResumeOptions(max_failures, not detach, just_started, new_version)
    with doing(f"reading what job {job} has done") as replace_words:
        try:
            resumed = resume(client, folder, options, _show_listing(replace_words))
        finally:
            redraw_line()
    changes = _find_changes(settings, resumed)
    for line in (*describe_resumed(resumed), *describe_changes(changes)):
        print_message(line)
    if detach:
        facts = asdict(resumed) | {"num_missing": resumed.num_missing, "num_changed": changes.num_changed}
        print_json(facts) if as_json else print_line(job)
        return
    from orchestrator.cli.progress import follow_to_end, print_end

    record = follow_to_end(client, job)
    print_end(settings, record)
    _show(settings, record, as_json=as_json)
    sys.exit(exit_code(settings, record))


def describe_resumed(resumed: "Resumed") -> list[str]:
    """What goes on, in sentences."""
    again = "the server had forgotten it; it goes on" if resumed.entered else "resumed"
    if resumed.kind != "classify":
        return [f"job {resumed.job}: {again}; {resumed.goes_on}"]
    shards = resumed.num_shards - resumed.shards_done
    lines = [
        f"job {resumed.job}: {again}; {resumed.num_done:,} of {resumed.num_images:,} images are done, "
        f"{resumed.num_missing:,} are missing, in {shards:,} shard{'s' * (shards != 1)}"
    ]
    if resumed.relisted:
        lines.insert(0, f"job {resumed.job}: its images were listed again")
    if resumed.ends_again:
        lines.append(f"it will end again: {resumed.ends_again}; resume it with another limit")
    return lines


def _find_changes(settings: "Settings", resumed: "Resumed") -> "Changes":
    """Images of finished shards that have changed since they were classified; their rows stay."""
    from orchestrator.contract.jobs.job_folder import JobFolder
    from orchestrator.jobs.merging.changed import Changes, changed_since_parts

    if resumed.kind != "classify" or not resumed.shards_done:
        return Changes()
    with doing("comparing the images that are done with their files") as replace_words:
        folder = JobFolder.open(settings, resumed.job)
        return changed_since_parts(folder, lambda num: replace_words(f"{num:,} images compared with their files"))


def describe_changes(changes: "Changes") -> list[str]:
    """That images have changed, in a sentence; nothing if none has."""
    if not changes.num_changed:
        return []
    were = f"{changes.num_changed:,} image{'s' * (changes.num_changed != 1)} changed"
    return [
        f"{were} since they were classified, or are gone, such as {path_to_text(changes.example or '')!r}; their rows "
        "stay as they are, and `classify --since` classifies them again"
    ]


def _show_listing(replace_words: Callable[[str], None]) -> "OnListing":
    """Show the progress of a long listing."""

    def show(job: str, num_images: int) -> None:
        line = f"{job}: listing again, {num_images:,} images"
        replace_words(line)
        redraw_line(line)

    return show


def _show(settings: "Settings", record: "JobRecord", *, as_json: bool) -> None:
    if record.kind == "train":
        from orchestrator.cli.trained import show_trained  # imports numpy, so only here

        show_trained(settings, record, as_json)
    elif as_json:
        from orchestrator.jobs.follow import to_json

        print_json(to_json(settings, record))
    elif record.result:
        print_line(record.result)
