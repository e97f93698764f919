"""Why no image is read at a path, and what would cure it: for errors before a job, and for the rows of one.

Only what the path itself causes is looked at: missing, outside the root, no right, no file. No file is read.
"""

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from unicodedata import normalize
from urllib.parse import unquote

from modeling.images.formats import IMAGE_EXTENSIONS
from modeling.names import is_text, text_to_path

MISSING, OUTSIDE, PERMISSION, NOT_A_FILE = "missing", "outside_root", "permission", "not_a_file"
PREFIXED = "they begin with folders that are not below the root"
_CODES = {
    errno.ENOENT: MISSING,
    errno.ENOTDIR: MISSING,
    errno.ENAMETOOLONG: MISSING,
    errno.EACCES: PERMISSION,
    errno.EPERM: PERMISSION,
}
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a path fails.

    because: about all paths of a list that fail alike. there: the path under which the image is there.
    row: about one path, for its row.
    """

    because: str
    cure: str = ""
    there: str = ""
    row: str = ""


@dataclass(frozen=True)
class PathRoot:
    """The folder that paths are relative to; `follow`: whether links may lead out of it."""

    folder: str
    follow: bool

    @cached_property
    def _real(self) -> str:
        return os.path.realpath(self.folder)

    def full(self, path: str) -> str:
        return os.path.join(self.folder, path)  # noqa: PTH118 a str keeps the bytes of a name

    def holds(self, full: str) -> bool:
        """Whether a path is inside, after its links are resolved."""
        real = os.path.realpath(full)
        return real == self._real or real.startswith(self._real.rstrip("/") + "/")

    def code(self, path: str) -> str | None:
        """The error code that a worker would give for `path`, as `workers.classify.read` reads; None for a file.

        Where neither the path nor a right is the reason, it is empty.
        """
        full = self.full(path)
        try:
            if self.follow:
                inside = os.path.normpath(full).startswith(self.folder.rstrip("/") + "/")
            else:
                inside = self.holds(os.path.dirname(full)) and (not os.path.islink(full) or self.holds(full))  # noqa: PTH114, PTH120
            if not inside:
                return OUTSIDE
            if not stat.S_ISREG(os.stat(full).st_mode):  # noqa: PTH116
                return NOT_A_FILE
        except OSError as err:
            return _CODES.get(err.errno or 0, "")
        except ValueError:
            return MISSING  # no file can have this name
        return None if os.access(full, os.R_OK, effective_ids=os.access in os.supports_effective_ids) else PERMISSION


def find_cause(root: PathRoot, path: str, code: str) -> Cause:
    """Why `path` fails with `code`."""
    full = root.full(path)
    link = _link_in(root.folder, path)
    if code == PERMISSION:
        return Cause("the present user may not read them", "change their rights or those of a folder above them")
    if code == NOT_A_FILE:
        return Cause("they are folders, pipes or devices, not files", "name the image files")
    if code == OUTSIDE and link and exists(full) and not os.path.isabs(path):  # noqa: PTH117
        return Cause("they are links that lead out of the source folder", "read them with --follow-symlinks")
    if link and not exists(full):
        return Cause(
            "they are links to files that are not there",
            "fetch these files first (`git annex get`, `dvc checkout`, ...), or mount the folder that they lead to",
        )
    if code == OUTSIDE and exists(full):
        return Cause("they lead out of the root folder")
    return rewritten(root.folder, path) or Cause("there are no such files")


def rewritten(folder: str, path: str, *, cheap: bool = False) -> Cause | None:
    """How a missing path would have to be written so that there is a file; None if that is not known.

    cheap: only what the path itself suggests, and only below the folder, for rows of a job.
    """
    if (found := _ADDRESS.match(path)) and found[1].lower() != "file":
        cure = "download the images, and name the files"
        return Cause(f"they are addresses ({found[1]}:)", cure, row="this is an address, not a path")
    for because, row, candidates in _REWRITES:
        for candidate in candidates(path) if row or not cheap else ():
            if cheap and (candidate.startswith("/") or ".." in candidate):
                continue
            if candidate not in ("", path) and is_file(os.path.join(folder, candidate)):  # noqa: PTH118
                return Cause(because, _CURES.get(candidates, "write them so"), candidate, f"one is there {row}")
    if _WINDOWS.match(path) or ("\\" in path and "/" not in path):
        cure = "write them with slashes, as this machine sees the files"
        return Cause("they are Windows paths", cure, row="this is a Windows path")
    if found:
        return Cause("they are file: addresses", "write plain paths", row="this is an address, not a path")
    return None


def hint(folder: str, path: str) -> str:
    """What the row of a missing path says beside that; empty where nothing is known. Looks at few files, if at any."""
    cause = rewritten(folder, path, cheap=True)
    return f"; {cause.row}" if cause else ""


def exists(full: str) -> bool:
    """Whether something is there, after links are followed; False also for names that no file can have."""
    try:
        os.stat(full)  # noqa: PTH116
    except (OSError, ValueError):
        return False
    return True


def is_denied(full: str) -> bool:
    """Whether a folder above a path may not be searched."""
    try:
        os.stat(full)  # noqa: PTH116
    except OSError as err:
        return _CODES.get(err.errno or 0) == PERMISSION
    except ValueError:
        return False
    return False


def is_file(full: str) -> bool:
    """Whether a file is there, after links are followed."""
    try:
        return stat.S_ISREG(os.stat(full).st_mode)  # noqa: PTH116
    except (OSError, ValueError):
        return False


def _link_in(folder: str, path: str) -> str:
    """The first part of a path that is a link; empty where there is none."""
    full = folder
    for part in path.split("/"):
        full = os.path.join(full, part)  # noqa: PTH118
        try:
            if os.path.islink(full):  # noqa: PTH114
                return full
        except ValueError:
            return ""
    return ""


# Ways to write a path


def _addresses(path: str) -> Iterator[str]:
    if path.startswith("file:"):
        plain = unquote(re.sub(r"^file:(//(localhost)?)?(?=/)", "", path), errors="surrogateescape")
        yield plain
        yield from _without_folders(plain)


def _windows(path: str) -> Iterator[str]:
    if "\\" in path or _WINDOWS.match(path):
        plain = path.replace("\\", "/")
        yield plain
        yield from _without_folders(plain)


def _percent(path: str) -> Iterator[str]:
    if "%" in path:
        yield unquote(path, errors="surrogateescape")


def _unescaped(path: str) -> Iterator[str]:
    if "\\x" in path or path.startswith("'"):
        yield text_to_path(path.removeprefix("'"))


def _stripped(path: str) -> Iterator[str]:
    yield path.strip().strip("\"'").strip()
    yield path.rstrip(" \t\r,;").strip("\"'")


def _other_forms(path: str) -> Iterator[str]:
    if path.isascii():
        return
    folder, slash, name = path.rpartition("/")
    folders, names = ({normalize("NFC", text), normalize("NFD", text), text} for text in (folder, name))
    yield from (first + slash + last for first in sorted(folders) for last in sorted(names))


def _western(path: str) -> Iterator[str]:
    """The path where a list in Windows-1252 (or in a Mac's or a DOS's encoding) was taken for UTF-8."""
    if is_text(path):
        return
    raw = os.fsencode(path)
    for encoding in ("cp1252", "mac_roman", "cp850"):
        yield raw.decode(encoding, "replace")


def _home(path: str) -> Iterator[str]:
    if path.startswith("~"):
        yield os.path.expanduser(path)  # noqa: PTH111


def _first_line(path: str) -> Iterator[str]:
    yield path.split("\r")[0]


def _first_cells(path: str) -> Iterator[str]:
    for separator in ("\t", ";", ",", " "):
        yield path.split(separator)[0]


def _other_case(path: str) -> Iterator[str]:
    stem, suffix = os.path.splitext(path)  # noqa: PTH122
    yield from (stem + suffix.lower(), stem + suffix.upper(), path.lower(), path.upper())


def _with_extension(path: str) -> Iterator[str]:
    if os.path.splitext(path)[1].lower() not in IMAGE_EXTENSIONS:  # noqa: PTH122
        yield from (path + extension for extension in (".jpg", ".png", ".jpeg", ".JPG", ".tif", ".webp", ".bmp"))


def _without_folders(path: str) -> Iterator[str]:
    """The path without its first folders, one after another."""
    parts = [part for part in path.split("/") if part][:64]
    yield from ("/".join(parts[index:]) for index in range(1, len(parts)))


_REWRITES: tuple[tuple[str, str, Callable[[str], Iterator[str]]], ...] = (  # without a text for rows: not cheap
    ("the file names are in another Unicode form (NFC or NFD)", "in another Unicode form (NFC or NFD)", _other_forms),
    ("they are Windows paths", "with slashes for Windows' backslashes", _windows),
    ("they have percent-escapes", "without percent-escapes", _percent),
    ("they are file: addresses", "without file:", _addresses),
    (
        "they have the escapes of a manifest, which is recognised by its columns path, status and label",
        "without the escapes of a manifest",
        _unescaped,
    ),
    (
        "they have spaces, quotes or separators around them",
        "without spaces, quotes or separators around the name",
        _stripped,
    ),
    ("the list is not in UTF-8", "whose name is this one in another encoding than UTF-8", _western),
    ("a list knows no ~", "", _home),
    ("its lines end with CR alone", "", _first_line),
    ("each line holds more than a path; a list with columns is a .csv with a heading", "", _first_cells),
    ("they are in another case", "", _other_case),
    ("they lack the extension", "", _with_extension),
    (PREFIXED, "", _without_folders),
)
_CURES: dict[Callable[[str], Iterator[str]], str] = {  # where it is not enough to write the path as it is there
    _other_forms: "write the names as the files have them, or rename the files",
    _western: "save it as UTF-8",
    _first_line: "save it with LF or CRLF",
}
