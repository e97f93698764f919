"""The answer to a pushed image, and the reasons why it is not a plain accept."""

import json
import re
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field

from modeling.durable import STRICT, Number, decode_json, validated
from modeling.metrics.decisions import Decision
from orchestrator.contract.errors import MessageError

Reason = Literal[
    "next_bin", "degraded", "low_confidence",
    "late", "no_worker", "unreadable", "no_bin", "bin_full", "crashed", "busy", "paused", "no_server",
    "conflict",
]  # fmt: skip
REASONS: tuple[Reason, ...] = get_args(Reason)
Cause = Literal["queue", "decode", "device", "server", "paused"]
CAUSES: tuple[Cause, ...] = get_args(Cause)
STAGES = ("queue", "decode", "device")


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one pushed image.

    bin: empty only where a client was given no fallback bin and never saw the line. reason: None: a plain accept.
    cause: of a miss: where the time was lost. label, score, scores, decision: the prediction, also one that came too
    late to count. model: `name@version`. engine: named only where the batch's rows are not those of jobs.
    map_version: of the bin map. stage_ms: milliseconds by stage. ms: from the call to the answer, by the client's
    clock. admitted_ms, answered_ms: by the server's clock; 0: the server never had it.
    discharged: the bin where the item really went, as its controller reported. delivered: the bin that a client decided
    alone, or was told when it pushed an old item again, where it differs from `bin`.
    """

    item: str
    pass_: int
    bin: str
    reason: str | None = None
    cause: str | None = None
    label: str | None = None
    score: Number | None = None
    decision: Decision | None = None
    scores: tuple[tuple[str, Number], ...] = ()
    model: str | None = None
    engine: str | None = None
    map_version: int = 0
    error: str | None = None
    stage_ms: dict[str, Number] = field(default_factory=dict)
    ms: Number = 0.0
    admitted_ms: Annotated[int, Field(ge=0)] = 0
    answered_ms: Annotated[int, Field(ge=0)] = 0
    discharged: str | None = None
    delivered: str | None = None

    __pydantic_config__ = STRICT

    @property
    def predicted(self) -> bool:
        """Whether the network's prediction decided, in time."""
        return self.reason in _PREDICTED

    def to_json(self) -> dict[str, Any]:
        """The keys of `push --json`, in their order."""
        return {
            "item": self.item,
            "pass": self.pass_,
            "bin": self.bin,
            "reason": self.reason,
            "label": self.label,
            "score": self.score,
            "decision": self.decision,
            "model": self.model,
            "ms": self.ms,
        }

    def as_conflict(self) -> Self:
        """This answer, for a push of the same item and pass with other bytes."""
        return replace(self, reason="conflict")


_RECORD = "the record of an answer"
_SURROGATE = re.compile("[\ud800-\udfff]")
_PREDICTED = {None, "next_bin", "degraded", "low_confidence", "no_bin", "bin_full"}


def request_key(item: str, pass_: int) -> str:
    """Under what the server keeps a request and its answer."""
    return f"{pass_}/{item}"


def parse_key(key: str) -> tuple[str, int]:
    """The item and the pass of a key."""
    number, _, item = key.partition("/")
    return item, int(number)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A bin with its reason: what an answer may be, in time or too late."""

    bin: str
    reason: Reason | None = None
    cause: Cause | None = None

    def encode(self) -> str:
        """The part of a record that differs between an answer in time and one that is late; no braces."""
        return json.dumps({"bin": self.bin, "reason": self.reason, "cause": self.cause})[1:-1]


def encode_facts(**facts: Any) -> str:
    """The rest of a record: label, score, scores, decision, model, map_version, error, stage_ms; no braces.

    Empty where nothing is known. Scripts join it with a verdict and the times to one JSON object. Always valid text:
    a lone surrogate, as bytes of a file's name may be, is written as an escape that readers see.
    """
    known = {name: value for name, value in facts.items() if value not in (None, {}, ())}
    text = json.dumps(known, ensure_ascii=False)[1:-1]
    return text if text.isascii() else _SURROGATE.sub(lambda match: f"\\\\u{ord(match[0]):04x}", text)


def decode_record(record: bytes | str, **changed: Any) -> Answer:
    """An answer as the scripts stored it; `changed` are fields that a client sets.

    Raises MessageError where it is none of ours.
    """
    value = decode_json(record, _RECORD, error=MessageError)
    if not isinstance(value, dict) or not isinstance(value.get("key"), str):
        raise MessageError(f"the record of an answer has no key: {record[:80]!r}")
    try:
        item, pass_ = parse_key(value.pop("key"))
    except ValueError as err:
        raise MessageError(f"{_RECORD}: its key names no pass: {record[:80]!r}") from err
    value.pop("digest", None)
    facts = {**value, "item": item, "pass_": pass_, **changed}
    if _is_plain(facts):
        return Answer(**facts)
    return validated(Answer, facts, _RECORD, error=MessageError, whole=False)


_TEXT: set[type] = {str}
_MAYBE_TEXT: set[type] = {str, type(None)}
_MAYBE_NUMBER: set[type] = {float, int, type(None)}
_PLAIN: dict[str, set[type]] = {
    "item": _TEXT, "pass_": {int}, "bin": _TEXT, "reason": _MAYBE_TEXT, "cause": _MAYBE_TEXT, "label": _MAYBE_TEXT,
    "score": _MAYBE_NUMBER, "model": _MAYBE_TEXT, "engine": _MAYBE_TEXT, "map_version": {int}, "error": _MAYBE_TEXT,
    "ms": {float, int}, "admitted_ms": {int}, "answered_ms": {int}, "discharged": _MAYBE_TEXT, "delivered": _MAYBE_TEXT,
}  # fmt: skip
_LARGEST = 1 << 53
_DECISIONS = {None, *get_args(Decision)}


def _is_plain(facts: dict[str, Any]) -> bool:
    """Whether these are the fields of an `Answer` as our scripts write them; `scores` become tuples.

    The validation, which judges all else, takes several times as long.
    """
    for name, value in facts.items():
        if name == "scores":
            if not _are_scores(value):
                return False
        elif name == "stage_ms":
            if type(value) is not dict or not all(map(_is_number, value.values())):
                return False
        elif name == "decision":
            if type(value) not in _MAYBE_TEXT or value not in _DECISIONS:
                return False
        elif type(value) not in _PLAIN.get(name, ()) or (type(value) in (float, int) and not _is_number(value)):
            return False
    if facts.get("admitted_ms", 0) < 0 or facts.get("answered_ms", 0) < 0 or "bin" not in facts:
        return False
    if "scores" in facts:
        facts["scores"] = tuple([(label, score) for label, score in facts["scores"]])
    return True


def _is_number(value: Any) -> bool:
    """Also of size: beyond it, whole numbers are no numbers of JavaScript, and of floats there are infinite ones."""
    return type(value) in (float, int) and -_LARGEST < value < _LARGEST


def _are_scores(scores: Any) -> bool:
    return type(scores) is list and all(
        type(pair) is list and len(pair) == 2 and type(pair[0]) is str and _is_number(pair[1]) for pair in scores
    )
