"""A line's server for tests of a client's threads: it says what the test wants, and remembers what it was told."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace

import redis

from orchestrator.contract.lines.requests import Admission, Decided, Push
from orchestrator.contract.lines.settings import Line
from orchestrator.lines.line_server import Health


class FakeLineServer:
    """Stands for `LineServer` and the `LineStore` that it opens."""

    name = "post"
    url = "redis://fake"
    own_url = None

    def __init__(self, line: Line) -> None:
        self.line = line
        self.health = Health()
        self.alive = True
        self.asked: list[str] = []  # what was called, of settle and deliver with the keys
        self.pushed: list[Push] = []
        self.admission: Callable[[Push], Admission] = lambda push: Admission("admitted")
        self.settled: Callable[[Decided], bytes] = record_of
        self.client = SimpleNamespace(ping=self._answer, close=lambda: None)
        self.epoch_now = "1"

    def look(self, timeout_s: float) -> Line:
        self._answer()
        return self.line

    def open(self, timeout_s: float) -> "FakeLineServer":
        return self

    def unavailable(self, err: BaseException) -> Exception:
        return ValueError(str(err))

    def load_scripts(self) -> None:
        self._answer()

    def epoch(self) -> str:
        self._answer()
        return self.epoch_now

    def sweep(self, most_ms: int) -> int:
        self._answer()
        return most_ms

    def admit(self, pushes: Sequence[Push], client_id: str) -> list[Admission]:
        self._answer()
        self.pushed += pushes
        return [self.admission(push) for push in pushes]

    def settle(self, decided: Sequence[Decided], client_id: str) -> list[bytes]:
        self.asked.append("settle " + " ".join(each.key for each in decided))
        self._answer()
        return [self.settled(each) for each in decided]

    def deliver(self, decided: Sequence[Decided]) -> int:
        self._answer()
        self.asked.append("deliver " + " ".join(each.key for each in decided))
        return 0

    def _answer(self) -> None:
        if not self.alive:
            raise redis.TimeoutError("the fake server is away")


def record_of(decided: Decided, *, bin_: str = "F", reason: str = "late") -> bytes:
    """A record of the server."""
    return (
        f'{{"key":"{decided.key}","bin":"{bin_}","reason":"{reason}","digest":"{decided.digest}","map_version":1}}'
    ).encode()
