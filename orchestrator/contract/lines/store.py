"""A line on its server: requests that wait, workers that hold some of them, and the answers.

Every change is one Lua script (`lua/`), so it is atomic. Pushes and answers are many and small, so several are sent
in one round trip.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self, cast

import redis

from orchestrator.contract.errors import MessageError
from orchestrator.contract.lines.answers import Answer, decode_record
from orchestrator.contract.lines.commands import LineCommands, admissions, require_all
from orchestrator.contract.lines.connections import Command, connections_of
from orchestrator.contract.lines.requests import Admission, Decided, GivenAnswer, Held, ImagePath, Push, Taken
from orchestrator.contract.lines.settings import Line
from orchestrator.contract.server import SERVER_ERRORS

_LARGEST = 1 << 53  # beyond it, whole numbers are none of the scripts
CAPACITY_TTL_MS = 1_500  # a worker that has not said for so long what it can do counts as dead


class LineStore:
    """One line on its server; safe to share between threads. The client must not decode replies: images are bytes."""

    def __init__(self, client: redis.Redis, name: str) -> None:
        self.client = client
        self.name = name
        self.commands = LineCommands(name)
        self.prefix = self.commands.prefix
        self._connections = connections_of(client)

    def key(self, name: str) -> str:
        return f"{self.prefix}:{name}"

    # Clients

    def admit(self, pushes: Sequence[Push], client_id: str) -> list[Admission]:
        """Offer requests in one round trip; see `LineCommands.admit`, and of the others those of their names."""
        return admissions(pushes, self._send(self.commands.admit(pushes, client_id)))

    def settle(self, decided: Sequence[Decided], client_id: str) -> list[bytes]:
        """The records of requests whose deadline is over."""
        return cast(list[bytes], self._call(*self.commands.settle(decided, client_id)))

    def deliver(self, decided: Sequence[Decided]) -> int | None:
        """Report decisions that a client made alone."""
        return cast("int | None", self._call(*self.commands.deliver(decided)))

    def discharge(self, key: str, bin_: str) -> Answer | None:
        """Report where an item really went; returns its answer, if the server still has it."""
        record = cast(bytes, self._call(*self.commands.discharge(key, bin_)))
        return decode_record(record) if record else None

    def sweep(self, most_ms: int, *, since_s: float | None = None) -> int:
        """Answer what is late; returns milliseconds until the next deadline, at most `most_ms`.

        since_s: seconds since this worker's last sweep, 0 at its first; so a clock of the server that was set is seen.
        """
        return int(self._call(*self.commands.sweep(most_ms, since_s)))

    def record(self, key: str) -> bytes | None:
        """The record of an answer, as long as it is on the server."""
        return cast("bytes | None", self.client.hget(self.key("answers"), key))

    def epoch(self) -> str | None:
        """Changes when the server was emptied; None where it does not know the line now."""
        value = cast("bytes | None", self._call(*self.commands.epoch()))
        return value.decode() if value else None

    # Workers

    def take(self, worker: str, most: int, lease_ms: int, most_bytes: int) -> Taken:
        """Lease the requests that are due first."""
        [taken] = self.take_for_each(worker, [(self, most, lease_ms, most_bytes)])
        if taken.error is not None:
            raise taken.error
        return taken

    def take_for_each(
        self, worker: str, wanted: Sequence[tuple[Self, int, int, int]], wait_s: float = 0.0
    ) -> list[Taken]:
        """The same for several lines of this store's server at once: store, most, lease_ms, most_bytes.

        Waits before that until something is pushed, and at most `wait_s`. An error of one line is in its place.
        """
        sent_s, clock = time.monotonic(), self._connections.clock
        asks = bool(wait_s) and clock.must_ask()
        before: list[Command] = [("TIME",)] if asks else []
        if wait_s:
            before.append(("BLPOP", *(store.key("wake") for store, *_ in wanted), wait_s))
        takes = [
            command
            for store, *limits in wanted
            for command in (store.commands.script("take", [worker, *limits]), store.commands.taken_images(worker))
        ]
        replies = self._send([*before, *takes])
        if any(_is_wrong_type(reply) for reply in replies):
            self._free_wakes([store for store, *_ in wanted])
        told, replies = replies[: len(before)], replies[len(before) :]
        require_all([reply for reply in told if not _is_wrong_type(reply)])
        if asks:
            clock.told(sent_s, *told[0])

        def waited_s(now_ms: int) -> float:
            return clock.when(now_ms, sent_s) - sent_s if wait_s else 0.0

        return [
            store._take_reply(taken, images, waited_s)
            for (store, *_), taken, images in zip(wanted, replies[::2], replies[1::2], strict=True)
        ]

    def _free_wakes(self, stores: Sequence[Self]) -> None:
        """Delete what is no list in the place of wake tokens: waiting for all lines fails with it, and no token counts.

        Everybody who may push to a line may write there.
        """
        keys = [store.key("wake") for store in stores]
        kinds = require_all(self._send([("TYPE", key) for key in keys]))
        if wrong := [key for key, kind in zip(keys, kinds, strict=True) if kind not in (b"list", b"none")]:
            self._call("UNLINK", *wrong)

    def _take_reply(self, reply: Any, listed: Any, waited_s: Callable[[int], float]) -> Taken:
        """waited_s: seconds until the server's clock showed these milliseconds."""
        try:
            [reply] = require_all([reply])
            return self._taken(reply, listed, waited_s(int(reply[0])))
        except SERVER_ERRORS:
            raise
        except redis.ResponseError as err:
            return Taken(0, [], error=err)

    def _taken(self, reply: list[Any], listed: Any, waited_s: float) -> Taken:
        """What the script took, with the images: of `taken_images`, or asked for where a server does not tell them."""
        now, *entries = reply
        named = [(entry, b"%s:%s" % (entry[6] or b"", entry[0])) for entry in entries]
        images: dict[bytes, bytes | None] = {}
        if isinstance(listed, list):
            images = dict(zip(listed[::2], listed[1::2], strict=True))
        if missing := [name for entry, name in named if entry[5] == b"image" and not images.get(name)]:
            keys = [self.key("i:").encode() + name for name in missing]
            images |= zip(missing, cast("list[bytes | None]", self._call("MGET", *keys)), strict=True)
        held, unreadable = list[Held](), list[tuple[bytes, str]]()
        for entry, name in named:
            try:
                held.append(_held(entry, images.get(name)))
            except (MessageError, ValueError, TypeError) as err:
                unreadable.append((entry[0], str(err)[:200]))
        return Taken(int(now), held, waited_s, tuple(unreadable))

    def renew(self, worker: str, lease_ms: int, keys: Iterable[str]) -> set[str]:
        """Keep leases; returns the keys that this worker holds no longer."""
        return {key.decode() for key in self.run("renew", [worker, lease_ms, *keys])}

    def holders(self) -> set[str]:
        """The workers that hold requests now."""
        held = cast(list[bytes], self.client.zrange(self.key("leases"), 0, -1))
        with self.client.pipeline(transaction=False) as pipeline:
            for key in held:
                pipeline.hget(self.key(f"r:{key.decode()}"), "worker")
            return {worker.decode() for worker in pipeline.execute() if worker}

    def hand_back(self, worker: str, keys: Iterable[str]) -> None:
        """Give requests back that this worker has not tried."""
        self.run("hand_back", [worker, *keys])

    def answer(self, given: Sequence[GivenAnswer]) -> list[bool]:
        """Store answers; whether each stands as given: it was in time and the first."""
        args = [
            value
            for each in given
            for value in (
                each.key, each.verdict.encode(), each.late.encode(), each.rest, each.verdict.reason or "",
                each.verdict.cause or "", each.late.cause or "",
            )
        ]  # fmt: skip
        return [bool(stood) for stood in self.run("answer", args)]

    def report_capacity(self, worker: str, capacity: str, facts: Mapping[str, Any] | None) -> None:
        """Tell what this worker can do: milliseconds per image and lead, of the model and of the smaller one.

        facts: what `lines show` says of it; None: the worker leaves.
        """
        self.run("capacity", [worker, CAPACITY_TTL_MS, capacity, "" if facts is None else json.dumps(facts)])

    def count(self, counts: Mapping[str, int]) -> None:
        """Add to the counts of the line."""
        if counts:
            self.run("count", [value for pair in counts.items() for value in pair])

    def counts(self) -> dict[str, int]:
        """What was counted since the line was created, or the server was emptied; `stats` says what it means."""
        counts: Counter[str] = Counter()
        for fields in self.run("totals", []):
            counts.update({name.decode(): int(num) for name, num in zip(fields[::2], fields[1::2], strict=True)})
        return dict(counts)

    # The line itself

    def enter(self, line: Line) -> str:
        """Make the line known to the scripts, as it is now; returns its epoch."""
        settings = line.settings
        fields: dict[str, Any] = {
            "fallback": settings.fallback,
            "map_version": line.map_version,
            "paused": int(line.paused),
            "max_requests": settings.max_requests,
            "max_bytes": settings.max_bytes,
            "max_image_bytes": settings.max_image_bytes,
            "has_degraded": int(settings.degraded is not None),
            "keeps": int(settings.keeps_images),
        }
        return cast(bytes, self.run("enter", [value for pair in fields.items() for value in pair])).decode()

    def remove(self) -> None:
        """Delete all keys of the line."""
        for key in self.client.scan_iter(match=_escaped(self.prefix) + ":*", count=1000):
            self.client.unlink(key)

    def run(self, script: str, args: Iterable[Any]) -> Any:
        """The reply of a script; the calls above have their meaning."""
        return self._call(*self.commands.script(script, args))

    def _call(self, *command: Any) -> Any:
        return require_all(self._send([command]))[0]

    def _send(self, commands: Sequence[Command]) -> list[Any]:
        """The replies, in their order; that of a command that failed is its error."""
        replies = self._connections.send(commands)
        if any(isinstance(reply, redis.exceptions.NoScriptError) for reply in replies):  # a new or emptied server
            self.load_scripts()
            replies = self._connections.send(commands)
        return replies

    def load_scripts(self) -> None:
        """Make the server know all scripts, so that no request waits until one has been sent."""
        require_all(self._connections.send(self.commands.load_scripts()))


def _is_wrong_type(reply: Any) -> bool:
    return isinstance(reply, redis.ResponseError) and "WRONGTYPE" in str(reply)


def _held(entry: list[Any], image: bytes | None) -> Held:
    """A request as the script gives it, with its image.

    Raises MessageError, ValueError or TypeError where it is no request that a client of ours has made.
    """
    key, deadline, admitted, deliveries, degraded, kind, _, path, tried = entry
    times = int(deadline), int(admitted), int(deliveries), int(tried)
    if max(map(abs, times)) > _LARGEST:
        raise MessageError(f"its times are out of range: {times}")
    common = (key.decode(), *times[:3], degraded == b"1")
    if kind == b"path":
        return Held(*common, path=ImagePath.decode(path), tried_ms=times[3])
    if image is None:
        raise MessageError("the server does not have its image")
    return Held(*common, image=image, tried_ms=times[3])


def _escaped(prefix: str) -> str:
    """A prefix in the syntax of the server's patterns."""
    return "".join(f"\\{char}" if char in "\\*?[]{}" else char for char in prefix)
