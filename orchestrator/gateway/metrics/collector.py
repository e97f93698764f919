"""The whole fleet at one scrape of any gateway: read from the server at the scrape, and kept nowhere."""

import logging
import threading
import time
from collections.abc import Iterator
from importlib.metadata import version

import redis
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from orchestrator.contract.errors import PigeonholeError
from orchestrator.contract.ledger.ledger import Ledger
from orchestrator.contract.lines.registry import read_lines
from orchestrator.contract.lines.settings import Line
from orchestrator.contract.lines.store import LineStore
from orchestrator.contract.server import connect, connect_raw
from orchestrator.gateway.context import ASK_TIMEOUT_S, GatewayContext
from orchestrator.gateway.metrics.fleet import read_fleet, readable
from orchestrator.gateway.metrics.jobs import job_metrics
from orchestrator.gateway.metrics.lines import MOST_LINES, line_metrics, read_lines_now
from orchestrator.gateway.metrics.workers import worker_metrics

logger = logging.getLogger(__name__)


class FleetCollector(Collector):
    """Metrics of the server that a gateway belongs to; safe to share between threads."""

    def __init__(self, context: GatewayContext) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._is_away = False
        self._ledger: Ledger | None = None
        self._own_servers: dict[str, redis.Redis] = {}  # of lines, by URL

    def describe(self) -> list[Metric]:
        """Nothing: a registry that is asked for this must not ask the server."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All metrics; where the server does not answer, that alone."""
        began_s = time.perf_counter()
        yield InfoMetricFamily("pigeonhole_build", "This gateway.", {"version": version("pigeonhole")})
        try:
            found = self._read()
            self._is_away = False
        except (PigeonholeError, redis.RedisError, OSError) as err:
            found = None
            if not self._is_away:  # said once
                logger.warning("metrics: the server cannot be read: %s", err)
            self._is_away = True
        yield GaugeMetricFamily("pigeonhole_server_up", "Whether the server answers.", found is not None)
        yield from found or ()
        yield GaugeMetricFamily(
            "pigeonhole_scrape_seconds", "What reading all this took.", time.perf_counter() - began_s
        )

    def _read(self) -> list[Metric]:
        url, client = self._context.server()
        fleet = read_fleet(self._fleet_ledger(url))
        (_, lines), bad_lines = readable(lambda: read_lines(client), (0, dict[str, Line]()))
        stores = {}
        for name, line in lines.items():
            own = line.settings.server
            stores[name] = LineStore(client if own is None else self._client_of(own), name)
        views = read_lines_now(lines, stores)
        left_out = GaugeMetricFamily("pigeonhole_lines_left_out", f"Lines beyond {MOST_LINES}, which have no metrics.")
        left_out.add_metric([], len(lines) - len(views))
        unreadable = GaugeMetricFamily(
            "pigeonhole_unreadable_records", "Records of jobs and workers that are not ours."
        )
        unreadable.add_metric([], fleet.num_unreadable + bad_lines)
        return [*job_metrics(fleet), *worker_metrics(fleet.workers), *line_metrics(views), left_out, unreadable]

    def _fleet_ledger(self, url: str) -> Ledger:
        with self._lock:
            if self._ledger is None:
                self._ledger = Ledger(connect(url, timeout_s=ASK_TIMEOUT_S, retries=0))
            return self._ledger

    def _client_of(self, url: str) -> redis.Redis:
        with self._lock:
            if url not in self._own_servers:
                self._own_servers[url] = connect_raw(url, timeout_s=ASK_TIMEOUT_S)
            return self._own_servers[url]
