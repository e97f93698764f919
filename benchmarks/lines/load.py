"""A process that pushes images, as a client of its own: `python -m benchmarks.lines.load` with a `Load` on its input.

Open loop: requests go out at given times, however late the answers are, and latency counts from those times. Closed
loop: a number of requests is always in flight. It prints `ready` and waits for a line on its input; another line, or
the end of the input, makes it stop sending and wait for what is in flight. It prints its processor seconds.
"""

import json
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

TargetKind = Literal["line", "http", "celery", "floor"]
LONGEST_WAIT_S = 30.0  # for what is in flight at the end
WARM_UP_NUMBER, WARM_UP_MS = -1, 5_000
SPIN_S = 0.0002  # shorter waits are not worth a call


@dataclass(frozen=True)
class Load:
    """What to push, where to, and when.

    target: the kind of system; url: of it, or of its server; line: where there is one. images: a folder; its files are
    read before the start, and pushed in turns. output: a file for `Outcome`. name: the start of every item. window:
    requests in flight, of a closed loop; 0: an open loop. count: requests of a closed loop. due_s, deadline_ms: files
    of numpy arrays: when each request of an open loop is due, in seconds from the start; the deadline of each, or none.
    fallback: the bin that a client decides alone. deadline_all_ms: where there is no file of deadlines.
    """

    target: TargetKind
    url: str
    images: str
    output: str
    name: str
    line: str = ""
    window: int = 0
    count: int = 0
    due_s: str = ""
    deadline_ms: str = ""
    deadline_all_ms: int = 60_000
    fallback: str = "fallback"

    @classmethod
    def from_json(cls, text: str) -> Self:
        return cls(**json.loads(text))

    def to_json(self) -> str:
        return json.dumps(asdict(self))


@dataclass
class Finished:
    """How one request ended. done: `time.monotonic()`. reason: '' on a plain accept. error: not answered but failed."""

    number: int
    done: float
    bin: str = ""
    reason: str = ""
    model: str = ""
    error: str = ""
    predicted: bool = True


class Target(Protocol):
    """A system that requests are sent to, from one thread."""

    def submit(self, number: int, image: bytes, deadline_ms: int, due: float) -> None:
        """Send a request. due: `time.monotonic()` from which its deadline counts."""

    def wait(self, seconds: float) -> list[Finished]:
        """Requests that have ended, after at most so many seconds."""

    def close(self) -> None: ...


@dataclass
class Records:
    """What became of each request; times are `time.monotonic()`, NaN where there is none."""

    due: NDArray[np.float64]
    deadline_ms: NDArray[np.int64]
    sent: NDArray[np.float64] = field(init=False)
    done: NDArray[np.float64] = field(init=False)
    decisions: NDArray[np.int64] = field(init=False)
    predicted: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        count = len(self.due)
        self.sent, self.done = np.full(count, np.nan), np.full(count, np.nan)
        self.decisions, self.predicted = np.zeros(count, np.int64), np.zeros(count, np.bool_)
        self.texts: dict[str, list[str]] = {name: [""] * count for name in ("bin", "reason", "model", "error")}

    def add(self, finished: Finished) -> None:
        at = finished.number
        self.decisions[at] += 1
        if self.decisions[at] == 1:
            self.done[at], self.predicted[at] = finished.done, finished.predicted
            for name, values in self.texts.items():
                values[at] = getattr(finished, name)

    def save(self, path: Path) -> None:
        texts = {name: np.asarray(values, np.str_) for name, values in self.texts.items()}
        arrays = {
            name: getattr(self, name) for name in ("due", "deadline_ms", "sent", "done", "decisions", "predicted")
        }
        np.savez(path, **arrays | texts)


class Sender:
    """Sends the requests of a load, and records their ends."""

    def __init__(self, load: Load, target: Target, images: list[bytes], stopping: threading.Event) -> None:
        self._load, self._target, self._images, self._stopping = load, target, images, stopping
        self._in_flight = 0
        count = load.count
        due = np.full(count, np.nan)
        if not load.window:
            due = np.load(load.due_s)
            count = len(due)
        deadlines = np.load(load.deadline_ms) if load.deadline_ms else np.full(count, load.deadline_all_ms)
        self.records = Records(due, deadlines.astype(np.int64))

    def run(self) -> None:
        """Send until the end, or until it has to stop; then wait for what is in flight."""
        if self._load.window:
            self._run_closed()
        else:
            self._run_open()
        end = time.monotonic() + LONGEST_WAIT_S + self._load.deadline_all_ms / 1000
        while self._in_flight and time.monotonic() < end:
            self._collect(0.1)
        self._collect(0.0)

    def _run_open(self) -> None:
        self.records.due += time.monotonic() + 0.05
        for number, due in enumerate(self.records.due.tolist()):
            while (ahead := due - time.monotonic()) > SPIN_S:
                self._collect(ahead)
            if self._stopping.is_set():
                return
            self._submit(number, due)
            self._collect(0.0)

    def _run_closed(self) -> None:
        for number in range(self._load.count):
            while self._in_flight >= self._load.window:
                self._collect(0.1)
            if self._stopping.is_set():
                return
            self.records.due[number] = time.monotonic()
            self._submit(number, self.records.due[number])

    def _submit(self, number: int, due: float) -> None:
        self.records.sent[number] = time.monotonic()
        self._in_flight += 1
        image = self._images[number % len(self._images)]
        self._target.submit(number, image, int(self.records.deadline_ms[number]), due)

    def _collect(self, seconds: float) -> None:
        for finished in self._target.wait(seconds):
            self._in_flight -= 1
            self.records.add(finished)


def open_target(load: Load) -> Target:
    """The client of a system."""
    if load.target == "http":
        from benchmarks.lines.load_http import HttpTarget

        return HttpTarget(load.url)
    if load.target == "celery":
        from benchmarks.lines.load_celery import CeleryTarget

        return CeleryTarget(load.url)
    if load.target == "floor":
        from benchmarks.lines.load_floor import FloorTarget

        return FloorTarget(load.url)
    from benchmarks.lines.load_line import LineTarget

    return LineTarget(load)


def warm_up(target: Target, image: bytes) -> None:
    """One request that does not count: every client connects before its load starts."""
    target.submit(WARM_UP_NUMBER, image, WARM_UP_MS, time.monotonic())
    end = time.monotonic() + 2 * WARM_UP_MS / 1000
    while not target.wait(0.1) and time.monotonic() < end:
        pass


def read_images(folder: Path) -> list[bytes]:
    """All files of a folder, in order."""
    return [path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()]


def main() -> None:
    """Push what the input says, and print the cost."""
    load = Load.from_json(sys.stdin.readline())
    images, target, stopping = read_images(Path(load.images)), open_target(load), threading.Event()
    sender = Sender(load, target, images, stopping)
    warm_up(target, images[0])
    _say({"ready": True})
    sys.stdin.readline()
    threading.Thread(target=_stop_on_input, args=(stopping,), daemon=True).start()
    started, cpu_before = time.monotonic(), time.process_time()
    sender.run()
    answer = {"cpu_s": time.process_time() - cpu_before, "seconds": time.monotonic() - started}
    sender.records.save(Path(load.output))
    _say(answer)
    target.close()


def _stop_on_input(stopping: threading.Event) -> None:
    sys.stdin.readline()
    stopping.set()


def _say(value: dict[str, Any]) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    main()
