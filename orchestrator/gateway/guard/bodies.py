"""Bodies of requests: how large one may be, and how many bytes all may have at once."""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from orchestrator.gateway.problems import ProblemError, retry_later

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

HELD = "pigeonhole.held"  # key of a scope: what this request holds of the budget
MOST_JSON_BYTES = 1 << 20  # of what is not an image
MOST_DEPTH = 32


class BodyBudget:
    """The bytes of all bodies that are in memory."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.num_bytes = 0

    def open(self) -> "HeldBody":
        return HeldBody(self)


class HeldBody:
    """What one request holds; given back when it has ended."""

    __slots__ = ("_budget", "num_bytes")

    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self.num_bytes = 0

    def add(self, num: int) -> None:
        """Raises ProblemError where all bodies together are too large now."""
        if self._budget.num_bytes + num > self._budget.most_bytes:
            raise retry_later(503, "overloaded", "the bodies of all requests are too large now", 1.0)
        self._budget.num_bytes += num
        self.num_bytes += num

    def close(self) -> None:
        self._budget.num_bytes -= self.num_bytes
        self.num_bytes = 0


def limited(scope: MutableMapping[str, Any], receive: Receive, most_bytes: int = MOST_JSON_BYTES) -> Receive:
    """A `receive` for routes that do not call `read_body`.

    Raises ProblemError at once where the request says that its body is larger.
    """
    declared = _declared(scope)
    if declared is not None and declared > most_bytes:
        raise too_large(most_bytes)
    held: HeldBody = scope[HELD]

    async def receive_some() -> MutableMapping[str, Any]:
        message = await receive()
        held.add(len(message.get("body", b"")))
        if held.num_bytes > most_bytes:
            raise too_large(most_bytes)
        return message

    return receive_some


async def read_body(scope: MutableMapping[str, Any], receive: Receive, most_bytes: int) -> bytes:
    """The whole body.

    Raises ProblemError where it is too large, compressed, or cut off.
    """
    declared = _declared(scope)
    if declared is not None and declared > most_bytes:
        raise too_large(most_bytes)
    held: HeldBody = scope[HELD]
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ProblemError(400, "cut_off", "the connection ended before the body")
        part = message.get("body", b"")
        if part:
            held.add(len(part))
            if held.num_bytes > most_bytes:
                raise too_large(most_bytes)
            parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def too_large(most_bytes: int) -> ProblemError:
    """The connection is closed, for the rest of the body would still come."""
    return ProblemError(
        413, "too_large", f"the body may have {most_bytes} bytes at most", headers={"connection": "close"}
    )


def refuse_encoded(scope: MutableMapping[str, Any]) -> None:
    """Raises ProblemError where a body is compressed: images are, and a small body could become a huge one."""
    for name, value in scope["headers"]:
        if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            raise ProblemError(415, "encoded", "a compressed body is not taken: send it without Content-Encoding")


def parse_json(body: bytes) -> Any:
    """The value of a JSON text. Raises ProblemError for what is none, nested too deeply, or no number of JSON."""
    try:
        value = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as err:
        text = "it is nested too deeply" if isinstance(err, RecursionError) else str(err)
        raise ProblemError(400, "invalid", f"the body is not JSON: {text[:200]}") from err
    _check_depth(value)
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number of JSON")


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MOST_DEPTH):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise ProblemError(400, "invalid", f"the body is nested more than {MOST_DEPTH} levels deep")


def _declared(scope: MutableMapping[str, Any]) -> int | None:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else None
    return None
