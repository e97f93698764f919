"""A line on a server, and a worker of it without a model: it answers what it takes at once."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator

from orchestrator.contract.lines.answers import Verdict, encode_facts
from orchestrator.contract.lines.registry import LINES_KEY
from orchestrator.contract.lines.requests import GivenAnswer, Held
from orchestrator.contract.lines.settings import Line, LineSettings
from orchestrator.contract.lines.store import LineStore
from orchestrator.contract.server import SERVER_ERRORS, connect_raw
from tests.support.server import PATIENCE_S

LATE = Verdict("F", "late", "device")
# Of a push at its deadline where no worker is: the last two on a machine so busy that the server is not asked in time.
UNANSWERED = ("no_worker", "late", "no_server")


def make_line(name: str = "post", **settings: object) -> Line:
    """A line with the fallback bin F and the review bin R."""
    facts = {"model": "m@champion", "fallback": "F", "review": "R", "deadline_ms": 1000, "bins": {"a": ["1"]}}
    return Line(LineSettings.from_json({"name": name} | facts | settings))


def enter_line(url: str, line: Line) -> LineStore:
    """Make a server know a line, as a registry does."""
    client = connect_raw(url)
    store = LineStore(client, line.name)
    store.enter(line)
    client.hset(LINES_KEY, line.name, line.encode())
    return store


def report_for_a_minute(store: LineStore, worker: str, capacity: str, **facts: object) -> None:
    """What a worker says of itself, for longer than a real one's word counts: a busy machine takes long to look."""
    store.run("capacity", [worker, 60_000, capacity, json.dumps(facts)])


def answer_one(held: Held) -> GivenAnswer:
    """Bin 1 for everything, but for an image that begins with `bad`: it cannot be decoded."""
    if held.image.startswith(b"bad"):
        return GivenAnswer(held.key, Verdict("F", "unreadable"), LATE, encode_facts(error="not_an_image"))
    facts = encode_facts(label="a", score=0.9, decision="accept", model="m@1", map_version=1)
    return GivenAnswer(held.key, Verdict("1"), LATE, facts)


class LineWorker:
    """A thread that takes requests of a line and answers them; it goes on when the server comes back.

    Started, it has said once that it is open: who looks for a worker finds it.
    """

    def __init__(self, url: str, name: str = "post", *, answer: Callable[[Held], GivenAnswer] = answer_one) -> None:
        self.taken: list[str] = []
        self._answer = answer
        self._store = LineStore(connect_raw(url, timeout_s=2), name)
        self._open, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(*SERVER_ERRORS):
                self._store.report_capacity("w", "1.0 1.0 0 0", {"state": "open"})
                self._open.set()
                held = self._store.take("w", 64, 500, 1 << 30).held
                self.taken += [each.key for each in held]
                if held:
                    self._store.answer([self._answer(each) for each in held])
            self._stopping.wait(0.002)

    def start(self) -> None:
        self._thread.start()
        assert self._open.wait(PATIENCE_S), "its server did not answer"

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()


@contextlib.contextmanager
def line_worker(
    url: str, name: str = "post", *, answer: Callable[[Held], GivenAnswer] = answer_one
) -> Iterator[LineWorker]:
    """A worker that is stopped at the end of the block."""
    worker = LineWorker(url, name, answer=answer)
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()
