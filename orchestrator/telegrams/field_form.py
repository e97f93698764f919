"""Telegrams of fixed fields of printable ASCII, as a TOML file describes them.

Each begins with its code and its sequence number. Numbers stand at the right of their field behind zeros, text at the
left before spaces. Values may have codes of the controller's.
"""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from modeling.durable import STRICT, validated
from orchestrator.contract.access import explain_os_error
from orchestrator.contract.errors import NotFoundError, UsageError
from orchestrator.contract.settings_file import content_of
from orchestrator.telegrams.messages import FIELDS, KINDS, NUMBERS, Kind, Telegram, TelegramError, checked

_FRAMES = {"newline": (b"", b"\n"), "stx-etx": (b"\x02", b"\x03")}
_NEEDED: Mapping[Kind, tuple[str, ...]] = {
    "item": ("item",), "answer": ("item", "bin"), "ack": (), "nak": (), "alive": (),
}  # fmt: skip
_NEVER_CUT = ("item", "bin")  # another item's or another bin's name could be left
_Width = Annotated[int, Field(ge=1, le=1000)]


@dataclass(frozen=True, slots=True)
class Layout:
    """The code of a kind of telegram, and its fields with their widths, in order."""

    code: str
    fields: tuple[tuple[str, _Width], ...] = ()

    __pydantic_config__ = STRICT

    @property
    def width(self) -> int:
        return sum(width for _, width in self.fields)


@dataclass(frozen=True, slots=True)
class FieldSettings:
    """The file. codes: by field, our value and what the controller calls it."""

    seq: Annotated[int, Field(ge=1, le=9)]
    telegrams: dict[Kind, Layout]
    framing: Literal["newline", "stx-etx"] = "newline"
    codes: dict[str, dict[str, str]] = field(default_factory=dict)

    __pydantic_config__ = STRICT


class FieldForm:
    """Fixed fields, by a file."""

    def __init__(self, settings: FieldSettings, what: str = "the fields") -> None:
        """Raises UsageError for a description that cannot work."""
        _check(settings, what)
        self.start, self.end = _FRAMES[settings.framing]
        self.most_seq = 10**settings.seq - 1
        self._seq_width = settings.seq
        self._layouts = settings.telegrams
        self._kinds: dict[str, Kind] = {layout.code: kind for kind, layout in settings.telegrams.items()}
        self._code_width = len(next(iter(self._kinds)))
        self._codes = settings.codes
        self._values = {name: {code: ours for ours, code in codes.items()} for name, codes in settings.codes.items()}

    @classmethod
    def read(cls, file: Path) -> Self:
        """Raises NotFoundError where there is no such file, UsageError where it cannot be used."""
        what = f"{str(file)!r}"
        try:
            values = tomllib.loads(content_of(file, "the file of fields").decode("utf-8-sig"))
        except (FileNotFoundError, NotADirectoryError) as err:
            raise NotFoundError(f"there is no file {what}") from err
        except OSError as err:
            raise UsageError(f"the file of fields cannot be read: {explain_os_error(err) or err}") from err
        except (ValueError, RecursionError) as err:
            raise UsageError(f"{what} is not TOML: {err}") from err
        return cls(validated(FieldSettings, values, what, error=UsageError, whole=False), what)

    def check_bins(self, bins: Iterable[str]) -> None:
        """Raises UsageError for a bin that an answer cannot name."""
        for bin_ in bins:
            try:
                self.encode(Telegram("answer", 1, {"item": "x", "pass": 1, "bin": bin_}))
            except TelegramError as err:
                raise UsageError(f"{err}; give it a code, or widen the field") from err

    def decode(self, content: bytes) -> Telegram:
        """See `Form.decode`."""
        if not content.isascii() or not (text := content.decode("ascii")).isprintable():
            raise TelegramError("a telegram is printable ASCII")
        code = text[: self._code_width]
        kind = self._kinds.get(code)
        if kind is None:
            raise TelegramError(f"unknown code {code!r}; there are {', '.join(self._kinds)}")
        layout, place = self._layouts[kind], self._code_width + self._seq_width
        if len(text) != place + layout.width:
            raise TelegramError(f"{code} has {place + layout.width} characters, not {len(text)}")
        seq = _number("seq", text[self._code_width : place])
        values: dict[str, Any] = {}
        for name, width in layout.fields:
            value = self._decode_value(name, text[place : place + width])
            place += width
            if value not in (None, ""):
                values[name] = value
        if values.get("bytes") == 0 and "path" in values:
            del values["bytes"]  # a controller that has both fields fills one
        return checked(kind, seq or 0, values)

    def encode(self, telegram: Telegram) -> bytes:
        """See `Form.encode`."""
        layout = self._layouts.get(telegram.kind)
        if layout is None:
            raise TelegramError(f"there is no {telegram.kind}")
        text = layout.code + f"{telegram.seq:0{self._seq_width}d}"
        for name, width in layout.fields:
            text += self._encode_value(name, telegram.values.get(name), width)
        return self.start + text.encode("ascii") + self.end

    def _decode_value(self, name: str, text: str) -> Any:
        if name in self._values:
            stripped = text.strip()
            return self._values[name].get(stripped, stripped)
        return _number(name, text) if name in NUMBERS else text.rstrip()

    def _encode_value(self, name: str, value: Any, width: int) -> str:
        if name in NUMBERS:
            digits = f"{int(value or 0):0{width}d}"
            if len(digits) > width:
                raise TelegramError(f"{name} {value} has more than {width} digits")
            return digits
        text = "" if value is None else f"{value:.6f}" if name == "score" else str(value)
        text = self._codes.get(name, {}).get(text, text)
        plain = "".join(char if char.isascii() and char.isprintable() else "?" for char in text)
        if name in _NEVER_CUT and (len(plain) > width or plain != text):
            raise TelegramError(f"{name} {text!r} does not fit into {width} characters of ASCII")
        return plain[:width].ljust(width)


