"""The only Celery app. A comment gives the reason of each setting; `docs/architecture.md` has the overview."""

import functools
import importlib
import logging
from types import ModuleType

from celery import Celery
from celery.loaders.app import AppLoader
from kombu.entity import Queue
from kombu.exceptions import OperationalError

from orchestrator.contract.messages import Doorbell
from orchestrator.contract.queues import ALL_QUEUES, KEY_PREFIX, TASKS
from orchestrator.contract.server import CONNECT_TIMEOUT_S, SERVER_ERRORS, SOCKET_TIMEOUT_S
from orchestrator.contract.server_url import celery_url

# A stalled slice ends itself (Settings.stall_s). This limit is for a child that cannot even write that it does; nothing
# that makes progress may meet it, and one shard may have 100,000 images that take a second each.
SLICE_TIME_LIMIT_S = 48 * 3600
FINALIZE_TIME_LIMIT_S = 3600

CONFIG: dict[str, object] = {
    # Nothing is ever unpickled that came from outside.
    "task_serializer": "json",
    "result_serializer": "json",
    "accept_content": ["json"],
    "result_accept_content": ["json"],
    # State is in the ledger; a result backend would be a second copy.
    "task_ignore_result": True,
    "result_backend": None,
    # A lost doorbell does no harm, since a sweep rings again: with early acks no visibility timeout applies.
    "task_acks_late": False,
    "worker_prefetch_multiplier": 1,  # a worker holds one doorbell; the rest stay visible to others
    "worker_enable_remote_control": True,  # its pub/sub socket notices a dead server
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,  # default 100, after which the worker would end
    "broker_channel_error_retry": True,  # else a worker ends when a master becomes a replica (celery#7946)
    "broker_transport_options": {
        "global_keyprefix": KEY_PREFIX,  # other applications on this server have queues called `celery` and the like
        "ack_emulation": False,  # what a dead worker had taken is rung again by a sweep, not delivered a second time
        "priority_steps": [0],  # one list for each queue
        "socket_timeout": SOCKET_TIMEOUT_S,  # default none: a publish can hang forever (celery#4296)
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_keepalive": True,
        "health_check_interval": 10,
        "max_connections": 20,
    },
    "broker_connection_timeout": CONNECT_TIMEOUT_S,
    "task_retry_on_worker_lost": False,  # the lease runs out and a sweep rings; a retry would ring twice
    "task_reject_on_worker_lost": False,  # without acks_late it loops forever (celery#9082)
    "worker_cancel_long_running_tasks_on_connection_loss": False,  # leases decide who works
    "worker_send_task_events": False,
    "task_send_sent_event": False,
    "task_queues": [Queue(name) for name in ALL_QUEUES],
    "task_create_missing_queues": False,  # a misspelled queue is an error, not a new queue without workers
    "task_publish_retry_policy": {"max_retries": 5, "interval_start": 0, "interval_step": 0.5, "interval_max": 2},
    "worker_pool_start_method": "spawn",  # a forked CUDA context does not work
    "worker_proc_alive_timeout": 120,  # the child imports torch before it reports that it is up; default 4 s
    "worker_hijack_root_logger": False,
    "worker_redirect_stdouts": False,
}


class Loader(AppLoader):  # type: ignore[misc]  # celery ships no types
    """Imports the tasks from where Pigeonhole is installed.

    Celery's own loader searches the current folder first: it would run a `modeling/` or `random.py` of the operator's
    instead.
    """

    def import_from_cwd(self, module: str, imp: object = None, package: str | None = None) -> ModuleType:
        """Import from sys.path as usual, despite the name of this method."""
        return importlib.import_module(module, package)


def create_app(server_url: str, *, include: tuple[str, ...] = ()) -> Celery:
    """The Celery app that talks to `server_url`; a worker passes the modules of its tasks in `include`."""
    app = Celery("pigeonhole", broker=celery_url(server_url), include=list(include), loader=Loader)
    app.conf.update(CONFIG)
    return app


@functools.cache
def client_app(server_url: str) -> Celery:
    """The app of this process for what it sends to `server_url`.

    One for all clients: the producers that Celery adds to kombu's pool for an app stay there when the app is gone.
    """
    return create_app(server_url)


logger = logging.getLogger(__name__)


def ring(app: Celery, queue: str, job: str) -> None:
    """Send a doorbell for `job` to `queue`. If the server is away, a worker's sweep rings later."""
    try:
        app.send_task(TASKS[queue], args=[Doorbell(job=job).model_dump()], queue=queue)
    except (OperationalError, *SERVER_ERRORS) as err:
        logger.warning("cannot ring for job %s on %s, a sweep will do it: %s", job, queue, err)
