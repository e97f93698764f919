"""Names of folders for labels, and of files in them: readable, distinct, and such as every file system holds."""

import hashlib
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator

from modeling.names import is_junk

ERRORS = "_errors"  # the folder of rows without an answer; no label gets it
LONGEST_FOLDER = 100  # bytes; Windows limits whole paths to 260 characters
LONGEST_FILE = 255  # bytes, on every usual file system
_LONGEST_SUFFIX = 20

# What Windows and its file systems do not hold, and what cannot be seen.
_FORBIDDEN = re.compile(
    '[<>:"/\\\\|?*\x00-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]'
)
_DEVICE = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])(?:\..*)?", re.IGNORECASE | re.DOTALL)
_ERRORS_FOLDER = re.compile(rf"{ERRORS}(?:~\d\d?)?/")  # numbered where something else has the name
_HARMLESS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_. ()+,=-]{0,98}[A-Za-z0-9_)]")


def portable(name: str) -> str:
    """`name` with `_` for what some file system does not hold; other names may give the same."""
    text = _cut(_FORBIDDEN.sub("_", unicodedata.normalize("NFC", name)), LONGEST_FOLDER)
    text = re.sub(r"^\.|[. ]+\Z", "_", text)  # hidden; and what Windows cuts off
    return f"_{text}" if _DEVICE.fullmatch(text) or not text else text


def is_of_errors(path: str) -> bool:
    """Whether a path in a target is that of a row without an answer; no label has such a folder."""
    return _ERRORS_FOLDER.match(path) is not None


def is_harmless(name: str) -> bool:
    """Whether every file system holds a name, so that none needs to be tried."""
    return _HARMLESS.fullmatch(name) is not None and not _DEVICE.fullmatch(name)


def fold(name: str) -> str:
    """Equal for names that some file system takes for one: it may ignore case, or the form of Unicode."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


class FolderNames:
    """A folder's name for each label. The same labels get the same names, whatever the file system."""

    def __init__(self, labels: Iterable[str], *, reserved: str = ERRORS) -> None:
        self._names: dict[str, str] = {}
        self._taken = {fold(reserved)}
        for label in sorted(labels):
            self.of(label)

    def of(self, label: str) -> str:
        """The label itself where it can be a folder's name and no earlier label has it; else with `~` and a digest."""
        if label not in self._names:
            self._names[label] = self._choose(label)
        return self._names[label]

    def others(self, label: str, holds: Callable[[str], bool]) -> Iterator[str]:
        """More names for a label, where its own cannot be had; the last one that is taken stays the label's."""
        name = portable(label)
        for marked in _marked(name if holds(name) else "label", label):
            if self._take(marked):
                self._names[label] = marked
                yield marked

    def _choose(self, label: str) -> str:
        name = portable(label)
        if name == label and not is_junk(name) and self._take(name):
            return name
        return next(marked for marked in _marked(name, label) if self._take(marked))

    def _take(self, name: str) -> bool:
        is_free = fold(name) not in self._taken
        self._taken.add(fold(name))
        return is_free


def file_names(path: str, holds: Callable[[str], bool]) -> Iterator[str]:
    """The names that the file of a row may get, best first: its own, then ones with a digest of its path.

    holds: whether the target keeps a name as it is.
    """
    name = os.path.basename(path)
    stem, suffix = os.path.splitext(name)
    if len(os.fsencode(suffix)) > _LONGEST_SUFFIX or suffix == ".":
        stem, suffix = name, ""
    if holds(name):
        yield name
    elif not holds(stem := portable(stem)) or not holds(f"a{suffix}"):
        stem, suffix = "image", suffix if holds(f"a{suffix}") else ""
    for mark in _marks(path):
        yield _cut(stem, LONGEST_FILE - len(mark) - len(os.fsencode(suffix))) + mark + suffix


def _marked(name: str, text: str) -> Iterator[str]:
    return (name + mark for mark in _marks(text))


def _marks(text: str) -> Iterator[str]:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return (f"~{digest[:length]}" for length in (8, 16, 32, 64))


def _cut(name: str, room: int) -> str:
    """The name without what is behind `room` bytes; no character is divided."""
    raw = os.fsencode(name)
    if len(raw) <= room:
        return name
    while room and raw[room] & 0xC0 == 0x80:
        room -= 1
    return os.fsdecode(raw[:room])
