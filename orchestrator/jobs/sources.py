"""What can be classified: a folder, a glob, a list of paths (a file or standard input), or one image.

A source yields paths relative to its root while it is being read, in an order that depends on names alone.
Files of a folder or a glob that are left out are counted by reason. Every path of a list becomes a row.
"""

import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import translate
from itertools import chain, islice
from pathlib import Path
from typing import IO

from modeling.data.lists.paths import read_paths
from modeling.data.lists.reader import LIST_SUFFIXES, manifest_root, open_list_file, summary_of
from modeling.errors import DataError
from modeling.images.formats import IMAGE_EXTENSIONS
from modeling.names import is_archive, other_unicode_form
from orchestrator.contract.access import explain_os_error
from orchestrator.contract.errors import NotFoundError, UsageError
from orchestrator.jobs.below_root import BelowRoot
from orchestrator.jobs.walk import SourceOptions, Walk

TEXT_EXTENSIONS = frozenset({".txt", ".lst", ".list"})
LIST_EXTENSIONS = TEXT_EXTENSIONS | LIST_SUFFIXES
_GLOB = re.compile(r"[*?\[]")


@dataclass
class Source:
    """An opened source: its root, its paths as they are read, and what was left out so far.

    is_stream: a pipe, whose writer may take long for the next path; nothing is read from it before it is needed.
    is_list: its paths were written by somebody, and are relative to a root that can be chosen.
    hint: what to say where there are no paths.
    is_walked: its paths are those of files that were found in folders.
    """

    text: str  # as the operator wrote it
    root: str  # absolute
    paths: Iterator[str]
    skipped: Counter[str] = field(default_factory=Counter)
    is_stream: bool = False
    is_list: bool = False
    hint: str = ""
    is_walked: bool = False

    def peek(self, count: int = 1) -> list[str]:
        """The first paths, up to `count`; `paths` still yields them."""
        first = list(islice(self.paths, count))
        self.paths = chain(first, self.paths)
        return first


def open_source(text: str, options: SourceOptions, *, stdin: IO[bytes] | None = None) -> Source:
    """Open the source that the operator named; standard input is not read yet.

    Raises NotFoundError where there is no such file or folder, UsageError where it holds neither images nor paths.
    """
    path = Path(text)
    if text == "-":
        root = _list_root(options, Path.cwd())
        paths = _inside_first(_list_paths(read_paths(stdin or sys.stdin.buffer, text), root), root)
        return Source(text, root, paths, is_stream=True, is_list=True)
    suffix = path.suffix.lower()
    is_file = os.path.isfile(text)  # noqa: PTH113 pathlib raises for names that are too long and folders that cannot be searched
    if is_file and suffix in LIST_EXTENSIONS:
        source = _open_text(text, options) if suffix in TEXT_EXTENSIONS else _open_table(text, options)
        source.peek()  # so that a file that is not a list fails here
        return source
    if options.root is not None:
        raise UsageError(f"--root {str(options.root)!r} needs a list of paths, and {text!r} is not one")
    if os.path.isdir(text):  # noqa: PTH112
        return _open_folder(text, path, options)
    if is_file and (suffix in IMAGE_EXTENSIONS or options.all_files):
        return Source(text, str(_absolute(path.parent)), iter([path.name]))
    if is_file and is_archive(path.name):
        raise UsageError(f"{text!r} is an archive, which is not read; unpack it, and give the folder")
    if os.path.exists(text):  # noqa: PTH110
        raise UsageError(
            f"{text!r} is neither a folder nor an image nor a list of paths ({', '.join(sorted(LIST_EXTENSIONS))})"
        )
    if _GLOB.search(text):
        return _open_glob(text, options)
    raise _not_found(text)


def _not_found(text: str) -> NotFoundError:
    root = "/" if text.startswith("/") else ""
    form = other_unicode_form(root, text.removeprefix(root))
    there = f", but {root + form!a} in another Unicode form (for {text!a})" if form else ""
    return NotFoundError(
        f"there is no {text!r}{there}; give a folder, a list file, a quoted glob, or - for standard input"
    )


# Folders and globs


def _open_folder(text: str, folder: Path, options: SourceOptions) -> Source:
    """Every image below a folder."""
    source = Source(text, str(_absolute(folder)), iter(()), is_walked=True)
    source.paths = Walk(source.root, source.skipped, options).run()
    return source


