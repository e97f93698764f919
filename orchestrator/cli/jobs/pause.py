"""`pigeonhole jobs pause` and `jobs unpause`."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from modeling.names import path_to_text
from orchestrator.cli.client import open_client
from orchestrator.cli.output import json_option, print_json, print_message
from orchestrator.contract.errors import ExitCode
from orchestrator.contract.ledger.record import FINAL_STATES

if TYPE_CHECKING:
    from orchestrator.jobs.submit import JobClient

job_arguments = click.argument("jobs", nargs=-1, required=True, metavar="JOB...")


@click.command("pause")
@job_arguments
@click.option("--reason", default="", help="Shown wherever the paused job is.")
@json_option
def pause_jobs(jobs: tuple[str, ...], reason: str, as_json: bool) -> None:
    """Pause every JOB: workers do nothing for it until `jobs unpause`.

    Takes effect between two batches, in about a second; shards in work are finished or handed back, and no attempt is
    counted. The images are listed meanwhile. A training stops, and goes on from its last checkpoint later. Exit code 1
    if a job has ended already or is about to.

    \b
    Examples:
      pigeonhole jobs pause c261123-143355-7f3a2b
      pigeonhole jobs pause c261123-143355-7f3a2b c261123-143401-52d0aa --reason "until tonight"
    """
    from orchestrator.jobs.pauses import pause

    reason = path_to_text(" ".join(reason.split()))
    _change_all(jobs, lambda client, job: pause(client, job, reason), {"paused": "is paused"}, "pause", as_json=as_json)


@click.command("unpause")
@job_arguments
@json_option
def unpause_jobs(jobs: tuple[str, ...], as_json: bool) -> None:
    """Let every JOB go on that an operator paused. A job whose source is away stays paused until the source is back.

    \b
    Example:
      pigeonhole jobs unpause c261123-143355-7f3a2b
    """
    from orchestrator.jobs.pauses import unpause

    words = {
        "queued": "goes on",
        "running": "goes on",
        "paused": "stays paused until its source is back; `pigeonhole status` says why",
    }
    _change_all(jobs, unpause, words, "unpause", as_json=as_json)


def _change_all(
    jobs: tuple[str, ...], change: Callable[["JobClient", str], str], words: dict[str, str], name: str, *, as_json: bool
) -> None:
    """Change every job, and say what became of it; exits with 1 if one is in a state that has no words."""
    from orchestrator.contract.jobs.job_folder import JobFolder
    from orchestrator.contract.settings import get_settings

    for job in jobs:
        JobFolder.open(get_settings(), job)
    client = open_client()
    states = [(job, change(client, job)) for job in dict.fromkeys(jobs)]
    if as_json:
        print_json([{"job": job, "state": state} for job, state in states])
    for job, state in states:
        if state in words:
            text = f"job {job} {words[state]}"
        elif state in FINAL_STATES:
            text = f"job {job} has ended: {state}; there is nothing to {name}"
        else:
            text = f"job {job} is {state}: too late to {name}"
        if not as_json or state not in words:
            print_message(text)
    if any(state not in words for _, state in states):
        sys.exit(ExitCode.FAILED)
