"""What may be shown: text without what a terminal obeys, and without the passwords in URLs."""

import json
import logging
import re

# Control characters, line and paragraph separators, lone surrogates, marks that change the direction of text, and
# characters that have no width. Joiners (U+200C, U+200D) stay: scripts and emoji need them.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)
_UNSAFE_IN_JSON = re.compile(_UNSAFE.pattern.replace("\x00-\x1f", ""))  # json escapes those; line ends are layout
_LOGIN = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]*://)\S*@")


def printable(text: str) -> str:
    r"""`text` on one line, with every character that a terminal would obey escaped: ESC becomes `\x1b`.

    A byte of a file name that is not UTF-8 becomes `\xNN`, as in manifests.
    """
    return text if text.isascii() and text.isprintable() else _UNSAFE.sub(_escaped, text)


def printable_json(document: str) -> str:
    """A document of JSON in which such characters, which are in its strings only, are escaped as JSON does it."""
    return _UNSAFE_IN_JSON.sub(lambda match: json.dumps(match[0])[1:-1], document)


def without_logins(text: str) -> str:
    """`text` without the user and password of any URL in it."""
    return _LOGIN.sub(r"\1***@", text) if "@" in text else text


class SafeFormatter(logging.Formatter):
    """Log lines without escapes and passwords, whichever library writes them; a traceback keeps its lines."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's line, and its traceback below."""
        return "\n".join(printable(line) for line in without_logins(super().format(record)).split("\n"))


def _escaped(match: re.Match[str]) -> str:
    char = match[0]
    if "\udc80" <= char <= "\udcff":
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode() if not "\ud800" <= char <= "\udfff" else f"\\u{ord(char):04x}"
