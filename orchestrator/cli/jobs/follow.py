"""`pigeonhole status`, `watch`, `wait` and `cancel`."""

import sys
import time

import click

from orchestrator.cli import speaking
from orchestrator.cli.client import find_ledger, open_client
from orchestrator.cli.output import (
    duration,
    json_option,
    on_interrupt,
    print_json,
    print_line,
    print_message,
)
from orchestrator.contract.errors import ExitCode
from orchestrator.contract.ledger.record import FINAL_STATES, JobRecord

_NAMES = {"paused_reason": "because"}


@click.command()
@click.argument("job")
@json_option
def status(job: str, as_json: bool) -> None:
    """Show the state and progress of JOB.

    \b
    Example:
      pigeonhole status c261123-143355-7f3a2b --json
    """
    from orchestrator.contract.jobs.job_folder import JobFolder
    from orchestrator.contract.settings import get_settings
    from orchestrator.jobs.delivery import describe_delivery
    from orchestrator.jobs.follow import describe_bound, show_job

    settings = get_settings()
    JobFolder.open(settings, job)
    record, facts = show_job(settings, find_ledger(), job)
    if as_json:
        print_json(facts)
        return
    for name in (
        "job",
        "kind",
        "state",
        "version",
        "priority",
        "source",
        "model",
        "output",
        "result",
        "error",
        "paused_reason",
        "trouble",
    ):
        if facts.get(name):
            print_line(f"{_NAMES.get(name, name):10} {facts[name]}")
    if facts["notify"] is not None:
        print_line(f"{'notify':10} {describe_delivery(facts['notify'])}")
    if record.kind == "classify":
        total = f"{record.num_images:,}{'' if record.listed else '+'}"
        done = "?" if record.state == "unknown" else f"{record.num_done:,}"
        print_line(f"{'images':10} {done} of {total} done, {record.num_failed:,} failed")
        if record.num_shards:
            print_line(f"{'shards':10} {record.shards_done:,} of {record.num_shards:,} done")
        if record.bound:
            print_line(f"{'limited by':10} {describe_bound(record)}")


@click.command()
@click.argument("job")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0),
    help="Stop watching after this number of seconds (exit 124).",
)
@json_option
def watch(job: str, timeout_s: float | None, as_json: bool) -> None:
    """Follow JOB until it ends: a live table on a terminal, a line every few seconds elsewhere.

    \b
    Example:
      pigeonhole watch c261123-143355-7f3a2b
    """
    from orchestrator.cli.progress import follow_to_end, print_end
    from orchestrator.contract.jobs.job_folder import JobFolder
    from orchestrator.contract.settings import get_settings
    from orchestrator.jobs.follow import exit_code, to_json

    JobFolder.open(get_settings(), job)
    record = _ended(job)
    if record is None:
        record = follow_to_end(open_client(), job, timeout_s=timeout_s, fresh=False)
    print_end(get_settings(), record)
    if record.kind == "train":
        from orchestrator.cli.trained import show_trained  # imports numpy, so only here

        show_trained(get_settings(), record, as_json)
    elif as_json:
        print_json(to_json(get_settings(), record))
    elif record.result:
        print_line(record.result)
    sys.exit(exit_code(get_settings(), record))


@click.command()
@click.argument("jobs", nargs=-1, required=True, metavar="JOB...")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(min=0), help="Stop waiting after this number of seconds (exit 124)."
)
@json_option
def wait(jobs: tuple[str, ...], timeout_s: float | None, as_json: bool) -> None:
    """Wait without output until every JOB has ended; the exit code is the highest of theirs.

    \b
    Example:
      pigeonhole wait c261123-143355-7f3a2b c261123-143401-52d0aa --timeout 3600
    """
    from orchestrator.contract.jobs.job_folder import JobFolder
    from orchestrator.contract.settings import get_settings
    from orchestrator.jobs.follow import exit_code, follow, to_json

    settings = get_settings()
    for job in jobs:
        JobFolder.open(settings, job)
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    records = []
    for job in jobs:
        record = _ended(job)
        if record is None:
            client = open_client()
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            with on_interrupt(job), speaking.output():  # this command is silent, and its help says so
                for snapshot in follow(settings, client.ledger, job, timeout_s=left_s):
                    record = snapshot.record
        assert record is not None
        if not record.ended:
            why = f": {record.paused_reason}" if record.paused_reason else ""
            print_message(f"job {job} is still {record.state} after {duration(timeout_s or 0)}{why}")
            sys.exit(ExitCode.TIMED_OUT)
        records.append(record)
    if as_json:
        print_json([to_json(settings, record) for record in records])
    sys.exit(max(exit_code(settings, record) for record in records))


@click.command()
@click.argument("job")
@json_option
def cancel(job: str, as_json: bool) -> None:
    """Cancel JOB. Finished shards stay in its folder; no manifest is published.

    A job whose result is being published is not cancelled (exit 1): it ends by itself, or waits for space for it.

    \b
    Example:
      pigeonhole cancel c261123-143355-7f3a2b
    """
    from orchestrator.contract.jobs.job_folder import JobFolder
    from orchestrator.contract.settings import get_settings

    folder = JobFolder.open(get_settings(), job)
    outcome = folder.outcome()
    state = outcome.state if outcome else open_client().cancel(job)
    if as_json:
        print_json({"job": job, "state": state})
    if state != "cancelling" and state not in FINAL_STATES:
        print_message(f"job {job} is {state}: too late to cancel")
        sys.exit(ExitCode.FAILED)
    if as_json:
        return
    if outcome:
        print_message(f"job {job} has ended already: {state}")
    else:
        print_message(f"job {job} is {'being cancelled' if state == 'cancelling' else state}")


def _ended(job: str) -> JobRecord | None:
    """The record of a job that has ended, from the disk alone; None while it has not."""
    from orchestrator.contract.settings import get_settings
    from orchestrator.jobs.follow import read_record

    record = read_record(get_settings(), None, job)
    return record if record.ended else None
