"""The access log: one JSON object for each request, without query, headers or bodies, which may hold secrets."""

import contextlib
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

MOST_PATH = 200  # characters of a path
FLUSH_S = 0.2


class AccessLog:
    """Collects lines, and writes them several at a time: `flush` is called at intervals, and at the end."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._lines: list[str] = []

    def add(self, scope: Mapping[str, Any], facts: Mapping[str, Any], began: float) -> None:
        """A request that has ended. began: by time.perf_counter."""
        if self._stream is None:
            return
        client = scope.get("client")
        entry = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "address": client[0] if client else None,
            "method": scope["method"],
            "path": scope["path"][:MOST_PATH],
            "ms": round((time.perf_counter() - began) * 1000, 2),
            **facts,
        }
        self._lines.append(json.dumps(entry))

    def flush(self) -> None:
        """Write what was collected."""
        if self._lines and self._stream is not None:
            text, self._lines = "\n".join(self._lines) + "\n", []
            with contextlib.suppress(BrokenPipeError):  # nobody reads it any more
                self._stream.write(text)
                self._stream.flush()
