"""What a controller and Pigeonhole say to each other, in whichever form it is written.

    controller                              Pigeonhole
    hello       controller                  ack, nak    seq (of the other's telegram), error
    item        item, pass, bytes or path,  answer      item, pass, bin, reason, label, score, decision, model, again
                deadline_ms, age_ms
    discharged  item, pass, bin
    ack         seq
    alive                                   alive

`bytes` is the number of bytes of an image that follow behind the telegram.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args

Kind = Literal["hello", "item", "discharged", "answer", "ack", "nak", "alive"]
KINDS: tuple[Kind, ...] = get_args(Kind)
LARGEST_NUMBER = 10**12  # of what a telegram may say; beyond it a float may not hold it
NUMBERS = ("pass", "bytes", "deadline_ms", "age_ms", "again")
TEXTS = ("controller", "item", "path", "bin", "reason", "label", "decision", "model", "error")
FIELDS: Mapping[Kind, tuple[str, ...]] = {
    "hello": ("controller",),
    "item": ("item", "pass", "bytes", "path", "deadline_ms", "age_ms"),
    "discharged": ("item", "pass", "bin"),
    "answer": ("item", "pass", "bin", "reason", "label", "score", "decision", "model", "error", "again"),
    "ack": (),
    "nak": ("error",),
    "alive": (),
}
REQUIRED: Mapping[Kind, tuple[str, ...]] = {"hello": ("controller",), "item": ("item",), "discharged": ("item", "bin")}


class TelegramError(Exception):
    """A telegram that cannot be read or written; one line that says why."""


@dataclass(frozen=True, slots=True)
class Telegram:
    """One telegram. seq: its number; of an ack or a nak that of the telegram it speaks of."""

    kind: Kind
    seq: int = 0
    values: Mapping[str, Any] = field(default_factory=dict)


class Form(Protocol):
    """How telegrams are written: the bytes around one, and the largest sequence number, after which comes 1."""

    start: bytes
    end: bytes
    most_seq: int

    def decode(self, content: bytes) -> Telegram:
        """The telegram between start and end. Raises TelegramError."""

    def encode(self, telegram: Telegram) -> bytes:
        """A whole telegram. Raises TelegramError where a value does not fit."""


def checked(kind: Kind, seq: int, values: Mapping[str, Any]) -> Telegram:
    """A telegram of a controller. Raises TelegramError for fields that are missing or unknown, or of another type."""
    for name, value in values.items():
        if name not in FIELDS[kind]:
            raise TelegramError(f"{kind} has no field {name!r}; it has {', '.join(FIELDS[kind]) or 'none'}")
        is_number = isinstance(value, int) and not isinstance(value, bool)
        if name in NUMBERS and not (is_number and 0 <= value <= LARGEST_NUMBER):
            raise TelegramError(f"{name} is a whole number up to {LARGEST_NUMBER}, not {str(value)[:40]!r}")
        if name in TEXTS and (not isinstance(value, str) or not value):
            raise TelegramError(f"{name} is text, not {str(value)[:40]!r}")
    for name in REQUIRED.get(kind, ()):
        if name not in values:
            raise TelegramError(f"{kind} lacks {name}")
    if kind == "item" and ("bytes" in values) == ("path" in values):
        raise TelegramError("an item has either bytes or a path")
    return Telegram(kind, seq, values)
