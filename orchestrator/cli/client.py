"""Opening the client for a command: find the server, or start the local stack."""

from collections.abc import Callable

import click
import redis

from orchestrator.cli.output import print_json, say
from orchestrator.contract.server import connect
from orchestrator.contract.settings import Settings, get_settings
from orchestrator.jobs.submit import JobClient, Submission


def open_client() -> JobClient:
    """The client at the configured server, or at the local stack's if it runs.

    Raises:
        UnavailableError: if there is none, or it does not answer.
    """
    return JobClient(get_settings())


def open_or_start_client(check: Callable[[Settings], None]) -> JobClient:
    """The client; where no server is configured and no local stack runs, that is started first.

    `check` raises what is wrong with the spec, so that no stack is started for nothing.
    """
    settings = get_settings()
    if settings.server_url is None and not _local_server_answers(settings):
        check(settings)
        from orchestrator.contract.devices import list_devices
        from orchestrator.stack.stack import Stack

        say("no server is configured: starting the local stack (`pigeonhole down` stops it)")
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


def say_existed(submission: Submission) -> None:
    """Tell where an idempotency key had been used before."""
    if submission.existed:
        say(f"the same idempotency key stands for job {submission.job} already; nothing new was submitted")


def print_job(job: str, *, as_json: bool) -> None:
    """The id of a job that nobody follows."""
    print_json({"job": job}) if as_json else click.echo(job)
