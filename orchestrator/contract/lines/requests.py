"""What clients and workers say to a line's server, and what it answers."""

import json
from dataclasses import dataclass
from typing import Literal, Self, cast

from orchestrator.contract.errors import MessageError
from orchestrator.contract.lines.answers import Answer, Verdict, decode_record

AdmitVerdict = Literal[
    "admitted", "in_flight", "answered", "conflict", "busy", "paused", "too_large", "overdue", "unknown", "welcome"
]
Payload = Literal["image", "path", "ask"]


@dataclass(frozen=True, slots=True)
class Push:
    """One request as a client sends it.

    key: of item and pass. digest: hexadecimal, of what is pushed. remaining_ms: until the deadline. kind: what
    `payload` is: the image's bytes, the facts of a path as JSON (`ImagePath`), or nothing, which asks only whether the
    line would take the request now. tried_ms: how long its client has tried before, after refusals.
    """

    key: str
    digest: str
    remaining_ms: int
    size: int
    kind: Payload
    payload: bytes = b""
    tried_ms: int = 0


@dataclass(frozen=True, slots=True)
class ImagePath:
    """An image that a worker reads: it must lie below a root of the line, and be the file that the client saw."""

    path: str  # modeling.names.path_to_text
    size: int
    mtime_ns: int

    def encode(self) -> bytes:
        return json.dumps([self.path, self.size, self.mtime_ns]).encode()

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Raises MessageError where it is none of ours."""
        try:
            path, size, mtime_ns = json.loads(data)
            return cls(str(path), int(size), int(mtime_ns))
        except (ValueError, TypeError, OverflowError, RecursionError) as err:
            raise MessageError(f"these are no facts of a path: {data[:80]!r}") from err


@dataclass(frozen=True, slots=True)
class Admission:
    """What became of a push. record: of an answer that exists. retry_ms: when to come again. limit: bytes."""

    verdict: AdmitVerdict
    record: bytes = b""
    retry_ms: int = 0
    limit: int = 0

    @classmethod
    def decode(cls, verdict: bytes, detail: bytes) -> Self:
        """As the script says it."""
        name = cast(AdmitVerdict, verdict.decode())
        if name == "busy":
            return cls(name, retry_ms=int(detail))
        if name == "too_large":
            return cls(name, limit=int(detail))
        return cls(name, record=detail)

    def answer(self) -> Answer | None:
        return decode_record(self.record) if self.record else None


@dataclass(frozen=True, slots=True)
class Held:
    """A request that a worker holds. Times in ms by the server's clock. deliveries: workers that took it, this one too.

    degraded: the smaller model must answer it. path: where the client gave that instead of the bytes. tried_ms: as in
    `Push`.
    """

    key: str
    deadline_ms: int
    admitted_ms: int
    deliveries: int
    degraded: bool
    image: bytes = b""
    path: ImagePath | None = None
    tried_ms: int = 0


@dataclass(frozen=True, slots=True)
class Taken:
    """Requests that a worker has leased. now_ms: when, by the server's clock. waited_s: from the call until then.

    unreadable: the keys, as they are on the server, of requests that no worker can read, each with the reason.
    error: why nothing could be taken: the line's keys are not as the scripts write them.
    """

    now_ms: int
    held: list[Held]
    waited_s: float = 0.0
    unreadable: tuple[tuple[bytes, str], ...] = ()
    error: Exception | None = None

    @property
    def num(self) -> int:
        """How many were leased."""
        return len(self.held) + len(self.unreadable)


@dataclass(frozen=True, slots=True)
class GivenAnswer:
    """A worker's answer: `verdict` if it is in time, else `late`, and `rest` in any case (`answers.encode_facts`)."""

    key: str | bytes
    verdict: Verdict
    late: Verdict
    rest: str


@dataclass(frozen=True, slots=True)
class Decided:
    """A client's own decision about a request. rest: as in `GivenAnswer`."""

    key: str
    verdict: Verdict
    digest: str
    rest: str = ""
