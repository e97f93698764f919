"""Runs undisturbed jobs with the checkout that PYTHONPATH names; `benchmarks.before_after` starts one for each.

    PYTHONPATH=CHECKOUT python -P benchmarks/undisturbed.py HOME ENGINES

Starts a server and a worker in HOME. Reads a JSON object on each line of standard input, `source` and `output`; runs
that job, and writes an object on one line: seconds, and processor seconds of all its processes. It uses only what both
checkouts have.
"""

import json
import sys
import time
from pathlib import Path

import psutil

import orchestrator
from modeling.registry.store import ModelStore
from orchestrator.contract.settings import Settings
from orchestrator.jobs.follow import follow
from orchestrator.jobs.prepare import prepare
from orchestrator.jobs.specs import ClassifySpec
from orchestrator.jobs.submit import JobClient
from orchestrator.stack.stack import Stack
from tests.support.published_models import publish_model


def main() -> None:
    """Start the stack, run jobs until standard input ends, and stop it."""
    home, engines = map(Path, sys.argv[1:])
    publish_model(home / "models", "digits")
    ModelStore(home / "models").engines.symlink_to(engines)  # both checkouts use the engine that was measured first
    stack = Stack(Settings(home=home, server_url=None))
    started = [process.pid for process in stack.up(["cpu"])]
    try:
        settings = Settings(home=home, server_url=None)
        client = JobClient(settings)
        _say({"checkout": str(Path(orchestrator.__file__ or next(iter(orchestrator.__path__))).parent)})
        for line in sys.stdin:
            _say(_run(settings, client, started, **json.loads(line)))
    finally:
        stack.down()


def _run(settings: Settings, client: JobClient, started: list[int], source: str, output: str) -> dict[str, float]:
    processor_s, began = _processor_seconds(started), time.perf_counter()
    job = client.submit(prepare(settings, ClassifySpec(source, "digits", output=Path(output)))).job
    for snapshot in follow(settings, client.ledger, job):
        record = snapshot.record
    assert record.state == "succeeded", record
    elapsed_s = time.perf_counter() - began
    return {"seconds": elapsed_s, "processor_seconds": _processor_seconds(started) - processor_s}


def _processor_seconds(started: list[int]) -> float:
    """Of this process, which submits and follows, of the server, and of the worker with its children."""
    processes = [psutil.Process()]
    for pid in started:
        parent = psutil.Process(pid)
        processes += [parent, *parent.children(recursive=True)]
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def _say(facts: object) -> None:
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