def _open_glob(text: str, options: SourceOptions) -> Source:
    """Every image that a pattern matches; `**` stands for any number of folders.

    Leading folders that exist under the very name are no wildcards, whatever characters they have.
    """
    parts = Path(text).parts
    fixed = 0
    while fixed < len(parts) - 1 and (not _GLOB.search(parts[fixed]) or Path(*parts[: fixed + 1]).is_dir()):
        fixed += 1
    if not any(map(_GLOB.search, parts[fixed:])):
        raise _not_found(text)
    root, pattern = Path(*parts[:fixed]), _pattern(parts[fixed:])
    hint = "; [ and ] are wildcards: write [[] for a [ in a name" if "[" in "".join(parts[fixed:]) else ""
    if not root.is_dir():
        raise NotFoundError(f"there is no folder {str(root)!r} for the glob {text!r}{hint}")
    source = Source(text, str(_absolute(root)), iter(()), hint=hint, is_walked=True)
    walk = Walk(
        source.root,
        source.skipped,
        options,
        wanted=lambda path: _matches(path, pattern),
        descend=lambda path: _leads_to_a_match(path, pattern),
    )
    source.paths = walk.run()
    return source


def finds(text: str, root: str, place: tuple[str, ...], *, walked: bool) -> bool:
    """Whether a source would find a file at a place, or look into a folder there, if it was read again.

    text: as the operator wrote it, from whatever folder. place: the parts of a path below the root. walked: whether its
    paths were found by reading folders; those of a list, and an image, were named one by one.
    """
    parts, above = tuple(part for part in Path(text).parts if part != ".."), Path(root).parts
    fixed = max((num for num in range(1, len(parts) + 1) if above[-num:] == parts[:num]), default=0)
    if not fixed:  # the root is where a link leads that was named with `..` before it
        fixed = next((num for num, part in enumerate(parts) if _GLOB.search(part)), 0)
    if any(map(_GLOB.search, parts[fixed:])):
        pattern = _pattern(parts[fixed:])
        return _matches(place, pattern) or _leads_to_a_match(place, pattern)
    return walked or (text != "-" and Path(text).suffix.lower() not in LIST_EXTENSIONS | IMAGE_EXTENSIONS)


Pattern = tuple[re.Pattern[str] | None, ...]  # a glob's parts; None is `**`


def _pattern(parts: tuple[str, ...]) -> Pattern:
    return tuple(None if part == "**" else re.compile(translate(part)) for part in parts)


def _matches(parts: tuple[str, ...], pattern: Pattern) -> bool:
    if not pattern:
        return not parts
    first = pattern[0]
    if first is None:
        return any(_matches(parts[skip:], pattern[1:]) for skip in range(len(parts) + 1))
    return bool(parts) and bool(first.match(parts[0])) and _matches(parts[1:], pattern[1:])


def _leads_to_a_match(parts: tuple[str, ...], pattern: Pattern) -> bool:
    """Whether something below the folder with these parts could match."""
    for index, part in enumerate(parts):
        if index == len(pattern):
            return False
        wanted = pattern[index]
        if wanted is None:
            return True
        if not wanted.match(part):
            return False
    return len(parts) < len(pattern)


# Lists


def _open_text(text: str, options: SourceOptions) -> Source:
    """A list of nothing but paths, relative to its folder."""
    root = _list_root(options, Path(text).parent)
    return Source(text, root, _list_paths(read_paths(_open_file(text), text), root), is_list=True)


def _open_table(text: str, options: SourceOptions) -> Source:
    """A list with columns, or a manifest, whose paths are relative to the root of its job."""
    path = Path(text)
    try:
        opened = open_list_file(path, frozenset({"path"}))
        default, _ = manifest_root(path) if opened.is_manifest else (path.parent, False)
    except DataError as err:
        raise UsageError(str(err)) from err
    if options.root is None and not default.is_dir():
        raise NotFoundError(
            f"{str(default)!r}, the root that {summary_of(path).name!r} names, is not a folder; choose one with --root"
        )
    root = _list_root(options, default)
    return Source(text, root, _list_paths((fields["path"] for _, fields in opened.rows), root), is_list=True)


def _list_root(options: SourceOptions, default: Path) -> str:
    """The folder that the paths of a list are relative to."""
    root = _absolute(options.root or default)
    if not root.is_dir():
        raise NotFoundError(f"--root {str(root)!r} is not a folder")
    return str(root)


def _list_paths(given: Iterator[str], root: str) -> Iterator[str]:
    """Paths relative to the root. Raises UsageError where the list cannot be read further."""
    below = BelowRoot(root)
    try:
        for path in given:
            yield below.relative(path)
    except DataError as err:
        raise UsageError(str(err)) from err


def _inside_first(paths: Iterator[str], root: str) -> Iterator[str]:
    """The paths of a stream, which is not looked at before the job.

    Raises UsageError where the first one is outside the root, so another root is needed.
    """
    first = next(paths, "")
    if first.startswith("/"):
        raise UsageError(f"the list's first path {first!r} is outside its root {root!r}; choose another with --root")
    if first:
        yield first
    yield from paths


def _open_file(text: str) -> IO[bytes]:
    try:
        return open(text, "rb")
    except OSError as err:
        raise UsageError(f"cannot read the list {text!r}: {explain_os_error(err)}") from err


def _absolute(path: Path) -> Path:
    """The absolute path, with links kept as the operator names them, unless `..` may follow a link."""
    return Path(os.path.realpath(path)) if ".." in path.parts else Path.cwd() / path
