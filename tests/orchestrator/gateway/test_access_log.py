"""The log of requests, where nobody reads it and where its disk is full."""

import io
import json
import threading
import time

from orchestrator.gateway.guard import access_log
from orchestrator.gateway.guard.access_log import AccessLog

SCOPE = {"method": "GET", "path": "/health/live"}


class FullDisk(io.StringIO):
    """Takes nothing as long as it is full."""

    full = True

    def flush(self):
        if self.full:
            self.truncate(0)
            raise OSError(28, "No space left on device")


def add(log, number):
    log.add(SCOPE, {"id": str(number)}, time.perf_counter())


def test_a_full_disk_ends_no_log_and_what_was_lost_is_said():
    stream = FullDisk()
    log = AccessLog(stream)
    add(log, 1)
    add(log, 2)
    log.flush()
    stream.full = False
    add(log, 3)
    log.flush()

    lines = [json.loads(line) for line in stream.getvalue().strip("\0").splitlines()]
    assert [(line.get("lost"), line.get("id")) for line in lines] == [(2, None), (None, "3")]


def test_a_stream_that_nobody_reads_keeps_neither_requests_waiting_nor_all_lines(monkeypatch):
    monkeypatch.setattr(access_log, "MOST_LINES", 5)
    stuck, freed = threading.Event(), threading.Event()
    stream = io.StringIO()
    stream.flush = lambda: (stuck.set(), freed.wait(60))
    log = AccessLog(stream)
    log.start()
    add(log, 1)
    stuck.wait(60)
    for number in range(2, 10):
        add(log, number)
    freed.set()
    log.close()

    assert '"lost": 3' in stream.getvalue()
    assert '"id": "6"' in stream.getvalue()
