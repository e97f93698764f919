"""A line on its server: requests that wait, workers that hold some of them, and the answers.

Every change is one Lua script (`lua/`), so it is atomic. Pushes and answers are many and small, so several are sent
in one round trip.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self, cast

import redis

from orchestrator.contract.ledger.live_workers import PREFIX
from orchestrator.contract.lines.answers import Answer, decode_record
from orchestrator.contract.lines.connections import Command, Connections
from orchestrator.contract.lines.requests import (
    Admission,
    Decided,
    GivenAnswer,
    Held,
    ImagePath,
    Push,
    Taken,
)
from orchestrator.contract.lines.scripts import scripts
from orchestrator.contract.lines.settings import Line

OUT_OF_MEMORY_RETRY_MS = 100
ORPHAN_MS = 60_000  # that an image stays after its deadline at most
CAPACITY_TTL_MS = 1_500  # a worker that has not said for so long what it can do counts as dead


def line_prefix(name: str) -> str:
    """The prefix of all keys of a line."""
    return f"{PREFIX}:line:{name}"


class LineStore:
    """One line on its server; safe to share between threads. The client must not decode replies: images are bytes."""

    def __init__(self, client: redis.Redis, name: str) -> None:
        self.client = client
        self.name = name
        self.prefix = line_prefix(name)
        self._connections = Connections(client)

    def key(self, name: str) -> str:
        return f"{self.prefix}:{name}"

    def _image_key(self, key: str, digest: str) -> str:
        return self.key(f"i:{digest}:{key}")

    # Clients

    def admit(self, pushes: Sequence[Push], client_id: str) -> list[Admission]:
        """Offer requests in one round trip; answers come on the client's replies.

        A server without memory refuses as a line does that is busy.
        """
        args: list[Any] = [client_id]
        for push in pushes:
            path = push.payload if push.kind == "path" else b""
            args += (push.key, push.digest, push.remaining_ms, push.size, push.kind, path, push.tried_ms)
        images = [push for push in pushes if push.kind == "image"]
        *stored, verdicts = self._send([*map(self._store_image, images), self._script("admit", args)])
        failed = {push.key: reply for push, reply in zip(images, stored, strict=True) if isinstance(reply, Exception)}
        if isinstance(verdicts, Exception):
            return [_refused(verdicts)] * len(pushes)
        return [
            _refused(failed[push.key]) if push.key in failed else Admission.decode(verdict, detail)
            for push, (verdict, detail) in zip(pushes, verdicts, strict=True)
        ]

    def _store_image(self, push: Push) -> Command:
        """It expires where neither worker nor client lives to end its request.

        It is no argument of the script: Lua would copy it several times.
        """
        expires_ms = max(0, push.remaining_ms) + ORPHAN_MS
        return "SET", self._image_key(push.key, push.digest), push.payload, "PX", expires_ms, "NX"

    def replies(self, client_id: str, after: str, block_ms: int | None) -> tuple[str, list[tuple[str, bytes]]]:
        """The answers that came after an id, as key and record; and the id to ask with next.

        Waits up to `block_ms`; None: not at all.
        """
        stream = self.key(f"replies:{client_id}")
        block = () if block_ms is None else ("BLOCK", block_ms)
        found = self._call("XREAD", "COUNT", 512, *block, "STREAMS", stream, after)
        if not found:
            return after, []
        entries = found[stream.encode()] if isinstance(found, dict) else found[0][1]  # RESP3, RESP2
        return entries[-1][0].decode(), [(key.decode(), record) for _, (_, key, _, record) in entries]

    def forget_replies(self, client_id: str, before: str) -> None:
        """Remove the answers before an id: the client has read them."""
        self.client.xtrim(self.key(f"replies:{client_id}"), minid=before)

    def settle(self, decided: Sequence[Decided], client_id: str) -> list[bytes]:
        """The records of requests whose deadline is over; what the server never had gets the client's decision.

        A request that waits for a later deadline, since another client pushed it first, goes on waiting; the client
        gets its own decision.

        Empty where the server does not know the line: it was emptied.
        """
        args = [
            value
            for each in decided
            for value in (each.key, each.verdict.encode(), each.verdict.reason or "", each.digest, each.rest)
        ]
        return cast(list[bytes], self.run("settle", [client_id, *args]))

    def deliver(self, decided: Sequence[Decided]) -> int | None:
        """Report decisions that a client made alone; returns how many differ from the record.

        None where the server does not know the line: nothing was kept.
        """
        args = [
            value
            for each in decided
            for value in (
                each.key, each.verdict.bin, each.verdict.encode(), each.verdict.reason or "", each.digest, each.rest,
            )
        ]  # fmt: skip
        return cast("int | None", self.run("deliver", args))

    def discharge(self, key: str, bin_: str) -> Answer | None:
        """Report where an item really went; returns its answer, if the server still has it."""
        record = cast(bytes, self.run("discharge", [key, bin_]))
        return decode_record(record) if record else None

    def discharge_all(self, reports: Sequence[tuple[str, str]]) -> None:
        """The same for several keys and bins, in one round trip."""
        _require_all(self._send([self._script("discharge", [key, bin_]) for key, bin_ in reports]))

    def sweep(self, most_ms: int) -> int:
        """Answer what is late; returns milliseconds until the next deadline, at most `most_ms`."""
        return int(self.run("sweep", [most_ms]))

    def record(self, key: str) -> bytes | None:
        """The record of an answer, as long as it is on the server."""
        return cast("bytes | None", self.client.hget(self.key("answers"), key))

    def epoch(self) -> str | None:
        """Changes when the server was emptied; None where it does not know the line now."""
        value = cast("bytes | None", self._call("HGET", self.key("line"), "epoch"))
        return value.decode() if value else None

    # Workers

    def take(self, worker: str, most: int, lease_ms: int, most_bytes: int) -> Taken:
        """Lease the requests that are due first."""
        [taken] = self.take_for_each(worker, [(self, most, lease_ms, most_bytes)])
        return taken

    def take_for_each(
        self, worker: str, wanted: Sequence[tuple[Self, int, int, int]], wait_s: float = 0.0
    ) -> list[Taken]:
        """The same for several lines of this store's server at once: store, most, lease_ms, most_bytes.

        Waits before that until something is pushed, and at most `wait_s`.
        """
        wait: list[Command] = []
        if wait_s:
            wait = [("TIME",), ("BLPOP", *(store.key("wake") for store, *_ in wanted), wait_s)]
        takes = [store._script("take", [worker, *limits]) for store, *limits in wanted]
        replies = _require_all(self._send([*wait, *takes]))
        asked, replies = replies[: len(wait)], replies[len(wait) :]
        keys = [
            store._image_key(key.decode(), digest.decode())
            for (store, *_), (_, *entries) in zip(wanted, replies, strict=True)
            for key, *_, kind, digest, _, _ in entries
            if kind == b"image"
        ]
        images = iter(cast("list[bytes | None]", self._call("MGET", *keys)) if keys else [])
        return [
            Taken(
                int(now),
                [held for entry in entries if (held := _held(entry, images)) is not None],
                waited_s=_seconds_until(int(now), *asked[0]) if asked else 0.0,
            )
            for now, *entries in replies
        ]

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
        return self._call(*self._script(script, args))

    def _script(self, script: str, args: Iterable[Any]) -> Command:
        """By its digest: scripts are many kilobytes, and sent only where the server does not know them."""
        return ("EVALSHA", scripts()[script].sha, 1, self.prefix, *args)

    def _call(self, *command: Any) -> Any:
        return _require_all(self._send([command]))[0]

    def _send(self, commands: Sequence[Command]) -> list[Any]:
        """The replies, in their order; that of a command that failed is its error."""
        replies = self._connections.send(commands)
        if any(isinstance(reply, redis.exceptions.NoScriptError) for reply in replies):  # a new or emptied server
            self.load_scripts()
            replies = self._connections.send(commands)
        return replies

    def load_scripts(self) -> None:
        """Make the server know all scripts, so that no request waits until one has been sent."""
        _require_all(self._connections.send([("SCRIPT", "LOAD", script.text) for script in scripts().values()]))


def _require_all(replies: list[Any]) -> list[Any]:
    """Raises the first error among replies."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


def _refused(failed: Exception) -> Admission:
    """By a server without memory; raises any other error."""
    if isinstance(failed, redis.exceptions.OutOfMemoryError):
        return Admission("busy", retry_ms=OUT_OF_MEMORY_RETRY_MS)
    raise failed


def _seconds_until(now_ms: int, asked_s: bytes, asked_us: bytes) -> float:
    """From a reply to TIME."""
    return max(0.0, now_ms / 1e3 - int(asked_s) - int(asked_us) / 1e6)


def _held(entry: list[Any], images: Iterator[bytes | None]) -> Held | None:
    """A request as the script gives it, with the next image; None where the server was emptied meanwhile."""
    key, deadline, admitted, deliveries, degraded, kind, _, path, tried = entry
    common = (key.decode(), int(deadline), int(admitted), int(deliveries), degraded == b"1")
    if kind == b"path":
        return Held(*common, path=ImagePath.decode(path), tried_ms=int(tried))
    return None if (image := next(images)) is None else Held(*common, image=image, tried_ms=int(tried))


def _escaped(prefix: str) -> str:
    """A prefix in the syntax of the server's patterns."""
    return "".join(f"\\{char}" if char in "\\*?[]{}" else char for char in prefix)
