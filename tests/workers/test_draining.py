"""Draining a worker that an operator wants to end."""

import pytest

from tests.support.server import wait_until
from workers import draining
from workers.draining import Drainer, EndFlags


class Consumer:
    """Stands for Celery's: remembers which queues it takes nothing from any more."""

    def __init__(self):
        self.cancelled = []

    def call_soon(self, function, *args):
        function(*args)

    def cancel_task_queue(self, queue):
        self.cancelled.append(queue)


def test_a_drain_that_the_disk_refuses_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(draining.worker_state, "should_stop", None)
    flags = EndFlags(tmp_path / "run")
    drainer = Drainer(flags, ("classify", "finalize"))
    drainer.consumer = Consumer()
    with pytest.raises(FileNotFoundError):
        drainer.drain("lines")
    flags.run_folder.mkdir()
    flags.lines_closed.touch()

    drainer.drain("lines")
    drainer.drain("lines")

    assert drainer.draining
    assert drainer.consumer.cancelled == ["classify", "finalize"]
    wait_until(lambda: draining.worker_state.should_stop is not None, what="the worker ends")
