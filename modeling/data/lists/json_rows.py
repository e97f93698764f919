"""Rows of JSON: an object a line, an array of objects, or the document of a manifest; read value after value."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from modeling.data.lists.text import MAX_CHARS, Lines, open_text
from modeling.errors import DataError

Object = tuple[int, tuple[str, ...], list[Any]]
"""The number of an object (or its line), its keys, and its values."""

_CHUNK = 1 << 16  # characters


class Integer(str):
    """An integer as it was written."""


class Float(str):
    """Any other number as it was written."""


def read_json_lines(path: Path) -> Iterator[Object]:
    """The object on each line; blank lines are passed over.

    Raises:
        DataError: the file cannot be read, or a line is not an object.
    """
    with open_text(path) as text:
        lines = Lines(text, path)
        for line in lines:
            lines.pending = 0
            if line.strip():
                place = f"{path}, line {lines.number}"
                try:
                    value = _DECODER.decode(line)
                except (ValueError, RecursionError) as err:
                    raise DataError(f"{place}: not JSON ({_why(err)})") from err
                yield lines.number, *_split(value, place)


def read_json(path: Path) -> Iterator[Object]:
    """The objects of an array, or of the array `predictions` of a document.

    Raises:
        DataError: the file cannot be read, or holds something else.
    """
    with open_text(path) as text:
        values = _Values(text, path)
        if values.peek() == "[":
            found = _elements(values)
        elif values.peek() == "{":
            found = _predictions(values)
        else:
            raise DataError(f"{path}: not JSON (it begins with neither an array nor an object)")
        for number, value in enumerate(found, start=1):
            yield number, *_split(value, f"{path}, element {number}")
        if values.peek():
            raise DataError(f"{path}: not one JSON document; a file with an object a line is called .jsonl")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; the last of two equal keys would win without a word."""
    value = dict(pairs)
    if len(value) != len(pairs):
        twice = next(key for index, (key, _) in enumerate(pairs) if key in dict(pairs[:index]))
        raise ValueError(f"the key {twice!r} occurs twice")
    return value


_DECODER = json.JSONDecoder(  # not pydantic: a line an image, of which there are millions
    object_pairs_hook=_object, parse_int=Integer, parse_float=Float, parse_constant=Float
)


def _split(value: Any, place: str) -> tuple[tuple[str, ...], list[Any]]:
    if not isinstance(value, dict):
        raise DataError(f"{place}: not a JSON object with the keys path and label")
    return tuple(value), list(value.values())


class _Values:
    """The values of a JSON text, one after another; it is read in pieces."""

    def __init__(self, text: TextIO, path: Path) -> None:
        self._text = text
        self.path = path
        self._buffer = ""
        self._at = 0
        self._ended = False

    def peek(self) -> str:
        """The next character that is not white space; empty at the end."""
        while True:
            while self._at < len(self._buffer):
                if not (char := self._buffer[self._at]).isspace():
                    return char
                self._at += 1
            if self._ended:
                return ""
            self._read_more()

    def skip(self, *wanted: str) -> str:
        """Pass over one of the wanted characters, and return it."""
        if (char := self.peek()) not in wanted:
            where = f"at {char!r}" if char else "it ends too early"
            raise DataError(f"{self.path}: not JSON ({' or '.join(map(repr, wanted))} expected, {where})")
        self._at += 1
        return char

    def take(self) -> Any:
        """The next value."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._buffer, self._at)
            except (ValueError, RecursionError) as err:
                if self._ended or isinstance(err, RecursionError) or len(self._buffer) - self._at > MAX_CHARS:
                    raise DataError(f"{self.path}: not JSON ({_why(err)})") from err
            else:
                if end < len(self._buffer) or self._ended:  # else a number may go on
                    self._at = end
                    return value
            self._read_more()

    def _read_more(self) -> None:
        rest = self._buffer[self._at :]
        try:
            more = self._text.read(max(_CHUNK, len(rest)))  # a long value is not decoded again for every chunk
        except UnicodeError as err:
            raise DataError(f"{self.path}: not valid {self._text.encoding.upper()}") from err
        self._buffer, self._at, self._ended = rest + more, 0, not more


def _elements(values: _Values) -> Iterator[Any]:
    """The elements of an array."""
    values.skip("[")
    if values.peek() == "]":
        values.skip("]")
        return
    while True:
        yield values.take()
        if values.skip(",", "]") == "]":
            return


def _predictions(values: _Values) -> Iterator[Any]:
    """The elements of the array `predictions` of an object; other values are passed over."""
    values.skip("{")
    found = False
    while values.peek() != "}":
        key = values.take()
        values.skip(":")
        if key == "predictions" and values.peek() == "[" and not found:
            found = True
            yield from _elements(values)
        else:
            values.take()
        if values.peek() != "}":
            values.skip(",")
    values.skip("}")
    if not found:
        raise DataError(
            f"{values.path} is not a manifest: it has no array predictions; a list is an array of objects, or a .jsonl"
        )


def _why(err: Exception) -> str:
    return str(err) or "it is nested too deeply"
