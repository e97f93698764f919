"""`pigeonhole jobs rerun`."""

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from orchestrator.cli.client import open_client, open_or_start_client
from orchestrator.cli.output import json_option, print_json, print_line, print_message
from orchestrator.cli.speaking import doing
from orchestrator.contract.errors import ExitCode

if TYPE_CHECKING:
    from orchestrator.jobs.rerun import ManifestComparison
    from orchestrator.jobs.submit import JobClient


@click.command("rerun")
@click.argument("job")
@click.option("--detach", is_flag=True, help="Print the id of the new job, and return.")
@json_option
def rerun_job(job: str, detach: bool, as_json: bool) -> None:
    """Classify the images of JOB again, and say whether the manifest is the same to the byte.

    The new job has the same listing, model and options, and writes into its own folder; JOB's manifest is not touched.
    Exit 0 if both manifests are identical, which removes the new one; 1 if they differ, with the rows and with what was
    different: processor, versions, engine, changed images. JOB may also be a new job of `--detach`: it is followed to
    its end, and compared.

    \b
    Examples:
      pigeonhole jobs rerun c261123-143355-7f3a2b
      pigeonhole jobs rerun c261123-143355-7f3a2b --detach
    """
    from orchestrator.contract.jobs.job_folder import JobFolder
    from orchestrator.contract.settings import get_settings
    from orchestrator.jobs.rerun import compare, remove_rerun, rerun_of

    settings = get_settings()
    original, rerun = rerun_of(settings, job), job
    client: JobClient | None
    if original is None:
        original, (client, rerun) = job, _submit(job, need_worker=not detach)
        if detach:
            print_message(f"`pigeonhole jobs rerun {rerun}` compares the manifests once it has ended")
            print_json({"job": rerun}) if as_json else print_line(rerun)
            return
    elif detach:
        raise click.UsageError(f"job {job} is a rerun of {original} already; without --detach, it is compared")
    else:
        client = None if JobFolder.open(settings, job).outcome() else open_client()
    _follow(client, rerun)
    with doing(f"comparing the manifests of {original} and {rerun}"):
        found = compare(settings, original, rerun)
    if found.identical:
        remove_rerun(settings, rerun)
    print_json(asdict(found)) if as_json else _print(found)
    sys.exit(ExitCode.OK if found.identical else ExitCode.FAILED)


def _submit(job: str, *, need_worker: bool) -> "tuple[JobClient, str]":
    with doing(f"checking job {job}"):
        from orchestrator.contract.settings import get_settings
        from orchestrator.jobs.rerun import prepare_rerun

        prepared = prepare_rerun(get_settings(), job, need_worker=need_worker)
    client = open_or_start_client()
    with doing(f"listing the images of {job}"):
        return client, client.submit(prepared).job


def _follow(client: "JobClient | None", job: str) -> None:
    """Follow a job to its end. Exits with its code where it has no manifest."""
    from orchestrator.cli.progress import follow_to_end, print_end
    from orchestrator.contract.ledger.record import FINAL_STATES
    from orchestrator.contract.settings import get_settings
    from orchestrator.jobs.follow import exit_code, read_record

    settings = get_settings()
    record = read_record(settings, None, job) if client is None else follow_to_end(client, job)
    print_end(settings, record)
    if record.state in FINAL_STATES and not record.result:
        sys.exit(exit_code(settings, record))


def _print(found: "ManifestComparison") -> None:
    from orchestrator.jobs.rerun import MOST_SHOWN

    if found.identical:
        print_line(f"identical: {found.num_images:,} rows, to the byte")
    else:
        print_line(f"{found.num_different:,} of {found.num_images:,} rows differ")
        for path in found.first_different:
            print_line(f"  {path}")
        if found.num_different > MOST_SHOWN:
            print_line(f"  and {found.num_different - MOST_SHOWN:,} more")
        print_message(f"`pigeonhole results diff {found.job} {found.rerun}` shows what differs")
    for reason in found.reasons:
        print_line(f"{'although' if found.identical else 'because'}: {reason}" if found.identical else reason)
