"""The images of a folder, found by reading it and the folders below it."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from modeling.errors import trouble_of
from modeling.images.formats import IMAGE_EXTENSIONS
from modeling.names import is_junk
from orchestrator.contract.access import explain_os_error
from orchestrator.contract.errors import UsageError
from orchestrator.jobs.skipped import count_file


@dataclass(frozen=True)
class SourceOptions:
    """How a source is read."""

    recursive: bool = True
    follow_symlinks: bool = False
    all_files: bool = False  # also files without the extension of an image
    root: Path | None = None  # of a list; default: the list's folder, or the current one for standard input


@dataclass(frozen=True)
class _Folder:
    """A folder to descend into: its path below the root, and the real paths down to it, which show circular links."""

    parts: tuple[str, ...]
    ancestors: tuple[str, ...]


def _is_image_file(name: str) -> bool:
    """Whether a file has an image's extension, and is not hidden; what systems leave behind has none."""
    return name[name.rfind(".") :].lower() in IMAGE_EXTENSIONS and name[0] != "."


class Walk:
    """A walk over the folder `root` in the order of names; the names of one folder are in memory at a time.

    skipped: counts what is left out, by reason.
    wanted, descend: of a glob: whether a path below the root is one of its images, or leads to some. Without them every
        image counts.
    """

    def __init__(
        self,
        root: str,
        skipped: Counter[str],
        options: SourceOptions,
        *,
        wanted: Callable[[tuple[str, ...]], bool] | None = None,
        descend: Callable[[tuple[str, ...]], bool] | None = None,
    ) -> None:
        self._root = root
        self._skipped = skipped
        self._options = options
        self._every_image = wanted is None
        self._wanted = wanted or (lambda parts: True)
        self._descend = descend or (lambda parts: options.recursive)

    def run(self) -> Iterator[str]:
        """Paths of images, relative to the root. Raises UsageError where a folder cannot be listed."""
        real = os.path.realpath(self._root)
        waiting = [self._entries(_Folder((), (real,)))]  # a stack, not recursion: folders may be nested a thousand deep
        while waiting:
            for found in waiting[-1]:
                if isinstance(found, str):
                    yield found
                else:
                    waiting.append(self._entries(found))
                    break
            else:
                waiting.pop()

    def _entries(self, folder: _Folder) -> "Iterator[str | _Folder]":
        """The images of one folder and the folders in it to descend into, in the order of names."""
        path = os.path.join(self._root, *folder.parts)  # noqa: PTH118 names are kept as the system gives them
        try:
            with os.scandir(path) as entries:
                found = list(entries)
            others = {entry.name: entry for entry in found if not entry.is_file(follow_symlinks=False)}
        except OSError as err:
            if not folder.parts or trouble_of(err) is not None:  # the storage's or this machine's, not the folder's
                raise UsageError(f"cannot list {path!r}: {explain_os_error(err) or err}") from err
            yield "/".join(folder.parts)  # the worker says why, so that the images in it are not dropped silently
            return
        above = "".join([f"{part}/" for part in folder.parts])
        for name in sorted([entry.name for entry in found]):
            if self._every_image and name not in others and _is_image_file(name):
                yield above + name  # nearly every file: a million of them take a second
                continue
            is_folder = name in others and others[name].is_dir(follow_symlinks=False)
            is_link = name in others and others[name].is_symlink()
            parts = (*folder.parts, name)
            if name.startswith("."):
                self._skipped["hidden folder" if is_folder else "hidden"] += 1
            elif is_junk(name):
                if self._descend(parts) if is_folder else self._wanted(parts):
                    self._skipped["system folder" if is_folder else "system file"] += 1
            elif is_folder:
                real = os.path.join(folder.ancestors[-1], name)  # noqa: PTH118
                yield from self._below(parts, real, folder.ancestors)
            elif is_link and os.path.isdir(os.path.join(path, name)):  # noqa: PTH112, PTH118
                yield from self._linked_folder(parts, folder.ancestors)
            else:
                yield from self._file(parts)

    def _below(self, parts: tuple[str, ...], real: str, ancestors: tuple[str, ...]) -> Iterator[_Folder]:
        """A folder to descend into; without `recursive`, it is counted instead."""
        if self._descend(parts):
            yield _Folder(parts, (*ancestors, real))
        elif not self._options.recursive:
            self._skipped["subfolder"] += 1

    def _linked_folder(self, parts: tuple[str, ...], ancestors: tuple[str, ...]) -> "Iterator[str | _Folder]":
        """A symlink to a folder: followed if allowed; else it is a row, or counted if it stays inside the root."""
        real = os.path.realpath(os.path.join(self._root, *parts))  # noqa: PTH118
        if self._options.follow_symlinks:
            if real in ancestors:
                self._skipped["circular link"] += 1
            else:
                yield from self._below(parts, real, ancestors)
        elif real == ancestors[0] or real.startswith(ancestors[0].rstrip("/") + "/"):
            self._skipped["link to a folder of the source"] += 1
        elif not self._options.recursive:
            self._skipped["subfolder"] += 1
        elif self._wanted(parts) or self._descend(parts):
            yield "/".join(parts)  # the worker reports outside_root, so that the images in it are not dropped silently

    def _file(self, path: tuple[str, ...]) -> Iterator[str]:
        if not self._wanted(path):
            return
        suffix = os.path.splitext(path[-1])[1].lower()  # noqa: PTH122
        if suffix in IMAGE_EXTENSIONS or self._options.all_files:
            yield "/".join(path)
        else:
            count_file(self._skipped, path[-1], suffix)
