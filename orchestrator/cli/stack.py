"""`pigeonhole up` and `down`."""

import click

from orchestrator.cli.output import json_option, print_json, print_message, print_table
from orchestrator.cli.speaking import doing
from orchestrator.contract.devices import list_devices, list_gpus
from orchestrator.contract.errors import UsageError
from orchestrator.contract.server_url import redact
from orchestrator.contract.settings import get_settings
from orchestrator.stack.stack import Stack


@click.command()
@click.option(
    "--device", "devices", multiple=True, help="Device of a worker: cpu or cuda:N; may be repeated. Default: all."
)
@json_option
def up(devices: tuple[str, ...], as_json: bool) -> None:
    """Start the local stack in the background: a server that keeps its data, and a worker for each device.

    \b
    Examples:
      pigeonhole up
      pigeonhole up --device cuda:0 --device cpu
    """
    settings = get_settings()
    if settings.server_url is not None:
        url = redact(settings.server_url.get_secret_value())
        raise UsageError(f"PIGEONHOLE_SERVER_URL names another server, {url}; unset it to use a local stack")
    with doing("starting a server and workers, which import torch"):
        processes = Stack(settings).up(_checked(devices) or list_devices())
    if as_json:
        print_json([{"name": process.name, "pid": process.pid, "log": process.log} for process in processes])
    else:
        print_table(
            ("process", "pid", "log"), [(process.name, process.pid or "?", process.log) for process in processes]
        )


@click.command()
@json_option
def down(as_json: bool) -> None:
    """Stop what `up` started, and nothing else. Active jobs continue after the next `up`.

    \b
    Example:
      pigeonhole down
    """
    with doing("stopping: workers hand back what they hold"):
        stopped = Stack(get_settings()).down()
    if not as_json:
        print_message(f"stopped {', '.join(process.name for process in stopped)}" if stopped else "no local stack runs")
    else:
        print_json([process.name for process in stopped])


def _checked(devices: tuple[str, ...]) -> list[str]:
    """The devices asked for, each once. Raises UsageError if this machine has no such device."""
    here = ["cpu", *(f"cuda:{index}" for index in list_gpus())] if devices else []
    for device in devices:
        if device not in here:
            raise UsageError(f"--device {device!r} is not a device of this machine; choose from {', '.join(here)}")
    return list(dict.fromkeys(devices))
