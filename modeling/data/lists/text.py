"""Opens the text of a list: its encoding, and its lines in bounded memory."""

import codecs
import io
from pathlib import Path
from typing import TextIO

from modeling.errors import DataError

MAX_CHARS = 1 << 24  # of a row; a manifest of many labels has long ones
UTF8 = "utf-8-sig"
_MARKS = {  # the longer marks first: that of UTF-16 begins one of UTF-32
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_SAMPLE_BYTES = 64


def open_text(path: Path) -> TextIO:
    """The text of a list. Bytes that are not UTF-8 survive, as they may be part of a file name.

    Raises:
        DataError: the file cannot be read, or is not text.
    """
    try:
        file = path.open("rb")
        start = file.peek(_SAMPLE_BYTES)[:_SAMPLE_BYTES]
    except OSError as err:
        raise DataError(f"{path}: cannot be read ({err.strerror})") from err
    encoding = encoding_of(start)
    if encoding == UTF8:
        _check_is_text(start, path)
    return io.TextIOWrapper(file, encoding, "surrogateescape" if encoding == UTF8 else "strict", newline="")


def encoding_of(start: bytes) -> str:
    """The encoding of a text by its byte-order mark; UTF-8 without one."""
    return next((encoding for mark, encoding in _MARKS.items() if start.startswith(mark)), UTF8)


def is_unmarked_utf16(start: bytes) -> bool:
    """Whether every other byte is NUL, as in Latin text in UTF-16 without a byte-order mark."""
    even = start[: min(len(start), 8) // 2 * 2]  # further on there may be other letters
    return len(even) >= 4 and any(even) and not (any(even[::2]) and any(even[1::2]))


def _check_is_text(start: bytes, path: Path) -> None:
    if start.startswith(b"PK\x03\x04"):
        raise DataError(f"{path} is a zip file, as an Excel workbook is, and no text; save it as CSV in UTF-8")
    if is_unmarked_utf16(start):
        raise DataError(f"{path} is UTF-16 without a byte-order mark; save it as UTF-8")


class Lines:
    """The lines of a list, counted; refuses a row that would fill the memory.

    number: of the line that was read last. pending: characters of the row so far; its reader sets it to 0 after a row.
    """

    def __init__(self, text: TextIO, path: Path) -> None:
        self._text = text
        self._path = path
        self.number = 0
        self.pending = 0

    def __iter__(self) -> "Lines":
        return self

    def __next__(self) -> str:
        try:
            line = self._text.readline(MAX_CHARS + 1)
        except UnicodeError as err:
            raise DataError(f"{self._path}, line {self.number + 1}: not valid {self._text.encoding.upper()}") from err
        if not line:
            raise StopIteration
        self.number += 1
        self.pending += len(line)
        if self.pending > MAX_CHARS:
            raise DataError(
                f"{self._path}, line {self.number}: a row of more than {MAX_CHARS:,} characters; the file is not a "
                "list, or a quote in it is not closed"
            )
        return line
