"""Does each item get one answer over HTTP while the gateway is killed?

    python -m benchmarks.chaos_gateway [--seconds 60] [--every 5] [--clients 8] [-o FILE]

A server, a worker of a line that answers at once, one gateway, and clients that push one item after another. The
gateway is killed when it has answered for so long, and started again; a client whose connection ends, or that is
refused, pushes its item again. At the end every item is pushed once more: it must get the answer that it had, and the
line must have one record for each item and have predicted it once. Exit code 1 if not. The last line is JSON.
"""

import argparse
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.machine import describe_run, keep
from orchestrator.contract.lines.store import LineStore
from orchestrator.contract.server import connect_raw
from orchestrator.stack.server import free_port
from tests.support.gateway_processes import GatewayProcess, push_until_answered
from tests.support.line_worker import enter_line, line_worker, make_line
from tests.support.server import running_server, wait_until

TIMEOUT_S = 60.0
PAUSE_S = 0.02  # of a client that cannot reach the gateway


@dataclass
class Clients:
    """Threads that push until they are stopped. answers: by item; again: pushes that were not the first of an item."""

    port: int
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    again: int = 0
    stopping: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self, number: int) -> None:
        for client in range(number):
            self._threads.append(threading.Thread(target=self._run, args=(client,)))
            self._threads[-1].start()

    def stop(self) -> None:
        """Wait until each has its last answer."""
        self.stopping.set()
        for thread in self._threads:
            thread.join()

    def _run(self, client: int) -> None:
        with httpx2.Client(timeout=TIMEOUT_S) as http:
            number, pause = 0, partial(self.stopping.wait, PAUSE_S)
            while not self.stopping.is_set():
                item = f"{client}-{number}"
                self.answers[item], tries = push_until_answered(http, [self.port], item, pause)
                self.again += tries - 1
                number += 1


def main() -> None:
    """Run, judge, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two kills")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("-o", "--output", type=Path, help="file for the result instead of one in results/")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that it ends the processes that it started
    with tempfile.TemporaryDirectory(prefix="ph-gateway-") as folder:
        figures = run(Path(folder), options.seconds, options.every, options.clients)
    for name, value in figures.items():
        print(f"{name:24}{value!s:>12}")
    keep(describe_run("chaos_gateway") | figures, "chaos-gateway", options.output)
    sys.exit(bool(figures["broken_promises"]))


def run(folder: Path, seconds: float, every_s: float, num_clients: int) -> dict[str, Any]:
    """Push, kill, and compare."""
    with ExitStack() as stack:
        server = stack.enter_context(running_server())
        enter_line(server.url, make_line(deadline_ms=60_000))
        worker = stack.enter_context(line_worker(server.url))
        gateway = GatewayProcess.of(folder, server.url, free_port())
        stack.callback(gateway.kill)
        gateway.start()
        clients, num_kills = Clients(gateway.port), round(seconds / every_s)
        clients.start(num_clients)
        for _ in range(num_kills):
            _answer_for(clients, every_s)
            gateway.kill()
            gateway.start()
        _answer_for(clients, every_s)
        clients.stop()
        again = _push_again(clients)
        records = LineStore(connect_raw(server.url), "post").counts()["answers"]
        return {
            "items": len(clients.answers), "kills": num_kills, "pushed_again": clients.again, "records": records,
            "broken_promises": judge(clients.answers, again, records, worker.taken),
        }  # fmt: skip


def _answer_for(clients: Clients, seconds: float) -> None:
    """Let the clients push until the gateway, which may have to start, has answered for so long."""
    known = len(clients.answers)
    wait_until(lambda: len(clients.answers) > known, what="the gateway answers", timeout_s=TIMEOUT_S)
    time.sleep(seconds)


def _push_again(clients: Clients) -> dict[str, dict[str, Any]]:
    """The answers of all items, asked for by pushing them once more."""
    with httpx2.Client(timeout=TIMEOUT_S) as http:
        return {item: push_until_answered(http, [clients.port], item)[0] for item in clients.answers}


def judge(
    answers: Mapping[str, Mapping[str, Any]], again: Mapping[str, Mapping[str, Any]], records: int, taken: list[str]
) -> list[str]:
    """Which promises were broken. again: answers to the same pushes later. taken: keys that the worker has taken."""
    different = [item for item, answer in answers.items() if _decided(answer) != _decided(again[item])]
    wrong = [item for item, answer in answers.items() if answer["bin"] != "1"]
    broken = [f"{item} had {_decided(answers[item])}, later {_decided(again[item])}" for item in different[:20]]
    broken += [f"{len(wrong)} items have not their bin: {wrong[:5]}"] if wrong else []
    broken += [f"the line has {records} records, {len(answers)} wanted"] if records != len(answers) else []
    broken += ["a worker took an item twice"] if len(taken) != len(set(taken)) else []
    return broken


def _decided(answer: Mapping[str, Any]) -> tuple[Any, ...]:
    return answer["bin"], answer["reason"], answer["label"], answer["model"]


if __name__ == "__main__":
    main()
