"""One Celery task an image: `celery -A benchmarks.peers.lines.celery_worker worker`, BROKER is the server's URL."""

import os
from typing import Any

from celery.signals import worker_process_init

from benchmarks.peers.lines.celery_app import TASK, make_app
from benchmarks.peers.lines.one_core import OneCore

app = make_app(os.environ["BROKER"])
_loaded: list[OneCore] = []  # one in each pool process, made after the fork


@worker_process_init.connect
def load(**_: Any) -> None:
    """Load the model before the first task."""
    _loaded.append(OneCore())


@app.task(name=TASK)
def classify(data: bytes) -> dict[str, object]:
    """The best label of an image."""
    return _loaded[0].predict(data)
