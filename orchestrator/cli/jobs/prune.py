"""`pigeonhole jobs prune`."""

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from orchestrator.cli.client import find_ledger
from orchestrator.cli.output import json_option, print_json, print_line, print_message
from orchestrator.cli.parameters import Duration
from orchestrator.cli.speaking import doing
from orchestrator.contract.errors import ExitCode

if TYPE_CHECKING:
    from orchestrator.jobs.prune import Pruned


@click.command("prune")
@click.option("--older-than", "older_than_s", type=Duration(), required=True, help="Since the end of a job, as in 30d.")
@click.option("--keep-manifests", is_flag=True, help="Keep results that lie in the folders of their jobs.")
@click.option("--dry-run", is_flag=True, help="Remove nothing; print what would be removed.")
@json_option
def prune_jobs(older_than_s: float, keep_manifests: bool, dry_run: bool, as_json: bool) -> None:
    """Remove the folders of jobs that ended long ago, and what killed processes left.

    A job that was cancelled or has failed can be resumed as long as its folder is there, so until it is older than
    that; after that it cannot, and the command says how many these are. Results that were written with -o stay, and so
    do active jobs and jobs that another one refers to.

    \b
    Examples:
      pigeonhole jobs prune --older-than 30d --dry-run
      pigeonhole jobs prune --older-than 30d --keep-manifests
    """
    from orchestrator.contract.settings import get_settings
    from orchestrator.jobs.prune import PruneOptions, prune

    ledger = find_ledger()
    active = ledger.active() if ledger is not None else None
    options = PruneOptions(older_than_s, keep_manifests, dry_run)
    with doing("looking through the jobs"):
        pruned = prune(get_settings(), options, active)
    if as_json:
        print_json(asdict(pruned) | {"older_than_s": older_than_s, "dry_run": dry_run})
    else:
        _print(pruned, dry_run=dry_run)
    for job, why in pruned.failed.items():
        print_message(f"job {job} stays: {why}", color="yellow")
    sys.exit(ExitCode.FAILED if pruned.failed else ExitCode.OK)


def _print(pruned: "Pruned", *, dry_run: bool) -> None:
    verb = "would be removed" if dry_run else "removed"
    num = len(pruned.removed)
    print_line(f"{num:,} job{'s' * (num != 1)} {verb}, {pruned.bytes / 1e6:,.1f} MB")
    counts = (
        (pruned.kept_manifests, "more jobs: all but the result"),
        (pruned.resumable, "of these jobs could have been resumed until now"),
        (pruned.kept_for_resume, "younger jobs can still be resumed and are kept whole"),
        (pruned.in_use, "jobs are kept because another job or a webhook needs them"),
    )
    for jobs, words in counts:
        if jobs:
            print_line(f"{len(jobs):,} {words}")
    if pruned.left_behind:
        print_line(f"{pruned.left_behind:,} folders that killed processes left {verb}")
