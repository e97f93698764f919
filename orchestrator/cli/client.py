"""What commands share that submit jobs: open the client (find the server, or start the local stack), submit, follow.

Functions import what they need: most of a command's help text would be the time of importing the client of Redis.
"""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from orchestrator.cli.output import print_json, print_line, print_message
from orchestrator.cli.speaking import doing
from orchestrator.contract.errors import UnavailableError

if TYPE_CHECKING:
    from orchestrator.contract.ledger.ledger import Ledger
    from orchestrator.contract.ledger.record import JobRecord
    from orchestrator.contract.settings import Settings
    from orchestrator.jobs.prepare import PreparedTrain
    from orchestrator.jobs.specs import EvaluateSpec, TrainSpec
    from orchestrator.jobs.submit import JobClient, Submission

ShowResult = Callable[["Settings", "JobRecord", bool], None]
"""Prints the result of a job that has ended; as JSON, if the last argument is set."""


def open_client() -> "JobClient":
    """The client of the configured server, else of the local stack's.

    Raises UnavailableError where there is no server, or it does not answer.
    """
    from orchestrator.contract.settings import get_settings
    from orchestrator.jobs.submit import JobClient

    return JobClient(get_settings())


def find_ledger() -> "Ledger | None":
    """The ledger; None, with a message on standard error, where no server answers."""
    try:
        return open_client().ledger
    except UnavailableError as err:
        print_message(f"showing only what is on the disk: {err}", color="yellow")
        return None


def open_or_start_client() -> "JobClient":
    """The client; where no server is configured and no local stack runs, the local stack is started first.

    Prepare the job first, so that an invalid job starts nothing.
    """
    from orchestrator.contract.settings import get_settings
    from orchestrator.jobs.submit import JobClient

    settings = get_settings()
    elsewhere = settings.server_url is not None or settings.shared_elsewhere() is not None
    if not elsewhere and not server_answers(settings):
        from orchestrator.contract.devices import list_devices
        from orchestrator.stack.stack import Stack

        print_message("no server is configured: starting the local stack (`pigeonhole down` stops it)")
        with doing("starting a server and workers, which import torch"):
            Stack(settings).up(list_devices())
    return JobClient(settings)


def server_answers(settings: "Settings") -> bool:
    """Whether there is a server, and it answers."""
    import redis

    from orchestrator.contract.server import connect

    url = settings.find_server_url()
    if url is None:
        return False
    try:
        return bool(connect(url).ping())
    except (redis.RedisError, OSError):
        return False


def submit_and_follow(spec: "TrainSpec | EvaluateSpec", show: ShowResult, *, detach: bool, as_json: bool) -> None:
    """Submit a job; print its id if it is detached, else follow it to its end, show its result, and exit."""
    with doing(f"checking {spec.data}"):
        from orchestrator.contract.settings import get_settings
        from orchestrator.jobs.prepare import PreparedTrain, prepare

        prepared = prepare(get_settings(), spec)
    if isinstance(prepared, PreparedTrain):
        _print_resolved(prepared)
    client = open_or_start_client()
    submission = client.submit(prepared)
    print_existed(submission)
    follow_unless_detached(client, submission.job, show, detach=detach, as_json=as_json)


def _print_resolved(prepared: "PreparedTrain") -> None:
    """Print what was chosen, and what an operator may want to change."""
    from orchestrator.jobs.prepare import describe_new_labels
    from orchestrator.jobs.training import describe_choice

    for note in prepared.resolved.notes:
        print_message(note)
    if chosen := describe_choice(prepared.resolved):
        print_message(chosen)
    if prepared.resolved.choice is not None and prepared.resolved.choice.advice:
        print_message(prepared.resolved.choice.advice, color="yellow")
    if note := describe_new_labels(prepared):
        print_message(note, color="yellow")


def follow_unless_detached(client: "JobClient", job: str, show: ShowResult, *, detach: bool, as_json: bool) -> None:
    """Print the id of a detached job; else follow the job to its end, show its result, and exit with its code."""
    if detach:
        print_json({"job": job}) if as_json else print_line(job)
        return
    from orchestrator.cli.progress import follow_to_end, print_end
    from orchestrator.jobs.follow import exit_code

    record = follow_to_end(client, job)
    print_end(client.settings, record)
    show(client.settings, record, as_json)
    sys.exit(exit_code(client.settings, record))


def print_existed(submission: "Submission") -> None:
    """Print a message if the idempotency key stands for an earlier job."""
    if submission.existed:
        print_message(f"job {submission.job} was submitted with this idempotency key before; nothing new was submitted")
