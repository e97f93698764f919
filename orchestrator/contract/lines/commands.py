"""What clients say to a line's server, as commands; and what its replies mean."""

from collections.abc import Iterable, Sequence
from typing import Any

import redis

from orchestrator.contract.ledger.live_workers import PREFIX
from orchestrator.contract.lines.connections import Command
from orchestrator.contract.lines.requests import Admission, Decided, Push
from orchestrator.contract.lines.scripts import scripts
from orchestrator.contract.server import anew

OUT_OF_MEMORY_RETRY_MS = 100
ORPHAN_MS = 60_000  # that an image stays after its deadline at most


def line_prefix(name: str) -> str:
    """The prefix of all keys of a line."""
    return f"{PREFIX}:line:{name}"


class LineCommands:
    """The commands of one line."""

    def __init__(self, name: str) -> None:
        self.prefix = line_prefix(name)

    def key(self, name: str) -> str:
        return f"{self.prefix}:{name}"

    def image_key(self, key: str, digest: str) -> str:
        return self.key(f"i:{digest}:{key}")

    def script(self, name: str, args: Iterable[Any]) -> Command:
        """By its digest: scripts are many kilobytes, and sent only where the server does not know them."""
        return ("EVALSHA", scripts()[name].sha, 1, self.prefix, *args)

    def taken_images(self, worker: str) -> Command:
        """The images of what the script `take` took just before, each after its name; no script handles them.

        Its reply is an error where the server's user may not read all keys.
        """
        return "SORT", self.key(f"taken:{worker}"), "BY", "nosort", "GET", "#", "GET", self.key("i:*")

    def load_scripts(self) -> list[Command]:
        return [("SCRIPT", "LOAD", script.text) for script in scripts().values()]

    def epoch(self) -> Command:
        """Its reply changes when the server was emptied; None where it does not know the line now."""
        return ("HGET", self.key("line"), "epoch")

    def subscribe(self, client_id: str) -> Command:
        """Answers to this client's requests are published there: see `read_published`."""
        return ("SUBSCRIBE", self.key(f"replies:{client_id}"))

    def admit(self, pushes: Sequence[Push], client_id: str) -> list[Command]:
        """Offer requests in one round trip; `admissions` reads the replies."""
        args: list[Any] = [client_id]
        for push in pushes:
            path = push.payload if push.kind == "path" else b""
            args += (push.key, push.digest, push.remaining_ms, push.size, push.kind, path, push.tried_ms)
        images = [self._store_image(push) for push in pushes if push.kind == "image"]
        return [*images, self.script("admit", args)]

    def _store_image(self, push: Push) -> Command:
        """It expires where neither worker nor client lives to end its request.

        It is no argument of the script: Lua would copy it several times.
        """
        expires_ms = max(0, push.remaining_ms) + ORPHAN_MS
        return "SET", self.image_key(push.key, push.digest), push.payload, "PX", expires_ms, "NX"

    def settle(self, decided: Sequence[Decided], client_id: str) -> Command:
        """Ask for the records of requests whose deadline is over; what the server never had gets the client's decision.

        A request that waits for a later deadline, since another client pushed it first, goes on waiting; the client
        gets its own decision.

        The reply is empty where the server does not know the line: it was emptied.
        """
        args: list[Any] = [client_id]
        for each in decided:
            args += (each.key, each.verdict.encode(), each.verdict.reason or "", each.digest, each.rest)
        return self.script("settle", args)

    def deliver(self, decided: Sequence[Decided]) -> Command:
        """Report decisions that a client made alone; the reply: how many differ from the record.

        None where the server does not know the line: nothing was kept.
        """
        args: list[Any] = []
        for each in decided:
            verdict = each.verdict
            args += (each.key, verdict.bin, verdict.encode(), verdict.reason or "", each.digest, each.rest)
        return self.script("deliver", args)

    def discharge(self, key: str, bin_: str) -> Command:
        """Report where an item really went; the reply: its record, if the server still has it."""
        return self.script("discharge", [key, bin_])

    def sweep(self, most_ms: int, since_s: float | None = None) -> Command:
        """Answer what is late; the reply: milliseconds until the next deadline, at most `most_ms`.

        since_s: as `LineStore.sweep` has it.
        """
        return self.script("sweep", [most_ms, *([] if since_s is None else [round(since_s * 1000) or ""])])


def admissions(pushes: Sequence[Push], replies: Sequence[Any]) -> list[Admission]:
    """What became of the requests of `LineCommands.admit`.

    A server without memory refuses as a line does that is busy. Raises any other error among the replies.
    """
    *stored, verdicts = replies
    images = [push for push in pushes if push.kind == "image"]
    failed = {push.key: reply for push, reply in zip(images, stored, strict=True) if isinstance(reply, Exception)}
    if isinstance(verdicts, Exception):
        return [_refused(verdicts)] * len(pushes)
    return [
        _refused(failed[push.key]) if push.key in failed else Admission.decode(verdict, detail)
        for push, (verdict, detail) in zip(pushes, verdicts, strict=True)
    ]


def _refused(failed: Exception) -> Admission:
    """By a server without memory; raises any other error."""
    if isinstance(failed, redis.exceptions.OutOfMemoryError):
        return Admission("busy", retry_ms=OUT_OF_MEMORY_RETRY_MS)
    raise anew(failed)


def read_published(message: bytes) -> tuple[str, bytes]:
    """The key and the record of an answer as scripts publish it: the length of the key before both."""
    length, _, rest = message.partition(b":")
    end = int(length)
    return rest[:end].decode(), rest[end:]


def require_all(replies: list[Any]) -> list[Any]:
    """Raises the first error among replies."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise anew(reply)
    return replies
