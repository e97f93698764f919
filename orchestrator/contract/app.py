"""The one Celery app. Each setting has its reason; `docs/architecture.md` tells the whole story."""

import importlib
import logging
from types import ModuleType

from celery import Celery
from celery.loaders.app import AppLoader
from kombu.entity import Queue
from kombu.exceptions import OperationalError

from orchestrator.contract.messages import Doorbell
from orchestrator.contract.queues import ALL_QUEUES, TASKS
from orchestrator.contract.server import CONNECT_TIMEOUT_S, SERVER_ERRORS, SOCKET_TIMEOUT_S, celery_url

# A stuck slice is noticed from inside (Settings.stall_s); this is for a child that never gives up the GIL.
SLICE_TIME_LIMIT_S = 3600

CONFIG: dict[str, object] = {
    # Nothing is ever unpickled that came from outside.
    "task_serializer": "json",
    "result_serializer": "json",
    "accept_content": ["json"],
    "result_accept_content": ["json"],
    # State lives in the ledger; a result backend would be a second truth.
    "task_ignore_result": True,
    "result_backend": None,
    # A doorbell may be lost, since a sweep rings again: early acks keep the visibility timeout out of it.
    "task_acks_late": False,
    "worker_prefetch_multiplier": 1,  # a worker holds one doorbell; the rest stay visible to others
    "worker_enable_remote_control": True,  # its pub/sub socket notices a dead server
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,  # default 100, after which the worker would end
    "broker_channel_error_retry": True,  # else a worker ends when a master becomes a replica (celery#7946)
    "broker_transport_options": {
        "visibility_timeout": 900,  # the shortest of any client counts: it must be the same everywhere
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        "socket_timeout": SOCKET_TIMEOUT_S,  # default none: a publish can hang for ever (celery#4296)
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_keepalive": True,
        "health_check_interval": 10,
        "max_connections": 20,
    },
    "broker_connection_timeout": CONNECT_TIMEOUT_S,
    "task_retry_on_worker_lost": False,  # the lease runs out and a sweep rings; a retry would ring twice
    "task_reject_on_worker_lost": False,  # alone it loops for ever (celery#9082)
    "worker_cancel_long_running_tasks_on_connection_loss": False,  # leases decide who works
    "worker_send_task_events": False,
    "task_send_sent_event": False,
    "task_queues": [Queue(name) for name in ALL_QUEUES],
    "task_create_missing_queues": False,  # a misspelled queue is an error, not a new queue nobody hears
    "task_publish_retry_policy": {
        "max_retries": 5,
        "interval_start": 0,
        "interval_step": 0.5,
        "interval_max": 2,
    },
    "worker_pool_start_method": "spawn",  # a forked CUDA context is broken; the child starts afresh
    "worker_proc_alive_timeout": 120,  # the child imports torch before it says it is up; default 4 s
    "worker_hijack_root_logger": False,
    "worker_redirect_stdouts": False,
}


class Loader(AppLoader):  # type: ignore[misc]  # celery ships no types
    """Imports the tasks from where Pigeonhole is installed.

    Celery's own loader looks into the present folder first: a stray `modeling/` or `random.py` in the operator's
    would be run in its place.
    """

    def import_from_cwd(self, module: str, imp: object = None, package: str | None = None) -> ModuleType:
        """Import as everybody does, in spite of the name."""
        return importlib.import_module(module, package)


def create_app(server_url: str, *, include: tuple[str, ...] = ()) -> Celery:
    """The Celery app that talks to `server_url`; a worker passes the modules of its tasks in `include`."""
    app = Celery("pigeonhole", broker=celery_url(server_url), include=list(include), loader=Loader)
    app.conf.update(CONFIG)
    return app


logger = logging.getLogger(__name__)


def ring(app: Celery, queue: str, job: str) -> None:
    """Hang a doorbell for `job` on `queue`. Where the server is away that is left to a worker's sweep."""
    try:
        app.send_task(TASKS[queue], args=[Doorbell(job=job).model_dump()], queue=queue)
    except (OperationalError, *SERVER_ERRORS) as err:
        logger.warning("cannot ring for job %s on %s, a sweep will: %s", job, queue, err)
