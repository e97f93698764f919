"""A worker's parent process: takes doorbells from the broker, starts the pool child, and runs the maintenance threads.

It never imports torch. The pool child (`child.py`) holds the device and does the work. On SIGTERM or Ctrl-C the worker
takes no further doorbell, and finishes or hands back what it holds; a second signal stops it immediately.
"""

import gc
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click
import psutil
from celery import signals
from celery.worker import state as worker_state

from orchestrator.contract.access import explain_os_error
from orchestrator.contract.app import create_app
from orchestrator.contract.errors import ExitCode, PigeonholeError, UsageError
from orchestrator.contract.home import check_home_access, join_server
from orchestrator.contract.ledger.ledger import Ledger
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
from workers.draining import Drainer, EndFlags
from workers.early_child import environment_of_child
from workers.lines.choice import LineChoice
from workers.maintenance import MaintenanceThreads, WorkerIdentity
from workers.memory import memory_limit
from workers.vital_signs import ParentSigns

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
        _end(str(err), err.exit_code)
    except SERVER_ERRORS as err:  # it answered a moment ago; afterwards the worker waits for it
        _end(f"the server went away while the worker started: {err}; start it again", ExitCode.UNAVAILABLE)
    except OSError as err:
        if (described := explain_os_error(err)) is None:
            raise
        _end(described, ExitCode.FAILED)


def _end(message: str, code: int) -> NoReturn:
    """End the worker with one line for the operator."""
    logger.debug("the worker ends", exc_info=True)
    click.echo(f"error: {printable(without_logins(message))}", err=True)
    sys.exit(code)


def run_worker(queues: tuple[str, ...], device: Device, lines: str, log_level: str) -> None:
    """Hold `device`, take doorbells from `queues` and serve `lines` until a signal stops the worker."""
    settings = get_settings()
    url = settings.require_server_url()
    ledger = Ledger(connect(url))
    require_answer(ledger.client, url)
    check_home_access(settings)
    home = join_server(settings, ledger.client)
    run_folder = own_run_folder()
    worker = f"{socket.gethostname()}-{device.name.replace(':', '').replace(',', '-')}"
    worker += f"-{secrets.token_hex(3)}"  # containers may share host names, and a device may have two workers
    facts, flags = WorkerFacts(worker, device.torch_name, run_folder, log_level, lines), EndFlags(run_folder)
    signs = ParentSigns(run_folder, worker, flags.draining.exists)
    signs.start()
    os.environ[WORKER_ENVIRONMENT] = facts.to_json()
    if device.visible is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device.visible
        os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # as NVML numbers them; CUDA's default order is by speed
    os.environ.update(environment_of_child(os.environ))
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(run_folder / "torch"))  # made by torch's exporter, never used
    app = create_app(url, include=("workers.tasks",))
    app.conf.worker_max_memory_per_child = memory_limit(settings) // 1024
    install(app)
    identity = WorkerIdentity(worker, queues, device.name, home, run_folder)
    drainer = Drainer(flags, queues)
    maintenance = MaintenanceThreads(app, ledger, identity, signs, drainer)
    signals.setup_logging.connect(_keep_logging, weak=False)
    watch = ChildWatch(facts.ready_flag, maintenance.end_worker)
    stop = StopSignals(flags)

    def ready(sender: Any, **_: Any) -> None:
        drainer.consumer = sender
        signs.listen_to(sender, lambda: bool(worker_state.reserved_requests))
        stop.install()
        maintenance.start()
        watch.start()
        gc.freeze()  # what a start has made stays: full collections look at the rest alone, so they are soon due

    signals.worker_ready.connect(ready, weak=False)
    logger.info("worker %s: device %s, queues %s, server %s", worker, device.name, ",".join(queues), redact(url))
    try:
        app.worker_main(_celery_arguments(worker, queues, log_level))
        if not (stop.received or flags.draining.exists()):
            watch.check_end()
    finally:
        signs.stop()
        watch.stop()
        maintenance.stop()
    if maintenance.refusal is not None:
        raise maintenance.refusal


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


class StopSignals:
    """What SIGTERM and Ctrl-C do: the first stops the worker once its work is finished or handed back."""

    def __init__(self, flags: EndFlags) -> None:
        self.received = False  # not only in the run folder, which may be gone, or on a disk that takes no writes
        self._flags = flags
        self._warm_stop: Callable[[int, FrameType | None], Any]

    def install(self) -> None:
        """Replace Celery's handlers, once it has set them: when the worker begins to take doorbells."""
        warm_stop = signal.getsignal(signal.SIGTERM)
        assert callable(warm_stop)
        self._warm_stop = warm_stop
        signal.signal(signal.SIGTERM, self.stop)
        signal.signal(signal.SIGINT, self.stop)

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Stop the worker, at a second signal immediately."""
        if self.received:
            _stop_immediately(self._flags.run_folder)
        self.received = True
        logger.warning("stopping: finishing or handing back claimed shards; a second signal stops immediately")
        for flag in (self._flags.hurried, self._flags.draining):
            try:
                flag.touch()
            except OSError as err:
                logger.warning("the pool child does not learn that the worker stops, and finishes its work: %s", err)
        self._warm_stop(number, frame)


def _stop_immediately(run_folder: Path) -> None:
    """End this process and its pool child now; leases run out, and other workers take over."""
    for child in psutil.Process().children(recursive=True):
        child.kill()
    shutil.rmtree(run_folder, ignore_errors=True)
    os._exit(128 + signal.SIGTERM)
