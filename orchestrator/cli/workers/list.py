"""`pigeonhole workers list`."""

from dataclasses import asdict

import click

from orchestrator.cli.client import open_client
from orchestrator.cli.output import duration, json_option, print_json, print_message, print_table
from orchestrator.contract.ledger.live_workers import WorkerRecord


@click.command("list")
@json_option
def list_workers(as_json: bool) -> None:
    """List the workers that were seen within the last hour: version, device, what each does, trouble.

    The beginning of a name stands for the worker wherever a command takes one, as long as only one begins that way.

    \b
    Example:
      pigeonhole workers list --json
    """
    found = open_client().ledger.live_workers.survey()
    for worker in found.malformed:
        print_message(f"worker {worker!r} is left out: its record cannot be read", color="yellow")
    if as_json:
        print_json([asdict(record) | {"alive": record.alive, "job": record.job} for record in found.records])
        return
    if not found.records:
        print_message("no workers; start one with `pigeonhole worker`")
        return
    print_table(
        ("worker", "version", "device", "doing", "for", "last seen", "images", "trouble"),
        [_row(record) for record in found.records],
        colors=[_color(record) for record in found.records],
    )


def _row(record: WorkerRecord) -> tuple[object, ...]:
    return (
        record.worker,
        record.version or "?",
        record.device,
        _doing(record),
        duration(record.since_s) if record.alive else "",
        f"{duration(record.heartbeat_age_s)} ago",
        record.num_images,
        _trouble(record),
    )


def _doing(record: WorkerRecord) -> str:
    if not record.alive:
        return "gone"
    if record.draining:
        return "draining" if record.doing in ("idle", "draining") else f"draining, {record.doing}"
    return record.doing


def _trouble(record: WorkerRecord) -> str:
    return record.trouble if record.alive else "it is frozen or dead"


def _color(record: WorkerRecord) -> str | None:
    if not record.alive:
        return "red"
    return "yellow" if record.trouble or record.draining else None
