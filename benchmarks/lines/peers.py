"""Part: LitServe, mosec and one Celery task an image with our decoder and engine, beside a line, in turns.

All run at once, so that turns are quick; those that have no turn are frozen, and nothing else is slower for them.
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from benchmarks.lines.bench import WARM_UP, WINDOW, Bench, Row, median, wait_for
from benchmarks.lines.load import TargetKind
from benchmarks.lines.runs import Outcome, Place
from modeling.inference.choose_engine import load_fastest
from modeling.networks.onnx_graph import write_graph
from orchestrator.stack.server import free_port
from tests.support.server import running_server

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-line-peers" / "bin" / "python"
SETTINGS = {
    "litserve": "a process a core, no batches, fast_queue, raw body",
    "mosec": "a process a core, one stage, no batches, raw body",
    "celery": "prefork, a process a core, prefetch 1, pickle, Redis as broker and result backend",
}
SHARES = (0.5, 0.9)
THROUGHPUT_SHARE = 0.95
START_S = 180.0
NUM_PROCESSES = len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Peer:
    """A running peer, and where the load generator reaches it."""

    name: str
    target: TargetKind
    url: str
    process: subprocess.Popen[bytes]

    def send(self, number: signal.Signals) -> None:
        """To all of its processes."""
        for process in (parent := psutil.Process(self.process.pid)), *parent.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)


def peers(bench: Bench) -> list[Row]:
    """Saturated throughput, and p50 and p99 at half and at nine tenths of capacity."""
    return compare(bench, bench.place, (_litserve, _mosec, _celery), "the line")


def peers_over_http(bench: Bench, gateway: Place) -> list[Row]:
    """The same of a gateway, beside the peers that speak HTTP."""
    return compare(bench, gateway, (_litserve, _mosec), "the gateway")


def compare(bench: Bench, ours: Place, starts: "Sequence[Start]", name: str) -> list[Row]:
    """Rows of what is called `name` beside the peers."""
    if not PYTHON.exists():
        skipped = f"skipped: there is no {PYTHON.parents[1].name}; `make bench-lines` makes it"
        return [Row(f"{name} against the peers", "", skipped)]
    bench.capacity(ours)
    with running(bench, starts) as started:
        rows, rates = _throughput(bench, started, ours, name)
        for peer in started:
            least = min(rates["ours"], rates[peer.name])
            rows += [_latency(bench, peer, share, least, ours, name) for share in SHARES]
    return rows


def _throughput(bench: Bench, started: list[Peer], ours: Place, name: str) -> tuple[list[Row], dict[str, float]]:
    """The row, and the capacity of each."""
    rates: dict[str, list[float]] = {name: [] for name in ["ours", *(peer.name for peer in started)]}
    for _ in range(bench.options.repeats):
        rates["ours"].append(bench.capacity(ours))
        for peer in started:
            with _turn(bench, peer) as place:
                rates[peer.name].append(_saturate(place, rates["ours"][-1] * bench.options.seconds / 2).rate())
    best = [max(rates[peer.name][number] for peer in started) for number in range(bench.options.repeats)]
    share = median([each / other for each, other in zip(rates["ours"], best, strict=True)])
    figures = {peer: median(values, 1) for peer, values in rates.items()}
    value = f"{share} of the best: " + ", ".join(f"{peer} {rate}/s" for peer, rate in figures.items())
    met = share >= THROUGHPUT_SHARE
    row = Row(
        f"saturated throughput of {name} against the peers", f"{THROUGHPUT_SHARE} of the best", value, met, figures
    )
    return [row], figures


def _latency(bench: Bench, peer: Peer, share: float, capacity: float, way: Place, name: str) -> Row:
    """p50 and p99 of both with the same arrivals, at a share of the smaller capacity of the two."""
    found: dict[str, list[float]] = {name: [] for name in ("p50", "p99", "peer_p50", "peer_p99")}
    for repeat in range(bench.options.repeats):
        due_ms = bench.arrivals(share * capacity, repeat, bench.options.seconds / 2)
        ours = way.opened(due_ms, 60_000)
        with _turn(bench, peer) as place:
            theirs = place.opened(due_ms, 60_000)
        for outcome in (ours, theirs):
            bench.require(outcome)
        for prefix, outcome in (("", ours), ("peer_", theirs)):
            found[f"{prefix}p50"].append(outcome.percentile(50))
            found[f"{prefix}p99"].append(outcome.percentile(99))
    figures = {figure: median(values, 1) for figure, values in found.items()} | {
        "per_second": round(share * capacity, 1)
    }
    value = f"p50 {figures['p50']} vs {figures['peer_p50']} ms, p99 {figures['p99']} vs {figures['peer_p99']} ms"
    met = figures["p50"] < figures["peer_p50"] and figures["p99"] < figures["peer_p99"]
    what = f"{name} beside {peer.name}: p50 and p99 at {share} of the smaller capacity ({figures['per_second']}/s)"
    return Row(what, "ahead", value, met, figures)


def _saturate(place: Place, num_requests: float) -> Outcome:
    outcome = place.closed(WINDOW, max(WARM_UP, round(num_requests)))
    if problems := outcome.problems():
        raise RuntimeError("; ".join(problems))
    return outcome


@contextmanager
def _turn(bench: Bench, peer: Peer) -> Iterator[Place]:
    """The peer runs in the block, and no other."""
    load = replace(bench.place.load, target=peer.target, url=peer.url, name=peer.name)
    peer.send(signal.SIGCONT)
    try:
        yield Place(load, bench.place.scratch)
    finally:
        peer.send(signal.SIGSTOP)


@contextmanager
def running(bench: Bench, starts: "Sequence[Start]") -> Iterator[list[Peer]]:
    """The peers, warm and frozen; ended at the end."""
    version = bench.system.versions[0]
    classifier = load_fastest(version)
    engine, _, precision = classifier.engine_name.partition(" ")
    if engine != "openvino":
        raise RuntimeError(f"the peers have no engine but OpenVINO, and the line uses {classifier.engine_name}")
    graph = bench.system.folder / "graph.onnx"
    write_graph(classifier.network, classifier.card, graph)
    environment = os.environ | {
        "PYTHONPATH": str(ROOT), "BENCH_MODEL": str(version.path), "BENCH_GRAPH": str(graph),
        "BENCH_PRECISION": precision,
        "NUM_PROCESSES": str(NUM_PROCESSES), "OMP_NUM_THREADS": "1", "C_FORCE_ROOT": "1",
    }  # fmt: skip
    started: list[Peer] = []
    with running_server() as server:
        try:
            for start in starts:
                started.append(start(bench, environment, server.url))
                _wait_until_ready(bench, started[-1])
                started[-1].send(signal.SIGSTOP)
            yield started
        finally:
            for peer in started:
                peer.send(signal.SIGKILL)
                peer.process.wait()


Start = Callable[[Bench, dict[str, str], str], Peer]


def _litserve(bench: Bench, environment: dict[str, str], url: str) -> Peer:
    port = free_port()
    arguments = ["-m", "benchmarks.peers.lines.litserve_server", str(port), str(NUM_PROCESSES)]
    return Peer(
        "litserve", "http", f"http://127.0.0.1:{port}/predict", _start(bench, "litserve", arguments, environment)
    )


def _mosec(bench: Bench, environment: dict[str, str], url: str) -> Peer:
    port = free_port()
    arguments = ["-m", "benchmarks.peers.lines.mosec_server", "--address", "127.0.0.1", "--port", str(port)]
    arguments += ["--timeout", "60000", "--log-level", "warning"]
    return Peer("mosec", "http", f"http://127.0.0.1:{port}/inference", _start(bench, "mosec", arguments, environment))


def _celery(bench: Bench, environment: dict[str, str], url: str) -> Peer:
    arguments = ["-m", "celery", "-A", "benchmarks.peers.lines.celery_worker", "worker", "--loglevel", "warning"]
    arguments += ["-c", str(NUM_PROCESSES), "-Ofair", "--without-gossip", "--without-mingle"]
    return Peer("celery", "celery", url, _start(bench, "celery", arguments, environment | {"BROKER": url}))


def _start(bench: Bench, name: str, arguments: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    with (bench.system.folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            [str(PYTHON), *arguments], env=environment, stdout=log, stderr=log, cwd=bench.system.folder,
            start_new_session=True,
        )  # fmt: skip


def _wait_until_ready(bench: Bench, peer: Peer) -> None:
    """Until it listens, and all of its processes have answered."""
    if peer.target == "http":
        port = int(peer.url.rsplit(":", 1)[1].partition("/")[0])
        wait_for(listens(port), f"{peer.name} listens", START_S)
    place = Place(replace(bench.place.load, target=peer.target, url=peer.url, name=peer.name), bench.place.scratch)
    end = time.monotonic() + START_S
    while (problems := place.closed(2 * NUM_PROCESSES, WARM_UP).problems()) or peer.process.poll() is not None:
        if time.monotonic() > end or peer.process.poll() is not None:
            log = (bench.system.folder / f"{peer.name}.log").read_text()[-2000:]
            raise RuntimeError(f"{peer.name} does not start: {problems}\n{log}")
        time.sleep(1)


def listens(port: int) -> Callable[[], bool]:
    def try_it() -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    return try_it
