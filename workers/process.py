"""A worker's parent process: takes doorbells from the broker, starts the pool child, and runs the maintenance threads.

It never imports torch. The pool child (`child.py`) holds the device and does the work. On SIGTERM or Ctrl-C the worker
takes no further doorbell, and finishes or hands back what it holds; a second signal stops it immediately.
"""

import logging
import os
import secrets
import shutil
import signal
import socket
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import click
import psutil
from celery import Celery, signals
from celery.worker import state as worker_state

from orchestrator.contract.access import explain_os_error
from orchestrator.contract.app import create_app, ring
from orchestrator.contract.errors import ExitCode, PigeonholeError, UsageError
from orchestrator.contract.home import OtherHomeError, check_home_access, join_server
from orchestrator.contract.ledger.ledger import Ledger
from orchestrator.contract.ledger.live_workers import HEARTBEAT_S
from orchestrator.contract.ledger.periodic_call import PeriodicCall
from orchestrator.contract.queues import ALL_QUEUES, FINALIZE
from orchestrator.contract.run_folder import own_run_folder
from orchestrator.contract.server import SERVER_ERRORS, connect, require_answer
from orchestrator.contract.server_url import redact
from orchestrator.contract.settings import get_settings
from orchestrator.contract.shown import printable, without_logins
from workers.broker.install import install
from workers.child import WORKER_ENVIRONMENT, WorkerFacts, configure_logging
from workers.child_watch import ChildWatch
from workers.devices import Device, take_device
from workers.early_child import environment_of_child
from workers.lines.choice import LineChoice
from workers.lines.maintenance import LinesMaintenance
from workers.lines.sweeping import LineSweeper
from workers.sweep import sweep
from workers.vitals import Vitals
from workers.webhooks import WebhookSender

logger = logging.getLogger(__name__)


@click.command(help="Start a worker; `pigeonhole worker --help` says more.")
@click.option("--queues", default=",".join(ALL_QUEUES))
@click.option("--device", "wanted", default="auto")
@click.option("--lines", default="all")
@click.option("--log-level", default="INFO")
def main(queues: str, wanted: str, lines: str, log_level: str) -> None:
    """Run one worker until a signal stops it."""
    configure_logging(log_level)
    try:
        LineChoice.parse(lines)
        run_worker(_parse_queues(queues), take_device(wanted), lines, log_level)
    except PigeonholeError as err:
        click.echo(f"error: {printable(without_logins(str(err)))}", err=True)
        sys.exit(err.exit_code)
    except OSError as err:
        if (described := explain_os_error(err)) is None:
            raise
        logger.debug("the worker ends", exc_info=True)
        click.echo(f"error: {described}", err=True)
        sys.exit(ExitCode.FAILED)


def run_worker(queues: tuple[str, ...], device: Device, lines: str, log_level: str) -> None:
    """Hold `device`, take doorbells from `queues` and serve `lines` until a signal stops the worker."""
    settings = get_settings()
    url = settings.require_server_url()
    ledger = Ledger(connect(url))
    require_answer(ledger.client, url)
    check_home_access(settings)
    home = join_server(settings, ledger.client)
    run_folder = own_run_folder()
    worker = f"{socket.gethostname()}-{device.name.replace(':', '').replace(',', '-')}-{os.getpid()}"
    worker += f"-{secrets.token_hex(3)}"  # containers may share host names and pids
    facts = WorkerFacts(worker, device.torch_name, run_folder / "drain", log_level, lines)
    os.environ[WORKER_ENVIRONMENT] = facts.to_json()
    if device.visible is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device.visible
        os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # as NVML numbers them; CUDA's default order is by speed
    os.environ.update(environment_of_child(os.environ))
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(run_folder / "torch"))  # made by torch's exporter, never used
    app = create_app(url, include=("workers.tasks",))
    install(app)
    maintenance = MaintenanceThreads(app, ledger, worker, queues, device.name, home)
    signals.setup_logging.connect(_keep_logging, weak=False)
    watch = ChildWatch(facts.ready_flag, maintenance.end_worker)
    signals.worker_ready.connect(lambda **_: _ready(facts.drain_flag, maintenance, watch), weak=False)
    logger.info("worker %s: device %s, queues %s, server %s", worker, device.name, ",".join(queues), redact(url))
    try:
        app.worker_main(_celery_arguments(worker, queues, log_level))
        if not facts.drain_flag.exists():
            watch.check_end()
    finally:
        watch.stop()
        maintenance.stop()
    if maintenance.refusal is not None:
        raise maintenance.refusal


