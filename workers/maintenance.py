"""The maintenance threads of a worker's parent: heartbeats, sweeps, lines, webhooks."""

import gc
import logging
import os
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from celery import Celery
from celery.worker import state as worker_state

from orchestrator.contract.app import ring
from orchestrator.contract.errors import PigeonholeError
from orchestrator.contract.health import read_child
from orchestrator.contract.home import OtherHomeError, join_server
from orchestrator.contract.ledger.ledger import Ledger
from orchestrator.contract.ledger.live_workers import HEARTBEAT_S
from orchestrator.contract.ledger.periodic_call import PeriodicCall
from orchestrator.contract.release import own_release
from orchestrator.contract.server import SERVER_ERRORS
from orchestrator.contract.settings import get_settings
from workers.draining import Drainer
from workers.lines.maintenance import LinesMaintenance
from workers.lines.sweeping import LineSweeper
from workers.sweep import sweep
from workers.vital_signs import ParentSigns, describe_child
from workers.vitals import Vitals
from workers.webhooks import WebhookSender

logger = logging.getLogger(__name__)


COLLECT_S = 10.0


def _collect() -> None:
    """Free connections that were lost: kombu's refer to themselves, dozens for each moment that a server is away.

    Python looks for them all only after many more objects than this process makes in an hour. It takes milliseconds,
    since what a start has made is left out (`gc.freeze`).
    """
    gc.collect()


@dataclass(frozen=True)
class WorkerIdentity:
    """What a worker is called, and what it listens to. home: the id of the home that it works for."""

    worker: str
    queues: tuple[str, ...]
    device: str
    home: str
    run_folder: Path

    def facts(self) -> dict[str, str | int]:
        """What every heartbeat says."""
        release = own_release()
        return {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "device": self.device,
            "queues": ",".join(self.queues),
            "version": release.version,
            "model_formats": ",".join(map(str, release.model_formats)),
        }


class MaintenanceThreads:
    """The worker's heartbeat and its sweeps, each in its own thread: restoring a large job may take long."""

    def __init__(
        self, app: Celery, ledger: Ledger, identity: WorkerIdentity, signs: ParentSigns, drainer: Drainer
    ) -> None:
        self.refusal: PigeonholeError | None = None
        self._app = app
        self._ledger = ledger
        self._identity = identity
        self._worker = identity.worker
        self._facts = identity.facts()
        self._signs = signs
        self._drainer = drainer
        self._vitals = Vitals(identity.device)
        self._threads = (
            PeriodicCall(self._heartbeat, HEARTBEAT_S, "heartbeat", immediately=True),
            PeriodicCall(self._sweep, HEARTBEAT_S, "sweep", immediately=True),
            PeriodicCall(_collect, COLLECT_S, "garbage"),
        )
        self._others = (
            LineSweeper(get_settings()),
            LinesMaintenance(get_settings(), identity.worker),
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

    def end_worker(self, refusal: PigeonholeError) -> None:
        """Stop the worker, which then exits with this error."""
        if self.refusal is None:
            self.refusal = refusal
            os.kill(os.getpid(), signal.SIGTERM)

    def _heartbeat(self) -> None:
        self._check_home()
        now: dict[str, str | int] = {
            "busy": int(bool(worker_state.reserved_requests)),
            "draining": int(self._drainer.draining),
            "trouble": describe_child(read_child(self._identity.run_folder), time.monotonic()),
        }
        drain = self._ledger.live_workers.heartbeat(self._worker, self._facts | self._vitals.read() | now)
        self._signs.server_answered()
        if drain is not None:
            self._drainer.drain(drain)

    def _check_home(self) -> None:
        """Enter the home again if the server has lost its data; stop the worker if another home was faster."""
        try:
            join_server(get_settings(), self._ledger.client, self._identity.home)
        except OtherHomeError as err:
            self.end_worker(err)

    def _sweep(self) -> None:
        self._ledger.look_at_clock()  # the sweep is about leases
        if self._ledger.live_workers.take_sweep(self._worker):
            started = time.monotonic()
            sweep(get_settings(), self._ledger, self._ring)
            self._ledger.live_workers.end_sweep(self._worker, time.monotonic() - started)

    def _ring(self, queue: str, job: str) -> None:
        logger.info("job %s has work and no worker; ringing on %s", job, queue)
        ring(self._app, queue, job)
