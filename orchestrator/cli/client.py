"""Opening the client for a command: find the server, or start the local stack."""

import click
import redis

from orchestrator.cli.output import print_json, print_message
from orchestrator.contract.server import connect
from orchestrator.contract.settings import Settings, get_settings
from orchestrator.jobs.submit import JobClient, Submission


def open_client() -> JobClient:
    """The client of the configured server, else of the local stack's.

    Raises UnavailableError where there is no server, or it does not answer.
    """
    return JobClient(get_settings())


def open_or_start_client() -> JobClient:
    """The client; where no server is configured and no local stack runs, the local stack is started first.

    Prepare the job first, so that an invalid job starts nothing.
    """
    settings = get_settings()
    if settings.server_url is None and not _local_server_answers(settings):
        from orchestrator.contract.devices import list_devices
        from orchestrator.stack.stack import Stack

        print_message("no server is configured: starting the local stack (`pigeonhole down` stops it)")
        Stack(settings).up(list_devices())
    return JobClient(settings)


def _local_server_answers(settings: Settings) -> bool:
    url = settings.find_server_url()
    if url is None:
        return False
    try:
        return bool(connect(url).ping())
    except (redis.RedisError, OSError):
        return False


def print_existed(submission: Submission) -> None:
    """Print a message if the idempotency key stands for an earlier job."""
    if submission.existed:
        print_message(f"job {submission.job} was submitted with this idempotency key before; nothing new was submitted")


def print_job(job: str, *, as_json: bool) -> None:
    print_json({"job": job}) if as_json else click.echo(job)
