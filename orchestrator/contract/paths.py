r"""Path names as text: file names are bytes, manifests are UTF-8, and both must survive.

In Python a path is a str in which each byte that is not UTF-8 is a lone surrogate (PEP 383). Strict
readers refuse those, so a manifest writes such a byte as `\xNN`. A name that already holds the text
`\xNN` has its backslash written as `\x5c`; every other name is written as it is.
"""

import re

_ESCAPED = re.compile(r"\\x([0-9a-f]{2})")
_ESCAPED_BYTES = re.compile(rb"\\x([0-9a-f]{2})")


def path_to_text(path: str) -> str:
    r"""`path` as valid UTF-8 text, reversible: undecodable bytes become `\xNN`."""
    text = _ESCAPED.sub(r"\\x5cx\1", path) if "\\x" in path else path
    if text.isascii():
        return text
    return "".join(f"\\x{ord(char) - 0xDC00:02x}" if "\udc80" <= char <= "\udcff" else char for char in text)


def text_to_path(text: str) -> str:
    """The path that `path_to_text` wrote."""
    if "\\x" not in text:
        return text
    raw = _ESCAPED_BYTES.sub(lambda match: bytes([int(match[1], 16)]), text.encode())
    return raw.decode("utf-8", "surrogateescape")
