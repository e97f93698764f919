"""A worker's pool child: the process that holds the device, models and decode threads, and does the work."""

import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

from celery import current_app, signals

from modeling.durable import STRICT, PathText, decode_json, validated
from modeling.names import path_to_text
from modeling.registry.store import ModelStore
from orchestrator.contract.app import ring
from orchestrator.contract.ledger.ledger import Ledger
from orchestrator.contract.log_file import keep_log_bounded
from orchestrator.contract.run_folder import use_run_folder
from orchestrator.contract.server import SERVER_ERRORS, connect
from orchestrator.contract.settings import get_settings
from orchestrator.contract.shown import SafeFormatter
from workers.context import ModelCache, WorkerContext
from workers.draining import EndFlags
from workers.hang_guard import hang_guard
from workers.memory import MemoryWatch, end_as_replaced, memory_limit
from workers.vital_signs import ChildSigns

logger = logging.getLogger(__name__)

WORKER_ENVIRONMENT = "PIGEONHOLE_WORKER"  # set by the parent for its pool child: WorkerFacts as JSON; not for operators


@dataclass(frozen=True)
class WorkerFacts:
    """What the parent passes to its pool child."""

    worker: str
    device: str
    run_folder: PathText  # of the worker: flags of its end, signs of life, temporary files
    log_level: str
    lines: str = "all"  # `LineChoice`

    __pydantic_config__ = STRICT

    @property
    def ready_flag(self) -> Path:
        """A file that a child creates once it is ready."""
        return self.run_folder / "ready"

    @property
    def end_flags(self) -> EndFlags:
        """What says that the worker ends."""
        return EndFlags(self.run_folder)

    def to_json(self) -> str:
        return json.dumps(asdict(self) | {"run_folder": path_to_text(str(self.run_folder))})

    @classmethod
    def from_environment(cls) -> Self:
        """What this process's parent passed."""
        return validated(cls, decode_json(os.environ[WORKER_ENVIRONMENT], WORKER_ENVIRONMENT), WORKER_ENVIRONMENT)


@cache
def worker_context() -> WorkerContext:
    """This process's context, made once."""
    settings, facts = get_settings(), WorkerFacts.from_environment()
    app = current_app._get_current_object()
    return WorkerContext(
        settings=settings,
        ledger=Ledger(connect(settings.require_server_url())),
        models=ModelCache(ModelStore(settings.models), facts.device, batch_size=settings.batch_size),
        worker=facts.worker,
        device=facts.device,
        ring=lambda queue, job: ring(app, queue, job),
        draining=facts.end_flags.draining.exists,
        hurried=facts.end_flags.hurried.exists,
    )


@cache
def child_signs() -> ChildSigns:
    """This process's signs of life."""
    return ChildSigns(WorkerFacts.from_environment().run_folder)


@cache
def memory_watch() -> MemoryWatch:
    """What watches this process's memory."""

    def end_idle() -> None:
        _leave()
        end_as_replaced()

    return MemoryWatch(memory_limit(get_settings()), child_signs().leave, end_idle)


@contextlib.contextmanager
def reporting_activity(activity: str) -> Iterator[WorkerContext]:
    """The context; the ledger shows the activity until the block ends."""
    context = worker_context()
    with memory_watch().at_work():
        report_activity(context, activity)
        try:
            yield context
        finally:
            report_activity(context, "draining" if context.draining() else "idle")


def report_activity(context: WorkerContext, activity: str) -> None:
    """Let the ledger show what this worker does."""
    try:
        context.ledger.live_workers.report_activity(context.worker, activity)
    except SERVER_ERRORS as err:
        logger.info("cannot report %r: %s", activity, err)


@signals.worker_process_init.connect
def _warm_up(**_: Any) -> None:
    """Import torch before the first doorbell, so that no job waits for it."""
    facts = WorkerFacts.from_environment()
    configure_logging(facts.log_level)
    use_run_folder(facts.run_folder)
    signs = child_signs()
    signs.start()
    logger.info("importing torch")
    import modeling.inference.classifier  # noqa: F401
    from workers.lines.start import start_lines  # the parent, which imports this module too, decodes nothing

    report_activity(worker_context(), "idle")
    start_lines(worker_context(), facts.lines, facts.end_flags)
    facts.ready_flag.touch()
    memory_watch().start()
    hang_guard.start(get_settings().stall_s)
    signs.ready()
    logger.info("ready")


@signals.worker_process_shutdown.connect
def _leave(**_: Any) -> None:
    """Answer or hand back what lines hold before this process ends."""
    from workers.lines.start import stop_lines

    stop_lines()


def configure_logging(level: str) -> None:
    """Log lines of one format on standard error, from the parent and the pool child; `up` has put a file there."""
    keep_log_bounded()
    logging.basicConfig(level=level, force=True)
    for handler in logging.getLogger().handlers:
        handler.setFormatter(SafeFormatter("%(asctime)s %(levelname)s %(processName)s %(message)s"))
    sys.excepthook = lambda kind, err, trace: logger.critical("ended by an error", exc_info=(kind, err, trace))
    for chatty in ("celery.worker.strategy", "celery.app.trace", "kombu", "celery.bootsteps"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
