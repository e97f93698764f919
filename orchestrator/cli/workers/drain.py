"""`pigeonhole workers drain`."""

import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from orchestrator.cli.client import open_client
from orchestrator.cli.output import duration, json_option, print_json, print_message
from orchestrator.cli.speaking import doing
from orchestrator.contract.errors import ExitCode, NotFoundError, UsageError
from orchestrator.contract.ledger.live_workers import Drain, WorkerRecord

if TYPE_CHECKING:
    from orchestrator.contract.ledger.ledger import Ledger
    from orchestrator.fleet import DrainedWorker

    Looks = Iterator[list[DrainedWorker]]


@click.command("drain")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--all", "every", is_flag=True, help="All workers; lines are closed although no worker is left for them.")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(min=0), help="Stop waiting after this number of seconds (exit 124)."
)
@json_option
def drain_workers(names: tuple[str, ...], every: bool, timeout_s: float | None, as_json: bool) -> None:
    """Let workers finish what they hold, and end; waits until they have.

    A worker that drains finishes its shard, hands a training back at its last checkpoint, takes no further doorbell,
    keeps its lines of pushed images open until other workers serve them, and exits with 0. NAME is a worker as
    `workers list` shows it, or the beginning of its name. Exit code 1 if one is lost meanwhile: it is frozen or dead.

    A supervisor may start another worker in its place: with systemd `systemctl stop` the unit, on Kubernetes scale the
    deployment down. Both send SIGTERM, after which a worker has 6 s for its shard and hands it back otherwise.

    \b
    Examples:
      pigeonhole workers drain gpu1-cuda0
      pigeonhole workers drain --all --timeout 600
    """
    from orchestrator.fleet import describe_waiting, drain

    ledger = open_client().ledger
    chosen = _choose(ledger, names, every=every)
    how: Drain = "now" if every else "lines"
    looks = drain(ledger, chosen, how)
    last = next(looks)
    if waiting := describe_waiting(ledger):
        print_message(f"no worker is left for these jobs, which wait for one: {waiting}", color="yellow")
    last = _follow(last, looks, timeout_s)
    if as_json:
        print_json([asdict(worker) for worker in last])
    sys.exit(_exit_code(last, timeout_s))


def _choose(ledger: "Ledger", names: tuple[str, ...], *, every: bool) -> list[WorkerRecord]:
    from orchestrator.fleet import find_workers

    if every == bool(names):
        raise UsageError("name the workers to drain, or give --all; `pigeonhole workers list` shows them")
    records = ledger.live_workers.workers()
    if not every:
        return find_workers(records, names)
    if alive := [record for record in records if record.alive]:
        return alive
    raise NotFoundError("no worker is alive: there is nothing to drain")


def _follow(last: list["DrainedWorker"], looks: "Looks", timeout_s: float | None) -> list["DrainedWorker"]:
    """Say what each worker does whenever that changes; returns the last look."""
    said: dict[str, DrainedWorker] = {}
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    try:
        with doing("waiting for workers to end"):
            while True:
                for worker in last:
                    if said.get(worker.worker) != worker:
                        _say(worker)
                        said[worker.worker] = worker
                if deadline is not None and time.monotonic() > deadline:
                    return last
                if (look := next(looks, None)) is None:
                    return last
                last = look
    except KeyboardInterrupt:
        print_message("the workers go on draining; `pigeonhole workers list` shows them")
        sys.exit(ExitCode.INTERRUPTED)


def _say(worker: "DrainedWorker") -> None:
    if worker.state == "drained":
        print_message(f"{worker.worker}: drained", color="green")
    elif worker.state == "lost":
        print_message(
            f"{worker.worker}: {worker.doing}; other workers take over its shards, and it drains if it comes back",
            color="red",
        )
    else:
        print_message(f"{worker.worker}: draining, {worker.doing}")


def _exit_code(last: list["DrainedWorker"], timeout_s: float | None) -> ExitCode:
    left = [worker.worker for worker in last if worker.state == "draining"]
    if left:
        print_message(f"{', '.join(left)} still draining after {duration(timeout_s or 0)}")
        return ExitCode.TIMED_OUT
    return ExitCode.FAILED if any(worker.state == "lost" for worker in last) else ExitCode.OK
