"""The requests of one server that a worker holds, each until it is answered or its lease is lost."""

import threading
import time
from collections.abc import Iterable

from workers.lines.apart import LinesApart
from workers.lines.requests import OpenLine, Request


class Leases:
    """Safe to share between threads."""

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._requests: dict[tuple[OpenLine, str], Request] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._requests)

    def add(self, request: Request) -> bool:
        """Hold a request that was leased; whether it is new.

        One that is not is held still: its lease ran out in this worker, which has it again.
        """
        with self._lock:
            known = self._requests.setdefault((request.line, request.key), request)
        if known is not request:
            known.leased_until_s, known.gone = request.leased_until_s, False
        return known is request

    def release(self, line: OpenLine, keys: Iterable[str]) -> None:
        with self._lock:
            for key in keys:
                self._requests.pop((line, key), None)

    def has(self, request: Request) -> bool:
        with self._lock:
            return (request.line, request.key) in self._requests

    def holds(self, request: Request) -> bool:
        """Whether its lease is not over, either: it is renewed as long as the server is there."""
        return self.has(request) and time.monotonic() < request.leased_until_s

    def renew(self, apart: LinesApart) -> None:
        """Renew those that are due; what is lost is held no longer."""
        now = time.monotonic()
        with self._lock:
            held = list(self._requests.values())
        for line in {request.line for request in held}:
            lease_s = line.lease_ms / 1e3
            due = [each for each in held if each.line is line and each.leased_until_s - now < lease_s * 2 / 3]
            if not due:
                continue
            with apart.only(line.name, "keeping leases"):
                lost = line.store.renew(self._worker, line.lease_ms, [each.key for each in due])
                for each in due:
                    each.leased_until_s = now + lease_s
                    if each.key in lost:
                        each.gone = True
                self.release(line, lost)
