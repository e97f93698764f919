"""`pigeonhole workers ...`."""

import click

from orchestrator.cli.lazy import LazyCommand, LazyGroup

COMMANDS = {
    "list": LazyCommand("workers.list:list_workers", "List the workers: version, device, job, last seen, trouble."),
    "drain": LazyCommand("workers.drain:drain_workers", "Let workers finish what they hold, and end."),
    "healthcheck": LazyCommand("workers.healthcheck:healthcheck", "Check the workers of this machine or container."),
}


@click.group(cls=LazyGroup, table=COMMANDS)
def workers() -> None:
    """Workers: show them, drain them, check those of this machine."""