def _number(name: str, text: str) -> int | None:
    digits = text.strip()
    if digits and not digits.isdigit():
        raise TelegramError(f"{name} is a number, not {text!r}")
    return int(digits) if digits else None


def _check(settings: FieldSettings, what: str) -> None:
    layouts = settings.telegrams
    for kind, needed in _NEEDED.items():
        if kind not in layouts:
            raise UsageError(f"{what}: telegrams.{kind} is missing")
        names = [name for name, _ in layouts[kind].fields]
        if missing := [name for name in needed if name not in names]:
            raise UsageError(f"{what}: telegrams.{kind} lacks the field {missing[0]!r}")
    item_fields = {name for name, _ in layouts["item"].fields}
    if not item_fields & {"bytes", "path"}:
        raise UsageError(f"{what}: telegrams.item needs the field bytes or path")
    for kind, layout in layouts.items():
        for name, _ in layout.fields:
            if name not in FIELDS[kind]:
                raise UsageError(f"{what}: telegrams.{kind}: {name!r} is none of {', '.join(FIELDS[kind]) or 'none'}")
    codes = [layout.code for layout in layouts.values()]
    if len(set(codes)) != len(codes) or len({len(code) for code in codes}) != 1 or not all(codes):
        raise UsageError(f"{what}: codes must differ and be of one length: {', '.join(codes)}")
    if not all(code.isascii() and code.isprintable() for code in codes):
        raise UsageError(f"{what}: codes are printable ASCII")
    _check_codes(settings, what)
    assert set(layouts) <= set(KINDS)


def _check_codes(settings: FieldSettings, what: str) -> None:
    for name, codes in settings.codes.items():
        if len(set(codes.values())) != len(codes):
            raise UsageError(f"{what}: codes.{name}: two values have one code")
        widths = {width for layout in settings.telegrams.values() for each, width in layout.fields if each == name}
        for value, code in codes.items():
            if not code.isascii() or not code.isprintable() or code != code.strip() or not code:
                raise UsageError(f"{what}: codes.{name}.{value!r}: {code!r} is not a code of printable ASCII")
            if widths and len(code) > min(widths):
                raise UsageError(f"{what}: codes.{name}.{value!r}: {code!r} is wider than its field, {min(widths)}")
