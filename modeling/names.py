r"""File names as text: names are bytes, Pigeonhole writes UTF-8, and the conversion must be lossless.

In Python a path is a str in which each byte that is not UTF-8 is a lone surrogate (PEP 383). As text such a byte is
`\xNN`; a name that already holds the text `\xNN` has its backslash written as `\x5c`. Manifests write paths
this way (docs/manifest.md), and so do the names of images in data sets.
"""

import re

_ESCAPED = re.compile(r"\\x([0-9a-f]{2})")
_ESCAPED_BYTES = re.compile(rb"\\x([0-9a-f]{2})")
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "'")  # OWASP, "CSV Injection"; and the quote that escapes them


def path_to_text(path: str) -> str:
    r"""`path` as valid UTF-8 text, reversible: undecodable bytes become `\xNN`."""
    text = _ESCAPED.sub(r"\\x5cx\1", path) if "\\x" in path else path
    if is_text(text):
        return text
    return "".join(f"\\x{ord(char) - 0xDC00:02x}" if "\udc80" <= char <= "\udcff" else char for char in text)


def text_to_path(text: str) -> str:
    """The reverse of `path_to_text`."""
    if "\\x" not in text:
        return text
    raw = _ESCAPED_BYTES.sub(lambda match: bytes([int(match[1], 16)]), text.encode())
    return raw.decode("utf-8", "surrogateescape")


def is_text(name: str) -> bool:
    """Whether a name is valid UTF-8, as a label must be."""
    return name.isascii() or not any("\udc80" <= char <= "\udcff" for char in name)


def escape_formula(cell: str) -> str:
    """Prefix a CSV cell with `'` if a spreadsheet could interpret it as a formula."""
    return f"'{cell}" if cell.startswith(_FORMULA_STARTS) else cell


def unescape_formula(cell: str) -> str:
    """The reverse of `escape_formula`."""
    return cell.removeprefix("'")
