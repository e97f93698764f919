"""`pigeonhole workers healthcheck`: imports little, since containers run it every few seconds."""

import sys

import click

from orchestrator.cli.output import json_option, print_json, print_line, print_message
from orchestrator.contract.errors import ExitCode
from orchestrator.contract.health import Health, workers_here


@click.command("healthcheck")
@click.argument("name", required=False, default="")
@click.option("--ready", is_flag=True, help="Also fail if a worker does not take work now: it starts, drains, waits.")
@json_option
def healthcheck(name: str, ready: bool, as_json: bool) -> None:
    """Check the workers of this machine or container, or those whose name begins with NAME; cheap, and no network.

    Exit code 0: all are healthy. 1: one is not: a process is frozen, hangs or has ended, or its connection to the
    server is dead although the server answers. 69: no worker runs here, or with --ready one takes no work now. A
    worker whose server is away is healthy, and not ready.

    The workers are found by what they write below TMPDIR, which must be the same here.

    \b
    Examples:
      pigeonhole workers healthcheck
      pigeonhole workers healthcheck --ready --json
    """
    found = [health for health in workers_here() if health.worker.startswith(name)]
    if as_json:
        print_json([_facts(health) for health in found])
    for health in found if not as_json else ():
        print_line(_line(health))
    if not found:
        print_message("no worker runs here; the check must have the worker's TMPDIR and container")
    sys.exit(_exit_code(found, ready=ready))


def _exit_code(found: list[Health], *, ready: bool) -> ExitCode:
    if not all(health.healthy for health in found):
        return ExitCode.FAILED
    if not found or (ready and not all(health.ready for health in found)):
        return ExitCode.UNAVAILABLE
    return ExitCode.OK


def _line(health: Health) -> str:
    state = "ready" if health.ready else "healthy, not ready" if health.healthy else "unhealthy"
    return f"{health.worker}: {state}" + "".join(f"; {why}" for why in (*health.problems, *health.waits))


def _facts(health: Health) -> dict[str, object]:
    return {
        "worker": health.worker,
        "healthy": health.healthy,
        "ready": health.ready,
        "problems": list(health.problems),
        "waits": list(health.waits),
    }
