"""`pigeonhole worker`."""

import os
import sys

import click

from orchestrator.cli import speaking
from orchestrator.contract.access import present_folder_exists
from orchestrator.contract.queues import ALL_QUEUES


@click.command()
@click.option(
    "--queues", default=",".join(ALL_QUEUES), show_default=True, help="Queues to take doorbells from, comma-separated."
)
@click.option(
    "--device",
    default="auto",
    show_default=True,
    help="auto (a free GPU, else the CPU), cpu, cuda:N, or cuda:N,M: GPUs that train together.",
)
@click.option(
    "--lines",
    default="all",
    show_default=True,
    help="Lines of pushed images to serve: all, none, or names, comma-separated.",
)
@click.option(
    "--log-level", type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"]), default="INFO", show_default=True,
    help="Lowest level of the log lines on standard error.",
)  # fmt: skip
def worker(queues: str, device: str, lines: str, log_level: str) -> None:
    """Start a worker on this machine; it runs until a signal stops it.

    It holds one device. On a machine with several GPUs start one for each GPU: with `auto` each takes a free one.
    After SIGTERM or Ctrl-C it finishes or hands back its shards; a second signal stops it immediately.

    \b
    Examples:
      pigeonhole worker
      PIGEONHOLE_SERVER_URL=redis://:secret@queue:6379/0 pigeonhole worker --device cuda:1
      pigeonhole worker --queues classify --lines none
    """
    from orchestrator.stack.process import SAFE_PATH

    command = ["-m", "workers", "--queues", queues, "--device", device, "--lines", lines, "--log-level", log_level]
    if not present_folder_exists():
        os.chdir("/")  # libraries of the worker need one
    sys.stdout.flush()
    with speaking.output():  # nothing is said from here on
        os.execve(sys.executable, [sys.executable, *command], os.environ | SAFE_PATH)  # noqa: S606 the worker takes this process's place
