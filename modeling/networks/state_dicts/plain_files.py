"""Regular files: nothing here waits at a pipe, opens a device, or leaves a folder through a link; needs no torch."""

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterable
from io import BufferedReader
from pathlib import Path

from modeling.errors import ModelFormatError, ModelingError

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}
INDEX_SUFFIX = ".index.json"  # of the files that say in which shard a tensor is
SUFFIXES = {".safetensors", ".pt", ".pth", ".bin", ".ckpt"}
_NUM_SHOWN = 8


def open_plain(path: Path, *, error: type[ModelingError] = ModelFormatError) -> BufferedReader:
    """The regular file `path`, open for reading.

    Raises:
        error: it is not a regular file, or cannot be opened.
    """
    try:
        _check_kind(path, path.stat().st_mode, error)  # before it is opened: opening alone can change a device
        # Without waiting for the writer of a pipe that has taken the file's place since.
        file = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY), "rb")  # noqa: SIM115 the caller closes it
    except OSError as err:
        raise error(f"{path}: cannot be read ({err.strerror or err})") from err
    try:
        _check_kind(path, os.fstat(file.fileno()).st_mode, error)
    except error:
        file.close()
        raise
    return file


def _check_kind(path: Path, mode: int, error: type[ModelingError]) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise error(f"{path} is {kind}, not a regular file; write its content to a file, and name that")


def read_plain(path: Path, max_bytes: int, *, error: type[ModelingError] = ModelFormatError) -> bytes:
    """The content of a regular file of at most `max_bytes`.

    Raises:
        error: it is larger, is not a regular file, or cannot be read.
    """
    with open_plain(path, error=error) as file:
        try:
            data = file.read(max_bytes + 1)
        except OSError as err:
            raise error(f"{path}: cannot be read ({err.strerror})") from err
    if len(data) > max_bytes:
        raise error(f"{path} is larger than {_megabytes(max_bytes)}, which no such file is")
    return data


def file_sha256(path: Path) -> str:
    """Hex digest of a regular file.

    Raises:
        ModelFormatError: it is not a regular file, or cannot be read.
    """
    with open_plain(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def path_inside(folder: Path, name: str) -> Path:
    """The entry `name` of a folder, its links resolved.

    Raises:
        ModelFormatError: the name, or a link, leads out of the folder.
    """
    root = os.path.realpath(folder)
    try:
        path = os.path.realpath(Path(root, name))
    except ValueError as err:  # a zero byte, or a lone surrogate
        raise ModelFormatError(f"{folder}: no file can have the name {name!a}") from err
    if os.path.commonpath([root, path]) != root:
        raise ModelFormatError(
            f"{name!r} leads out of the folder {folder}, to {path}, and is not followed; put the file itself there"
        )
    return Path(path)


def copy_plain(source: Path, target: Path, max_bytes: int) -> None:
    """Copy a regular file of at most `max_bytes` to `target`.

    Raises:
        ModelFormatError: it is larger, is not a regular file, or cannot be read.
    """
    with open_plain(source) as file, target.open("wb") as copy:
        size_bytes = os.fstat(file.fileno()).st_size
        if size_bytes > max_bytes:
            raise ModelFormatError(
                f"{source} has {_megabytes(size_bytes)}; at most {_megabytes(max_bytes)} belong to such a model"
            )
        shutil.copyfileobj(file, copy, 1 << 20)


def weights_file(folder: Path) -> Path:
    """The file of weights in a folder: the index of its shards, or the only one.

    Raises:
        ModelFormatError: there is none, or there are several; the message lists them.
    """
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError as err:
        raise ModelFormatError(f"{folder}: cannot be read ({err.strerror})") from err
    found = [name for name in names if name.endswith(INDEX_SUFFIX)]
    found = found or [name for name in names if Path(name).suffix in SUFFIXES]
    safetensors_files = [name for name in found if ".safetensors" in name]
    if len(found) > 1 and len(safetensors_files) == 1:
        found = safetensors_files  # the same weights in an older format are often beside them
    if len(found) != 1:
        what = f"several files of weights, {few(found)}; name one" if found else "no model.json and no file of weights"
        raise ModelFormatError(f"{folder} has {what}")
    return path_inside(folder, found[0])


def few(names: Iterable[str]) -> str:
    """The first of some names, and how many there are besides."""
    names = list(names)
    shown = ", ".join(json.dumps(name, ensure_ascii=False)[1:-1] for name in names[:_NUM_SHOWN])
    return shown + (f" and {len(names) - _NUM_SHOWN} more" if len(names) > _NUM_SHOWN else "")


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.1f} MB"
