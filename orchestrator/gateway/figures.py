"""What one gateway counts of itself: requests, connections, clients that were cut off."""

from typing import Any, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.process_collector import ProcessCollector

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
CutOff = Literal["headers", "body", "answer", "connections"]
CUT_OFF: tuple[CutOff, ...] = ("headers", "body", "answer", "connections")

disable_created_metrics()  # type: ignore[no-untyped-call]  # a time beside each counter, which nobody reads


class GatewayFigures:
    """Counters of this process in a registry of their own; safe to share between threads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(namespace="pigeonhole_gateway", registry=self.registry)
        options: dict[str, Any] = {"registry": self.registry}
        self._requests = Counter(
            "pigeonhole_gateway_requests", "Requests that were answered.", ["route", "method", "status"], **options
        )
        self._seconds = Histogram(
            "pigeonhole_gateway_request_seconds", "From headers to the end of the answer.", ["route"],
            buckets=SECONDS, **options,
        )  # fmt: skip
        self._connections = Gauge("pigeonhole_gateway_connections", "Open connections.", **options)
        cut_off = Counter(
            "pigeonhole_gateway_cut_off", "Connections that were closed, since their client was slow or one too many.",
            ["reason"], **options,
        )  # fmt: skip
        self._cut_off = {reason: cut_off.labels(reason) for reason in CUT_OFF}
        self._known: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}  # labels() costs as much again

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request has ended. route: its path with names for what varies. status: 0: its client went away."""
        key = route, method if method in METHODS else "other", status
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._requests.labels(*key), self._seconds.labels(route)
        known[0].inc()
        known[1].observe(seconds)

    def connected(self, by: int) -> None:
        """So many connections more (1) or less (-1) are open."""
        self._connections.inc(by)

    def cut_off(self, reason: CutOff) -> None:
        """A connection is closed."""
        self._cut_off[reason].inc()