class MaintenanceThreads:
    """The worker's heartbeat and its sweeps, each in its own thread: restoring a large job may take long."""

    def __init__(
        self, app: Celery, ledger: Ledger, worker: str, queues: tuple[str, ...], device: str, home: str
    ) -> None:
        """home: the id of the home that the worker works for."""
        self._home = home
        self.refusal: PigeonholeError | None = None
        self._app = app
        self._ledger = ledger
        self._worker = worker
        self._facts: dict[str, str | int] = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "device": device,
            "queues": ",".join(queues),
        }
        self._vitals = Vitals(device)
        self._threads = (
            PeriodicCall(self._heartbeat, HEARTBEAT_S, "heartbeat", immediately=True),
            PeriodicCall(self._sweep, HEARTBEAT_S, "sweep", immediately=True),
        )
        self._others = (
            LineSweeper(get_settings()),
            LinesMaintenance(get_settings(), worker),
            WebhookSender(get_settings(), ledger),
        )

    def start(self) -> None:
        """Send a heartbeat and sweep now, then every `HEARTBEAT_S`; maintain the lines, and send webhooks."""
        for thread in self._threads:
            thread.start()
        for other in self._others:
            other.start()

    def stop(self) -> None:
        """Stop the threads and remove the worker from the live workers."""
        for thread in self._threads:
            thread.stop(wait_s=HEARTBEAT_S)
        for other in self._others:
            other.stop(wait_s=HEARTBEAT_S)
        try:
            self._ledger.live_workers.remove(self._worker)
        except SERVER_ERRORS as err:
            logger.info("cannot remove this worker from the live workers, its heartbeat will expire: %s", err)

    def _heartbeat(self) -> None:
        self._check_home()
        busy = {"busy": int(bool(worker_state.reserved_requests))}
        self._ledger.live_workers.heartbeat(self._worker, self._facts | self._vitals.read() | busy)

    def _check_home(self) -> None:
        """Enter the home again if the server has lost its data; stop the worker if another home was faster."""
        try:
            join_server(get_settings(), self._ledger.client, self._home)
        except OtherHomeError as err:
            self.end_worker(err)

    def end_worker(self, refusal: PigeonholeError) -> None:
        """Stop the worker, which then exits with this error."""
        if self.refusal is None:
            self.refusal = refusal
            os.kill(os.getpid(), signal.SIGTERM)

    def _sweep(self) -> None:
        self._ledger.look_at_clock()  # the sweep is about leases
        if self._ledger.live_workers.take_sweep(self._worker):
            sweep(get_settings(), self._ledger, self._ring)
            self._ledger.live_workers.end_sweep()

    def _ring(self, queue: str, job: str) -> None:
        logger.info("job %s has work and no worker; ringing on %s", job, queue)
        ring(self._app, queue, job)


def _parse_queues(text: str) -> tuple[str, ...]:
    """The queues to listen to; every worker ends jobs."""
    wanted = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := sorted(set(wanted) - set(ALL_QUEUES)):
        raise UsageError(f"--queues {text!r}: {unknown[0]!r} is not one of {', '.join(ALL_QUEUES)}")
    if not wanted:
        raise UsageError(f"--queues {text!r} names no queue; choose from {', '.join(ALL_QUEUES)}")
    return tuple(dict.fromkeys([*wanted, FINALIZE]))


def _celery_arguments(worker: str, queues: tuple[str, ...], log_level: str) -> list[str]:
    return [
        "--quiet",
        "worker",
        "--pool=prefork",  # never solo: on SIGTERM it loses the task it is running
        "--concurrency=1",  # one pool child holds the device
        f"--queues={','.join(queues)}",
        f"--hostname={worker}@{socket.gethostname()}",
        f"--loglevel={log_level}",
        "--without-gossip",
        "--without-mingle",
    ]


def _keep_logging(**_: Any) -> None:
    """Connected to Celery's signal, so that Celery sets up no logging of its own."""


def _ready(drain_flag: Path, maintenance: MaintenanceThreads, watch: ChildWatch) -> None:
    """Called when the worker begins to take doorbells: install the signal handlers, start the maintenance threads."""
    warm_stop = signal.getsignal(signal.SIGTERM)
    assert callable(warm_stop)

    def stop(number: int, frame: FrameType | None) -> None:
        if drain_flag.exists():
            _stop_immediately(drain_flag.parent)
        logger.warning("stopping: finishing or handing back claimed shards; a second signal stops immediately")
        drain_flag.touch()
        warm_stop(number, frame)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    maintenance.start()
    watch.start()


def _stop_immediately(run_folder: Path) -> None:
    """End this process and its pool child now; leases run out, and other workers take over."""
    for child in psutil.Process().children(recursive=True):
        child.kill()
    shutil.rmtree(run_folder, ignore_errors=True)
    os._exit(128 + signal.SIGTERM)
