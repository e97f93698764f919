"""One line about many paths that fail for one reason: why, an example, and what cures it."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from unicodedata import normalize

from modeling.data.lists.faults import (
    MISSING,
    NOT_A_FILE,
    OUTSIDE,
    PERMISSION,
    PREFIXED,
    Cause,
    PathRoot,
    exists,
    find_cause,
    is_file,
)

_CODES = (MISSING, OUTSIDE, PERMISSION, NOT_A_FILE)
_EXAMINED = 20  # paths
_SUBFOLDERS = 100  # that are tried as a root


def common_code(root: PathRoot, paths: Sequence[str]) -> str | None:
    """The code with which all of these paths fail; None where one does not, or where they fail in several ways."""
    first = root.code(paths[0]) if paths else None
    return first if first in _CODES and all(root.code(path) == first for path in paths[1:]) else None


def advise(root: PathRoot, paths: Sequence[str], code: str, beside: Sequence[str], choose_root: str) -> str:
    """Why most of these paths, which all fail with `code`, do so, and what to do.

    beside: folders that they may be relative to instead. choose_root: how the operator chooses `{root!r}`.
    """
    examined = paths[:: max(1, len(paths) // _EXAMINED)][:_EXAMINED]
    causes = [find_cause(root, path, code) for path in examined]
    [(because, _)] = Counter(cause.because for cause in causes).most_common(1)
    path, cause = next(pair for pair in zip(examined, causes, strict=True) if pair[1].because == because)
    better = _better_root(root, examined, beside) if code in (MISSING, OUTSIDE) and _may_be_elsewhere(cause) else None
    if better is not None:
        example = os.path.join(better, path)  # noqa: PTH118
        return f"they are relative to another folder ({example!r} is there); {choose_root.format(root=better)}"
    example = _example(root, path, cause.there)
    return f"{because} ({example}); {cause.cure or _last_advice(root, path, code)}"


def _may_be_elsewhere(cause: Cause) -> bool:
    """Whether no better cause than the root is known."""
    return not cause.cure or cause.because == PREFIXED


def _example(root: PathRoot, path: str, there: str) -> str:
    if there:
        show = ascii if normalize("NFC", path) == normalize("NFC", there) else repr  # else both would look the same
        return f"{show(path)} is there as {show(there)}"
    full = root.full(path)
    return f"{path!r} leads to {str(Path(full).readlink())!r}" if _is_link(full) else f"such as {path!r}"


def _is_link(full: str) -> bool:
    try:
        return os.path.islink(full)  # noqa: PTH114
    except ValueError:
        return False


def _last_advice(root: PathRoot, path: str, code: str) -> str:
    if code == OUTSIDE and exists(root.full(path)):
        return f"write them without .., relative to a folder that holds them all (now {root.folder!r})"
    return f"they are looked for below {root.folder!r}"


def _better_root(root: PathRoot, paths: Sequence[str], beside: Sequence[str]) -> str | None:
    """A folder below which most of these paths are files; None where none is known."""
    if all(map(os.path.isabs, paths)):
        there = [path for path in paths if is_file(path)]
        common = os.path.commonpath([os.path.dirname(os.path.normpath(path)) for path in there]) if there else None  # noqa: PTH120
        return common if common and 2 * len(there) >= len(paths) else None
    for folder in dict.fromkeys([*beside, *_above(root.folder), *_below(root.folder)]):
        other = PathRoot(folder, follow=True)
        if folder != root.folder and 2 * sum(other.code(path) is None for path in paths) >= len(paths):
            return folder
    return None


def _above(folder: str) -> Iterator[str]:
    return map(str, Path(folder).parents)


def _below(folder: str) -> Iterator[str]:
    """Folders in `folder`, of many the first that the system names."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.path for _, entry in zip(range(1000), entries, strict=False) if entry.is_dir()]
    except OSError:
        return iter(())
    return iter(sorted(names)[:_SUBFOLDERS])
