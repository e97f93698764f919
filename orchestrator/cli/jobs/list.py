"""`pigeonhole jobs` alone, and `pigeonhole jobs list`."""

import time
from typing import Any

import click

from orchestrator.cli.client import find_ledger
from orchestrator.cli.jobs.options import list_options
from orchestrator.cli.output import duration, print_json, print_message, print_table
from orchestrator.contract.errors import IntegrityError, MessageError, NotFoundError
from orchestrator.contract.ledger.record import JobRecord


@click.command("list")
@list_options
def list_jobs(limit: int, active: bool, as_json: bool) -> None:
    """List jobs, newest first. Works without a server, too: jobs that have ended are on the disk.

    \b
    Examples:
      pigeonhole jobs list
      pigeonhole jobs list --active --json
    """
    from orchestrator.contract.jobs.job_folder import all_jobs
    from orchestrator.contract.settings import get_settings
    from orchestrator.jobs.delivery import describe_delivery, is_failing
    from orchestrator.jobs.follow import read_record, to_json

    settings, ledger = get_settings(), find_ledger()
    records: list[tuple[JobRecord, dict[str, Any]]] = []
    for job in all_jobs(settings):
        if len(records) == limit:
            break
        try:
            record = read_record(settings, ledger, job)
            facts = to_json(settings, record, ledger)
        except NotFoundError:
            continue  # its submission is in progress, or has failed
        except (MessageError, IntegrityError) as err:
            print_message(f"cannot read job {job}: {err}", color="yellow")
            continue
        if not (active and record.ended):
            records.append((record, facts))
    if as_json:
        print_json([facts for _, facts in records])
    elif records:
        columns = ("job", "state", "images", "failed", "age", "source")
        print_table(columns, [_row(record, facts["source"]) for record, facts in records])
        for record, facts in records:
            if record.paused_reason:
                print_message(f"{record.job} is paused: {record.paused_reason}", color="yellow")
            if is_failing(facts["notify"]):
                print_message(f"{facts['job']}: {describe_delivery(facts['notify'])}", color="yellow")
    else:
        print_message("no jobs")


def _row(record: JobRecord, source: str) -> tuple[str, ...]:
    age_s = time.time() - record.created_ms / 1000
    images = f"{record.num_done}/{record.num_images}" if record.kind == "classify" else f"{record.num_images}"
    return record.job, record.state, images, str(record.num_failed), duration(age_s), source
