"""Telegrams as JSON: an object a line, such as `{"type":"item","seq":7,"item":"4711","bytes":60123}`."""

import json
from typing import Any

from orchestrator.telegrams.messages import FIELDS, KINDS, Telegram, TelegramError, checked


class JsonForm:
    """One object a line, UTF-8."""

    start = b""
    end = b"\n"
    most_seq = 999_999_999

    def decode(self, content: bytes) -> Telegram:
        """See `Form.decode`."""
        try:
            value = json.loads(content)  # not by pydantic: `checked` holds for each form of telegrams
        except (ValueError, RecursionError) as err:
            raise TelegramError(f"not JSON ({err})") from err
        if not isinstance(value, dict):
            raise TelegramError("a telegram is a JSON object")
        kind, seq = value.pop("type", None), value.pop("seq", 0)
        if kind not in KINDS:
            raise TelegramError(f"unknown type {str(kind)[:40]!r}; there are {', '.join(KINDS)}")
        if isinstance(seq, bool) or not isinstance(seq, int) or not 0 <= seq <= self.most_seq:
            raise TelegramError(f"seq is a number up to {self.most_seq}, not {str(seq)[:40]!r}")
        return checked(kind, seq, {name: each for name, each in value.items() if each is not None})

    def encode(self, telegram: Telegram) -> bytes:
        """See `Form.encode`."""
        value: dict[str, Any] = {"type": telegram.kind}
        if telegram.kind != "alive":
            value["seq"] = telegram.seq
        value |= {name: telegram.values[name] for name in FIELDS[telegram.kind] if name in telegram.values}
        return json.dumps(value, separators=(",", ":")).encode() + self.end
