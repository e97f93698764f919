"""Parts: pushes over HTTP, through a gateway on the same machine."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import numpy as np
import psutil

from benchmarks.lines.bench import PAUSE_S, Bench, Row, median, wait_for
from benchmarks.lines.peers import listens, peers_over_http
from benchmarks.lines.runs import Place
from benchmarks.lines.system import LINE
from orchestrator.stack.server import free_port

IDLE_MORE_MS, SATURATED_SHARE, CPU_US, SLOW_MORE = 3.0, 0.90, 300, 0.20
NUM_IDLE, NUM_SLOW = 500, 200  # connections
START_S, CUT_OFF_S = 30.0, 60.0


class Gateway:
    """A running gateway of the benchmark's home."""

    def __init__(self, bench: Bench, port: int) -> None:
        environment = os.environ | {
            "PIGEONHOLE_HOME": str(bench.system.settings.home), "PIGEONHOLE_SERVER_URL": bench.system.url,
        }  # fmt: skip
        self.port = port
        self._log = (bench.system.folder / "gateway.log").open("ab")
        self.process = psutil.Popen(
            [sys.executable, "-m", "orchestrator", "gateway", "--port", str(port)],
            env=environment, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
        )  # fmt: skip
        wait_for(listens(port), "the gateway listens", START_S)

    def place(self, bench: Bench) -> Place:
        """Where the load generator pushes to."""
        url = f"http://127.0.0.1:{self.port}/v1/lines/{LINE}/items?wait&deadline_ms=60000"
        return Place(replace(bench.place.load, target="http", url=url, name="gateway"), bench.place.scratch)

    def cpu_s(self) -> float:
        """Processor seconds that it has used."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self._log.close()


@contextmanager
def running(bench: Bench) -> Iterator[tuple[Gateway, Place]]:
    """A gateway that has answered pushes."""
    gateway = Gateway(bench, free_port())
    try:
        place = gateway.place(bench)
        bench.capacity(place)
        yield gateway, place
    finally:
        gateway.end()


def gateway_idle(bench: Bench) -> list[Row]:
    """One image at a time: p50 over HTTP and by the line's own client, in turns."""
    count = max(20, round(bench.options.seconds / PAUSE_S / 2))
    http: list[float] = []
    own: list[float] = []
    with running(bench) as (_, place):
        for _ in range(bench.options.repeats):
            due_ms = np.arange(count) * 2000 * PAUSE_S
            for way, found in ((bench.place, own), (place, http)):
                outcome = way.opened(due_ms, 60_000)
                bench.require(outcome)
                found.append(outcome.percentile(50))
    more = median([a - b for a, b in zip(http, own, strict=True)], 2)
    figures = {"http_ms": median(http, 2), "client_ms": median(own, 2), "more_ms": more}
    value = f"{figures['http_ms']} ms, by the line's client {figures['client_ms']} ms: {more} ms more"
    what = "idle, a push over HTTP, p50 over the line's own client"
    return [Row(what, f"at most {IDLE_MORE_MS:.0f} ms more", value, more <= IDLE_MORE_MS, figures)]


def gateway_cpu(bench: Bench) -> list[Row]:
    """Processor time of the gateway for each push, at half of capacity and saturated."""
    figures = {}
    with running(bench) as (gateway, place):
        capacity = bench.capacity(place)
        for name, rate in (("half", capacity / 2), ("saturated", 0.0)):
            before = gateway.cpu_s()
            outcome = place.opened(bench.arrivals(rate, 0), 60_000) if rate else bench.saturate(5, place)
            bench.require(outcome)
            figures[name] = round((gateway.cpu_s() - before) * 1e6 / outcome.num_sent)
    value = ", ".join(f"{name} {each} µs" for name, each in figures.items())
    met = max(figures.values()) <= CPU_US
    return [Row("CPU of the gateway a push", f"at most {CPU_US} µs", value, met, figures)]


def gateway_saturated(bench: Bench) -> list[Row]:
    """Throughput over HTTP and by the line's own client, in turns."""
    http, own = [], []
    with running(bench) as (_, place):
        bench.capacity()
        for _ in range(bench.options.repeats):
            own.append(bench.capacity())
            http.append(bench.capacity(place))
    share = median([a / b for a, b in zip(http, own, strict=True)])
    figures = {"http_per_sec": median(http, 1), "client_per_sec": median(own, 1), "share": share}
    value = f"{share} ({figures['http_per_sec']} of {figures['client_per_sec']}/s)"
    what = "saturated over HTTP, of the line's own throughput"
    return [Row(what, f"{SATURATED_SHARE:.2f}", value, share >= SATURATED_SHARE, figures)]


def gateway_peers(bench: Bench) -> list[Row]:
    """Beside LitServe and mosec: throughput, and p50 and p99 at half and nine tenths of capacity."""
    with running(bench) as (_, place):
        return peers_over_http(bench, place)


def gateway_slow(bench: Bench) -> list[Row]:
    """p99 at half of capacity with idle and slow connections beside it, over p99 without them, in turns."""
    alone: list[float] = []
    beside: list[float] = []
    cut = []
    with running(bench) as (gateway, place):
        rate = bench.capacity(place) / 2
        for repeat in range(bench.options.repeats):
            due_ms = bench.arrivals(rate, repeat)
            quiet = place.opened(due_ms, 60_000)
            with _connections(gateway.port) as slow:
                disturbed = place.opened(due_ms, 60_000)
                wait_for(lambda slow=slow: all(map(_is_closed, slow)), "slow connections are cut off", CUT_OFF_S)  # type: ignore[misc]
            for outcome, found in ((quiet, alone), (disturbed, beside)):
                bench.require(outcome)
                found.append(outcome.percentile(99))
            cut.append(len(slow))
    more = median([b / a - 1 for a, b in zip(alone, beside, strict=True)])
    figures = {"alone_ms": median(alone, 1), "beside_ms": median(beside, 1), "more": more, "cut_off": cut}
    value = f"{figures['beside_ms']} ms, without them {figures['alone_ms']} ms: {more:+.0%}; all slow ones cut off"
    what = f"{NUM_IDLE} idle and {NUM_SLOW} slow connections beside a load: its p99"
    return [Row(what, f"within {SLOW_MORE:.0%}, slow ones cut off", value, more <= SLOW_MORE, figures)]


@contextmanager
def _connections(port: int) -> Iterator[list[socket.socket]]:
    """Idle connections, and slow ones, half of them in their headers and half in their bodies, which are yielded."""
    with ExitStack() as stack:
        opened = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(NUM_IDLE + NUM_SLOW)
        ]
        slow = opened[NUM_IDLE:]
        for number, connection in enumerate(slow):
            head = f"POST /v1/lines/{LINE}/items HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 60000\r\n"
            connection.sendall(head.encode() if number % 2 else head.encode() + b"\r\n" + b"x" * 1000)
            connection.setblocking(False)
        yield slow


def _is_closed(connection: socket.socket) -> bool:
    """Whether the other side has ended the connection, whatever it said before."""
    try:
        while connection.recv(65_536):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    return True
