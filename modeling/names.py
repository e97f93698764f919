r"""File names as text: names are bytes, what we write is UTF-8, and both must survive.

In Python a path is a str in which each byte that is not UTF-8 is a lone surrogate (PEP 383). As text such a byte is
`\xNN`; a name that already holds the text `\xNN` has its backslash written as `\x5c`. Manifests write paths
so (docs/manifest.md), and data sets name their images so.
"""

import re

_ESCAPED = re.compile(r"\\x([0-9a-f]{2})")
_ESCAPED_BYTES = re.compile(rb"\\x([0-9a-f]{2})")
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "'")  # OWASP, "CSV Injection"; and the quote that undoes it


def path_to_text(path: str) -> str:
    r"""`path` as valid UTF-8 text, reversible: undecodable bytes become `\xNN`."""
    text = _ESCAPED.sub(r"\\x5cx\1", path) if "\\x" in path else path
    if is_text(text):
        return text
    return "".join(f"\\x{ord(char) - 0xDC00:02x}" if "\udc80" <= char <= "\udcff" else char for char in text)


def text_to_path(text: str) -> str:
    """The path that `path_to_text` wrote."""
    if "\\x" not in text:
        return text
    raw = _ESCAPED_BYTES.sub(lambda match: bytes([int(match[1], 16)]), text.encode())
    return raw.decode("utf-8", "surrogateescape")


def is_text(name: str) -> bool:
    """Whether a name is valid UTF-8, so that it can be a label."""
    return name.isascii() or not any("\udc80" <= char <= "\udcff" for char in name)


def harmless(cell: str) -> str:
    """A cell of a CSV that no spreadsheet takes for a formula: a `'` goes in front where it could."""
    return f"'{cell}" if cell.startswith(_FORMULA_STARTS) else cell


def bare(cell: str) -> str:
    """The cell that `harmless` was given."""
    return cell.removeprefix("'")
