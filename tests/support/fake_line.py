"""A line's server for tests of a client: it says what the test wants, and remembers what it was told."""

import socket
from collections.abc import Callable, Sequence
from typing import Any

import redis

from orchestrator.contract.lines.answers import Verdict
from orchestrator.contract.lines.channel import OnReplies
from orchestrator.contract.lines.commands import Command
from orchestrator.contract.lines.requests import Admission, Decided, Push
from orchestrator.contract.lines.scripts import scripts
from orchestrator.contract.lines.settings import Line


class FakeLineServer:
    """Stands for `LineServer` and the connections that it opens."""

    name = "post"
    url = "redis://fake"
    own_url = None

    def __init__(self, line: Line) -> None:
        self.line = line
        self.alive = True  # else it neither answers what was sent nor takes connections
        self.asked: list[str] = []  # what was called, of settle and deliver with the keys
        self.pushed: list[Push] = []
        self.admission: Callable[[Push], Admission] = lambda push: Admission("admitted")
        self.settled: Callable[[Decided], bytes] = record_of
        self.knows_line = True
        self.epoch_now = b"1"
        self.channels: list[FakeChannel] = []

    def look(self, timeout_s: float) -> Line:
        self._require_alive()
        return self.line

    def open_channels(
        self, client_id: str, on_published: Callable[[bytes], None], timeout_s: float
    ) -> tuple["FakeChannel", "FakeChannel", bytes]:
        self._require_alive()
        self.channels = [FakeChannel(self, on_published), FakeChannel(self, on_published)]
        return *self.channels, self.epoch_now

    def unavailable(self, err: BaseException) -> Exception:
        return ValueError(str(err))

    def publish(self, key: str, record: bytes) -> None:
        """Tell the client an answer."""
        self.channels[1].say(b"%d:%s%s" % (len(key.encode()), key.encode(), record))

    def cut(self) -> None:
        """End the connections."""
        for channel in self.channels:
            channel.cut()

    def reply(self, command: Command) -> Any:
        names = {script.sha: name for name, script in scripts().items()}
        kind, *args = command
        if kind == "HGET":
            return self.epoch_now
        if kind != "EVALSHA":
            return b"OK"
        name, args = names[args[0]], args[3:]
        replies: dict[str, Callable[[Sequence[Any]], Any]] = {
            "settle": self._settle, "deliver": self._deliver, "sweep": lambda args: 0, "discharge": lambda args: b"",
        }  # fmt: skip
        return replies[name](args)

    def admit(self, args: Sequence[Any], images: dict[str, bytes]) -> list[tuple[bytes, bytes]]:
        """args: of the script."""
        found = []
        for place in range(1, len(args), 7):
            key, digest, remaining_ms, size, kind, path, tried_ms = args[place : place + 7]
            payload = images.get(f"{digest}:{key}", path)
            push = Push(key, digest, remaining_ms, size, kind, payload, tried_ms)
            self.pushed.append(push)
            found.append(_encoded(self.admission(push)))
        return found

    def _settle(self, args: Sequence[Any]) -> list[bytes]:
        keys = args[1::5]
        self.asked.append("settle " + " ".join(keys))
        if not self.knows_line:
            return []
        return [
            self.settled(Decided(args[place], _verdict(args[place + 1]), args[place + 3], args[place + 4]))
            for place in range(1, len(args), 5)
        ]

    def _deliver(self, args: Sequence[Any]) -> int:
        self.asked.append("deliver " + " ".join(args[::6]))
        return 0

    def _require_alive(self) -> None:
        if not self.alive:
            raise redis.TimeoutError("the fake server is away")


class FakeChannel:
    """Stands for `Channel`."""

    def __init__(self, server: FakeLineServer, on_published: Callable[[bytes], None]) -> None:
        self._server = server
        self._on_published = on_published
        self._here, self._there = socket.socketpair()
        self._here.setblocking(False)
        self._to_say: list[Callable[[], None]] = []
        self.has_unsent = False
        self.waits_since: float | None = None

    def fileno(self) -> int:
        return self._here.fileno()

    def send(self, commands: Sequence[Command], on_replies: OnReplies) -> None:
        if not self._server.alive:
            return
        *stored, last = commands
        if last[0] == "EVALSHA" and last[1] == scripts()["admit"].sha:
            images = {command[1].partition(":i:")[2]: command[2] for command in stored}
            replies: list[Any] = [b"OK"] * len(stored) + [self._server.admit(last[4:], images)]
        else:
            replies = [self._server.reply(command) for command in commands]
        self._say(lambda: on_replies(replies))

    def say(self, message: bytes) -> None:
        self._say(lambda: self._on_published(message))

    def _say(self, call: Callable[[], None]) -> None:
        self._to_say.append(call)
        self._there.send(b"\0")

    def receive(self) -> None:
        try:
            data = self._here.recv(1 << 16)
        except BlockingIOError:
            return
        if not data:
            raise redis.ConnectionError("the fake server closed the connection")
        for _ in data:
            self._to_say.pop(0)()

    def flush(self) -> None: ...

    def cut(self) -> None:
        self._there.close()

    def close(self) -> None:
        self._here.close()


def record_of(decided: Decided, *, bin_: str = "F", reason: str = "late") -> bytes:
    """A record of the server."""
    return (
        f'{{"key":"{decided.key}","bin":"{bin_}","reason":"{reason}","digest":"{decided.digest}","map_version":1}}'
    ).encode()


def _encoded(admission: Admission) -> tuple[bytes, bytes]:
    """As the script says it."""
    details = {"busy": str(admission.retry_ms), "too_large": str(admission.limit)}
    detail = details.get(admission.verdict, "").encode() or admission.record
    return admission.verdict.encode(), detail


def _verdict(text: str) -> Verdict:
    import json

    facts = json.loads("{" + text + "}")
    return Verdict(facts["bin"], facts["reason"], facts["cause"])
