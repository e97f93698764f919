"""What a request says of a push, checked: in the query, in headers, in the fields of a form or a JSON object."""

import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote_to_bytes

from orchestrator.gateway.problems import ProblemError, invalid
from orchestrator.lines.request import PushOptions, check_deadline, check_item, check_pass

Wait = Literal["", "answer", "deadline"]
LONGEST_AGE_MS = 3_600_000
HEADERS = {
    "item": b"pigeonhole-item",
    "pass": b"pigeonhole-pass",
    "deadline_ms": b"pigeonhole-deadline-ms",
    "age_ms": b"pigeonhole-age-ms",
}
_WAITS: dict[str, Wait] = {"": "answer", "1": "answer", "true": "answer", "0": "", "false": "", "deadline": "deadline"}
_FIELDS = (*HEADERS, "wait")
_LARGEST = 1e12
_NUMBER = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,6})?")


@dataclass(frozen=True, slots=True)
class PushFields:
    """item: a name of its own where the client gives none. deadline_s: None: the line's. age_s: since the trigger.

    wait: `answer`: for the answer, but a refusal comes at once; `deadline`: a refusal is tried again until then.
    """

    item: str
    pass_: int = 1
    deadline_s: float | None = None
    age_s: float = 0.0
    wait: Wait = ""

    def options(self, began: float, on_taken: Callable[[], None] | None, *, by_path: bool) -> PushOptions:
        """How the image is pushed. began: when the request came, by perf_counter: the deadline counts from then."""
        age_s = self.age_s + time.perf_counter() - began
        return PushOptions(self.deadline_s, time.time() - age_s, by_path, self.wait == "deadline", on_taken)


def read_fields(query: bytes, headers: Mapping[bytes, bytes]) -> dict[str, str]:
    """The fields that a request has in its query or its headers, as text.

    Raises ProblemError for a query that this path does not have: a mistyped deadline must not be ignored; and for what
    is no UTF-8: two items must not become one.
    """
    fields: dict[str, str] = {}
    for name, header in HEADERS.items():
        if header in headers:
            fields[name] = _decoded(header, headers[header])
    if query:
        for name, value in _parsed(query):
            if name not in _FIELDS:
                raise ProblemError(
                    400, "invalid", f"there is no parameter {name[:40]!r}; there are {', '.join(_FIELDS)}"
                )
            fields[name] = value
    return fields


def check_fields(given: Mapping[str, Any]) -> PushFields:
    """The fields as they count. Raises ProblemError, which names the one that cannot be used."""
    try:
        item = given.get("item")
        return PushFields(
            secrets.token_hex(12) if item is None else check_item(item),
            check_pass(_whole(given["pass"])) if "pass" in given else 1,
            check_deadline(_number("deadline_ms", given["deadline_ms"]) / 1000) if "deadline_ms" in given else None,
            _age_s(given["age_ms"]) if "age_ms" in given else 0.0,
            _wait(given["wait"]) if "wait" in given else "",
        )
    except (ValueError, TypeError) as err:
        raise invalid(str(err)) from err


def with_item(fields: PushFields, item: str) -> PushFields:
    """The fields of another item. Raises ProblemError."""
    try:
        return replace(fields, item=check_item(item))
    except (ValueError, TypeError) as err:
        raise invalid(str(err)) from err


def _decoded(header: bytes, value: bytes) -> str:
    try:
        return unquote_to_bytes(value.decode("ascii")).decode()
    except UnicodeDecodeError as err:
        raise invalid(f"the header {header.decode()} is text in UTF-8, percent-encoded") from err


def _parsed(query: bytes) -> list[tuple[str, str]]:
    if query == b"wait":
        return [("wait", "")]
    try:
        return parse_qsl(query.decode("ascii"), keep_blank_values=True, max_num_fields=20, errors="strict")
    except ValueError as err:
        raise invalid("the query cannot be read") from err


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10 else value


def _number(name: str, value: Any) -> float:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST:
        return float(value)
    raise ValueError(f"{name} is a number of milliseconds, not {value!r:.60}")


def _age_s(value: Any) -> float:
    age_ms = _number("age_ms", value)
    if not 0 <= age_ms <= LONGEST_AGE_MS:
        raise ValueError(f"age_ms is 0 to {LONGEST_AGE_MS}, not {value!r:.60}")
    return age_ms / 1000


def _wait(value: Any) -> Wait:
    if isinstance(value, bool):
        return "answer" if value else ""
    if not isinstance(value, str) or value not in _WAITS:
        raise ValueError(f"wait is true, false or deadline, not {value!r:.60}")
    return _WAITS[value]
