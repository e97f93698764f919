"""Part: the least that a server between client and worker costs, with nothing of what a line promises.

The client adds images to a stream; a worker process predicts them by the library, one thread a stream, and
publishes the answers. Both use redis-py, and the server of the line. There is no deadline, record, lease or
admission, and no push is recognised again. What a line costs more than that is ours; what is missing to the library
here, no line on this server can reach.
"""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psutil
import redis

from benchmarks.lines.bench import Bench, Row, median, wait_for
from benchmarks.lines.load_floor import GROUP, STREAM
from benchmarks.lines.runs import Place

if TYPE_CHECKING:
    from modeling.inference.push_predictor import PushPredictor

START_S = 180.0
BLOCK_MS = 1_000


def floor(bench: Bench) -> list[Row]:
    """Throughput of the line, of the floor and of the library, in turns; and what a push costs on the floor."""
    found: dict[str, list[float]] = {"line": [], "floor": [], "library": []}
    with running(bench) as (worker, place):
        bench.saturate(2, place)
        for _ in range(bench.options.repeats):
            found["library"].append(bench.library.images_per_sec(bench.options.seconds / 2, bench.capacity()))
            found["line"].append(bench.capacity())
            found["floor"].append(bench.capacity(place))
        figures: dict[str, Any] = {name: median(rates, 1) for name, rates in found.items()}
        for name, rate in (("half", median(found["line"]) / 2), ("saturated", 0.0)):
            figures[name] = _cost(bench, place, worker, rate)
    share, ours = (
        median([a / b for a, b in zip(found[name], found["library"], strict=True)]) for name in ("floor", "line")
    )
    value = f"{share} of the library ({figures['floor']} of {figures['library']}/s); the line {ours}"
    costs = "; ".join(
        f"{name}: server {figures[name]['server_us']} µs, client {figures[name]['client_us']} µs"
        for name in ("half", "saturated")
    )
    return [
        Row(
            "a bare stream and a bare worker in place of the line: saturated throughput", "stated", value, None, figures
        ),
        Row("CPU of server and client a push there", "stated", costs),
    ]


@contextmanager
def running(bench: Bench) -> Iterator[tuple[psutil.Popen, Place]]:
    """The worker of the floor, which has its model, and where the load generator pushes to."""
    client = redis.Redis.from_url(bench.system.url)
    client.xgroup_create(STREAM, GROUP, mkstream=True)
    worker = psutil.Popen(
        [sys.executable, "-m", "benchmarks.lines.floor", bench.system.url, str(bench.system.settings.models)],
        stdin=subprocess.PIPE,
    )
    try:
        wait_for(lambda: len(client.xinfo_consumers(STREAM, GROUP)) > 0, "the worker of the floor reads", START_S)
        yield worker, Place(replace(bench.place.load, target="floor", name="floor"), bench.place.scratch)
    finally:
        worker.kill()
        worker.wait()
        client.delete(STREAM)


def _cost(bench: Bench, place: Place, worker: psutil.Popen, rate: float) -> dict[str, int]:
    """Processor microseconds a push."""
    before = sum(worker.cpu_times()[:2])
    with bench.cost() as cost:
        outcome = place.opened(bench.arrivals(rate, 0), 60_000) if rate else bench.saturate(5, place)
    bench.require(outcome)
    each_us = 1e6 / outcome.num_sent
    spent = {"server": cost.server_s, "client": outcome.cpu_s, "worker": sum(worker.cpu_times()[:2]) - before}
    return {f"{name}_us": round(seconds * each_us) for name, seconds in spent.items()}


# The worker


def work(url: str, models: str) -> None:
    """Predict what is added to the stream, until the standard input ends."""
    from pathlib import Path

    from benchmarks.lines.system import MODEL
    from modeling.inference.choose_engine import load_fastest
    from modeling.inference.push_predictor import prepare_for_pushes
    from modeling.registry.store import ModelStore

    predictor = prepare_for_pushes(load_fastest(ModelStore(Path(models)).resolve(f"{MODEL}@1")))
    for number in range(predictor.num_streams):
        threading.Thread(target=_predict, args=(url, predictor, f"thread-{number}"), daemon=True).start()
    with suppress(KeyboardInterrupt):
        sys.stdin.read()


def _predict(url: str, predictor: "PushPredictor", name: str) -> None:
    from benchmarks.lines.library import TOP_K
    from modeling.images.decode import decode_image

    client = redis.Redis.from_url(url)
    most = predictor.sizes[-1]
    while True:
        found: Any = client.xreadgroup(GROUP, name, {STREAM: ">"}, count=most, block=BLOCK_MS)
        entries = found[0][1] if found else []
        if not entries:
            continue
        pixels = [decode_image(fields[b"image"], predictor.preprocessing) for _, fields in entries]
        predictor.predict(pixels, TOP_K)
        with client.pipeline(transaction=False) as pipeline:
            for _, fields in entries:
                pipeline.publish(fields[b"to"], fields[b"number"])
            pipeline.xack(STREAM, GROUP, *(key for key, _ in entries))
            pipeline.xdel(STREAM, *(key for key, _ in entries))
            pipeline.execute()


if __name__ == "__main__":
    work(*sys.argv[1:])
