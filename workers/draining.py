"""How a worker ends: after a signal soon, drained by an operator once its shard is done and its lines are served.

The flags are files in the run folder, which the parent and its pool child look at.
"""

import logging
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celery.worker import state as worker_state

from orchestrator.contract.ledger.live_workers import Drain

logger = logging.getLogger(__name__)

_POLL_S = 0.2


@dataclass(frozen=True)
class EndFlags:
    """The flags of one worker."""

    run_folder: Path

    @property
    def draining(self) -> Path:
        """Exists once the worker takes no more work."""
        return self.run_folder / "drain"

    @property
    def hurried(self) -> Path:
        """Exists once it has to end soon: a shard is finished within some seconds, or handed back."""
        return self.run_folder / "hurry"

    @property
    def close_lines(self) -> Path:
        """Exists once its lines are to be closed whether or not others serve them."""
        return self.run_folder / "close-lines"

    @property
    def lines_closed(self) -> Path:
        """Exists once it serves no lines any more."""
        return self.run_folder / "lines-closed"


class Drainer:
    """Drains this worker when an operator wants it; it lives in the parent."""

    def __init__(self, flags: EndFlags, queues: Sequence[str]) -> None:
        self._flags = flags
        self._queues = queues
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.consumer: Any = None  # Celery's, once it takes doorbells

    @property
    def draining(self) -> bool:
        """Whether the worker takes no more work, for whatever reason."""
        return self._flags.draining.exists()

    def drain(self, how: Drain) -> None:
        """Take no more doorbells, and end once nothing is held; returns immediately, and may be called again."""
        if how == "now":
            self._flags.close_lines.touch()
        with self._lock:
            if self._thread is not None or self.consumer is None:
                return
            self._flags.draining.touch()
            thread = threading.Thread(target=self._drain, name="drain", daemon=True)
            thread.start()
            self._thread = thread  # last: where something fails, the next heartbeat tries again
        logger.warning("an operator drains this worker: it finishes its shard, takes no more work, and ends")
        for queue in self._queues:
            self.consumer.call_soon(self.consumer.cancel_task_queue, queue)

    def _drain(self) -> None:
        closed = threading.Event()
        while not self._flags.lines_closed.exists():
            closed.wait(_POLL_S)
        worker_state.should_stop = os.EX_OK  # Celery waits for the task that runs, and ends
