"""The access log: one JSON object for each request, without query, headers or bodies, which may hold secrets."""

import json
import threading
import time
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

MOST_PATH = 200  # characters of a path
FLUSH_S = 0.2
MOST_LINES = 100_000  # that wait to be written; of more, the newest are lost
LAST_S = 2.0  # for the last lines


class AccessLog:
    """Collects lines, which a thread of its own writes: nobody may read the stream, and its disk may be full."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._entries: deque[tuple[float, dict[str, Any]]] = deque()  # with their times; turned into text when written
        self._num_lost = 0
        self._writing = threading.Lock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._stopped.clear()
        self._thread = threading.Thread(target=self._run, name="gateway-log", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what is left, as far as that is possible."""
        self._stopped.set()
        if self._thread:
            self._thread.join(LAST_S)

    def add(self, scope: Mapping[str, Any], facts: Mapping[str, Any], began: float) -> None:
        """A request that has ended. began: by time.perf_counter."""
        if self._stream is None:
            return
        if len(self._entries) >= MOST_LINES:
            self._num_lost += 1
            return
        client = scope.get("client")
        entry = {
            "address": client[0] if client else None,
            "method": scope["method"],
            "path": scope["path"][:MOST_PATH],
            "ms": round((time.perf_counter() - began) * 1000, 2),
            **facts,
        }
        self._entries.append((time.time(), entry))

    def flush(self) -> None:
        """Write what was collected; how many lines were lost before that is said first."""
        with self._writing:
            entries = [self._entries.popleft() for _ in range(len(self._entries))]
            lines = [json.dumps({"time": _as_text(at), **entry}) for at, entry in entries]
            if not lines or self._stream is None:
                return
            lost, self._num_lost = self._num_lost, 0
            if lost:
                lines.insert(0, json.dumps({"time": _as_text(time.time()), "lost": lost}))
            try:
                self._stream.write("\n".join(lines) + "\n")
                self._stream.flush()
            except OSError:  # a full disk, or nobody reads it any more
                self._num_lost += lost + len(lines) - bool(lost)

    def _run(self) -> None:
        while not self._stopped.wait(FLUSH_S):
            self.flush()
        self.flush()


def _as_text(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
