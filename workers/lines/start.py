"""The consumer of lines of this process: started with the pool child, and ended with it or with its parent."""

import logging
import os
import select
import threading

from modeling.registry.store import ModelStore
from workers.context import WorkerContext
from workers.draining import EndFlags
from workers.lines.choice import LineChoice
from workers.lines.consumer import ConsumerSettings, LineConsumer, LinesEnd
from workers.lines.files import LineFiles
from workers.lines.loading import LineModels, loader

logger = logging.getLogger(__name__)

_consumers: list[LineConsumer] = []


def start_lines(context: WorkerContext, lines: str, flags: EndFlags) -> None:
    """Serve the lines of `LineChoice.parse(lines)` until the worker drains or ends."""
    choice = LineChoice.parse(lines)
    if not choice.any or context.draining():
        flags.lines_closed.touch()
        return
    settings = ConsumerSettings(
        url=context.settings.require_server_url(),
        worker=f"{context.worker}-{os.getpid()}",  # the next pool child is another: what this one held counts as tried
        device=context.device,
        lines=choice,
        max_pixels=context.settings.max_pixels,
        decode_threads=context.settings.decode_threads,
        stall_s=context.settings.stall_s,
    )
    models = LineModels(ModelStore(context.settings.models), loader(context.models))
    files = LineFiles(context.settings.home / "lines")
    end = LinesEnd(context.draining, lambda: flags.hurried.exists() or flags.close_lines.exists(), flags.lines_closed)
    consumer = LineConsumer(settings, models, files, context.gate, end)
    _consumers.append(consumer)
    consumer.start()
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), name="lines-parent", daemon=True).start()


def stop_lines() -> None:
    """Answer what is held, or hand it back."""
    for consumer in _consumers:
        consumer.stop()


def _end_with_parent(parent: int) -> None:
    """Stop serving lines when this process's parent has died: nobody would sweep, drain or replace it."""
    try:
        descriptor = os.pidfd_open(parent)
    except ProcessLookupError:
        descriptor = None
    if descriptor is not None and os.getppid() == parent:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.poll()
    logger.critical("the worker's parent has ended; lines are left to others")
    stop_lines()
