"""Is each item answered once while connections are cut and the process is killed?

    python -m benchmarks.chaos_telegrams [--items 100000] [--controllers 8] [--kills 40] [-o FILE]

A server, a worker of a line that answers at once, `pigeonhole telegrams`, and controllers that send items with their
images. One telegram in 200, on either way, is cut off, also in its middle; the process is killed at even distances and
started again. At the end every item must have one answer, all that were sent for it must be equal, one that was sent
before must say so, and the line must have one record for each. Exit code 1 if not. The last line is JSON.
"""

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_run, keep
from orchestrator.contract.lines.store import LineStore
from orchestrator.contract.server import connect_raw
from orchestrator.stack.server import free_port
from tests.support.line_worker import enter_line, line_worker, make_line
from tests.support.server import running_server
from tests.support.telegram_controllers import Controller, TelegramProcess

CUT = 0.005
STALLED_S = 300.0


def main() -> None:
    """Run, judge, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--controllers", type=int, default=8)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("-o", "--output", type=Path, help="file for the result instead of one in results/")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that it ends the processes that it started
    with tempfile.TemporaryDirectory(prefix="ph-telegrams-") as folder:
        figures = run(Path(folder), options.items, options.controllers, options.kills)
    for name, value in figures.items():
        print(f"{name:24}{value!s:>12}")
    keep(describe_run("chaos_telegrams") | figures, "chaos-telegrams", options.output)
    sys.exit(bool(figures["broken_promises"]))


def run(folder: Path, num_items: int, num_controllers: int, num_kills: int) -> dict[str, Any]:
    """Send all items, kill and cut, and compare."""
    with ExitStack() as stack:
        server = stack.enter_context(running_server())
        enter_line(server.url, make_line(deadline_ms=60_000, max_requests=100_000))
        stack.enter_context(line_worker(server.url))
        port = free_port()
        environment = {"PIGEONHOLE_HOME": str(folder / "home"), "PIGEONHOLE_SERVER_URL": server.url}
        process = TelegramProcess(["--line", "post", "--port", str(port)], environment, folder / "log")
        stack.callback(process.kill)
        share = num_items // num_controllers
        controllers = [
            Controller(f"belt-{belt}", port, [(f"{belt}-{number}", b"image %d" % number) for number in range(share)],
                       CUT, belt)
            for belt in range(num_controllers)
        ]  # fmt: skip
        started = time.monotonic()
        process.start()
        kills = asyncio.run(drive(controllers, process, num_kills))
        seconds = time.monotonic() - started
        answers = LineStore(connect_raw(server.url), "post").counts()["answers"]
        return {
            "items": share * num_controllers, "kills": kills, "cuts": sum(each.cuts for each in controllers),
            "answers_sent_again": sum(each.repeats for each in controllers), "seconds": round(seconds, 1),
            "answers_of_the_line": answers, "broken_promises": judge(controllers, answers),
        }  # fmt: skip


async def drive(controllers: list[Controller], process: TelegramProcess, num_kills: int) -> int:
    """Run the controllers, and kill the process at even distances; the number of kills."""
    running = asyncio.gather(*(controller.run() for controller in controllers))
    wanted = sum(len(controller.items) for controller in controllers)
    kills, seen, since = 0, -1, time.monotonic()
    while not running.done():
        await asyncio.wait([running], timeout=0.05)
        done = sum(len(controller.answers) for controller in controllers)
        if done > seen:
            seen, since = done, time.monotonic()
        if kills < num_kills and done >= (kills + 0.5) * wanted / num_kills:
            await asyncio.to_thread(process.kill)
            process.start()
            kills += 1
        elif time.monotonic() - since > STALLED_S:
            running.cancel()
            raise TimeoutError(f"nothing was answered for {STALLED_S} s; {done} items are")
    await running
    return kills


def judge(controllers: list[Controller], answers: int) -> list[str]:
    """Which promises were broken."""
    broken = [fault for controller in controllers for fault in controller.faults][:20]
    wanted = sum(len(controller.items) for controller in controllers)
    right = sum(answer["bin"] == "1" for controller in controllers for answer in controller.answers.values())
    broken += [f"{right} items have their bin, {wanted} wanted"] if right != wanted else []
    broken += [f"the line has {answers} answers, {wanted} wanted"] if answers != wanted else []
    return broken


if __name__ == "__main__":
    main()
