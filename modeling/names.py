r"""Names as text: of files, without loss; of classes, by one rule; and those that systems, not people, give.

In Python a path is a str in which each byte that is not UTF-8 is a lone surrogate (PEP 383). As text such a byte is
`\xNN`; a name that already holds the text `\xNN` has its backslash written as `\x5c`. Manifests write paths
this way (docs/manifest.md), and so do the names of images in data sets.
"""

import csv
import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

# Files

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


# Control characters, which a terminal would obey; marks that turn the direction of text; and where a program that parts
# cells at semicolons, or takes no quotes, would begin a cell with a formula.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]|[;\t\n\r](?=[\"']*[=+\\-@\t\r])"
)


def escape_unsafe(text: str) -> str:
    r"""`text` with `\xNN` for each byte of a character that is unsafe in a CSV cell; `text_to_path` undoes it."""
    if text.isprintable() and ";" not in text:
        return text  # without a search, for every row of a manifest
    return _UNSAFE.sub(lambda match: escape_bytes(match[0]), text)


def escape_bytes(text: str) -> str:
    r"""`\xNN` for each byte of `text`."""
    return "".join(f"\\x{byte:02x}" for byte in text.encode("utf-8", "surrogateescape"))


def to_cell(text: str) -> str:
    """A path or a label as a CSV cell that neither a spreadsheet nor a terminal acts upon; reversible."""
    return text_to_cell(path_to_text(text))


def text_to_cell(text: str) -> str:
    """The same of a name that is text already."""
    return escape_formula(escape_unsafe(text))


def from_cell(cell: str) -> str:
    """The reverse of `to_cell`."""
    return text_to_path(unescape_formula(cell))


def csv_lines(rows: Iterable[Iterable[object]]) -> str:
    """Rows of cells as lines of CSV that every version of Python reads back; each ends with "\\n"."""
    lines = _Lines()
    csv.writer(lines, lineterminator="\r\n").writerows(rows)
    return "".join(lines)


class _Lines(list[str]):
    """Takes the lines of a csv writer.

    With the line terminator "\\r\\n" the writer quotes a cell that holds either character; with "\\n" it leaves a bare
    "\\r" in a cell unquoted (before Python 3.13), and a reader takes that for the end of the row.
    """

    def write(self, line: str) -> None:
        self.append(line.removesuffix("\r\n") + "\n")


def other_unicode_form(root: str | Path, name: str) -> str | None:
    """The name of an existing file that differs from `name` in its Unicode form only; None if there is none.

    `é` is one character in NFC, and `e` with an accent in NFD, as macOS writes it: two different file names.
    """
    if name.isascii():
        return None
    found: list[str] = []
    for part in name.split("/"):
        forms = (part, unicodedata.normalize("NFC", part), unicodedata.normalize("NFD", part))
        there = next((form for form in forms if os.path.lexists(os.path.join(root, *found, form))), None)  # noqa: PTH118 names may not be UTF-8
        if there is None:
            return None
        found.append(there)
    form = "/".join(found)
    return form if form != name else None


# Classes

# Control characters, the separators of lines and paragraphs, what turns the direction of text (Unicode's annex 9), and
# lone surrogates: none can be seen, and some change how the text around them is shown.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def class_name(text: str) -> str:
    """The name of a class, from a folder's name, a cell of a list or a correction: NFC, without spaces at its ends."""
    return unicodedata.normalize("NFC", text.strip())


def look_of(label: str) -> str:
    """What is equal for names that people would take for one another: without capital letters, characters that have no
    width (a joiner, a soft hyphen), kinds of spaces, and forms of one letter (its full width).
    """
    seen = "".join(char for char in label if unicodedata.category(char) != "Cf")
    return " ".join(unicodedata.normalize("NFKC", seen).casefold().split())


def label_fault(labels: Iterable[str]) -> str | None:
    """What is wrong with the labels of a model or a data set, in one line that can be printed; None if they are legal.

    A label must be text that can be seen and that no other label repeats; it may hold `:`, `;`, digits or anything.
    """
    seen: set[str] = set()
    for label in labels:
        if not label.strip():
            return f"label {len(seen) + 1} is empty; give it a name"
        if found := _UNSEEN.search(label):
            kind = "is not text" if "\ud800" <= found[0] <= "\udfff" else "cannot be seen"
            return f"the label {label!a} holds U+{ord(found[0]):04X}, which {kind}; rename it"
        if label in seen:
            return f"the label {label!r} stands there twice; labels must differ"
        seen.add(label)
    return None


# Archives

_ARCHIVE = re.compile(r".*\.(?:zipx?|7z|rar|cab|tar|tar\.(?:gz|bz2|xz|zst|lzma|z)|tgz|tbz2?|txz|tzst)", re.DOTALL)


def is_archive(name: str) -> bool:
    """Whether a file of this name is an archive of files, which is not read: `photos.zip`, `photos.tar.gz`."""
    return _ARCHIVE.fullmatch(name.lower()) is not None


# What systems leave behind

_JUNK = frozenset({
    "__macosx", ".ds_store", ".appledouble", ".appledesktop", ".appledb", ".fseventsd", ".spotlight-v100", ".trashes",
    ".temporaryitems", ".documentrevisions-v100", ".apdisk", ".volumeicon.icns", "icon\r", "network trash folder",
    "temporary items",  # macOS
    "$recycle.bin", "system volume information", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini",
    "@eadir", "@tmp", "@sharebin", "@recycle", "@recently-snapshot", "@transcode", "@__thumb", ".@__thumb",
    "#recycle", "#snapshot", "~snapshot", ".snapshot", ".snapshots", ".zfs",  # Synology, QNAP, NetApp, ZFS
    "lost+found", ".trash", ".thumbnails", ".xdg-volume-info", ".directory",
    ".ipynb_checkpoints", "__pycache__", ".git", ".svn", ".hg", ".dvc", ".idea", ".vscode", ".cache",
})  # fmt: skip
_JUNK_PATTERN = re.compile(
    r"\._.*|\.nfs[0-9a-f]{8,}|\.fuse_hidden.*|\.trash-\d+|found\.\d{3}|.*@syno(?:eastream|resource)"
)


def is_junk(name: str) -> bool:
    """Whether systems, network storage or tools leave files and folders of this name behind, so that no image in them
    is a user's: `__MACOSX`, `@eaDir`, `$RECYCLE.BIN`, `lost+found`, `Thumbs.db`, `._0001.jpg`.

    Other hidden names (those that begin with a dot) are not junk; they are left out by their dot.
    """
    folded = name.lower()
    return folded in _JUNK or _JUNK_PATTERN.fullmatch(folded) is not None
