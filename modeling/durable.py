"""Files: written so that they outlive a power cut and are seen whole or not at all; JSON, read strictly."""

import contextlib
import errno
import functools
import json
import os
import reprlib
import secrets
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import IO, Annotated, Any, Self, TypeVar, cast

from pydantic import AfterValidator, ConfigDict, TypeAdapter, ValidationError, WrapValidator

from modeling.errors import ModelFormatError, ModelingError
from modeling.names import path_to_text, text_to_path

# What file systems without hard links answer to link(2): some FUSE and SMB mounts.
_NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}

# What file systems that cannot sync a folder answer to fsync(2): some FUSE and network mounts.
_NO_FOLDER_SYNC = {errno.EINVAL, errno.EOPNOTSUPP}

# Syncing


def sync(path: str | Path) -> None:
    """Wait until a file's content, or the names in a folder, are on the disk; names as far as the file system can."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as err:
        if err.errno not in _NO_FOLDER_SYNC or not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise
    finally:
        os.close(descriptor)


def sync_file(file: IO[bytes]) -> None:
    """Wait until all that was written to an open file is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_tree(folder: Path) -> None:
    """Wait until all that lies in a folder is on the disk."""
    for inner, _, files in os.walk(folder):
        for name in files:
            sync(Path(inner, name))
        sync(Path(inner))


# Files


def target_of(path: Path) -> Path:
    """Where an operator's output really goes: what a link names is replaced, also on another disk, and the link stays.

    Raises:
        OSError: the link leads back to itself.
    """
    if not path.is_symlink():
        return path
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return target


@contextlib.contextmanager
def temporary_beside(path: Path, *, mode: int | None = None) -> Iterator[Path]:
    """An empty file in the folder of `path`, hidden, and removed at the end if it is still there.

    mode: None: as readable as the process's umask makes any new file.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666 if mode is None else 0o600)
    try:
        try:
            if mode is not None:
                os.fchmod(descriptor, mode)
        finally:
            os.close(descriptor)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def private_mode(folder: Path) -> int:
    """The mode of a file that its owner alone may read, and the group where the folder is shared with it."""
    return 0o660 if folder.stat().st_mode & stat.S_IWGRP else 0o600


def published_mode(parent: Path) -> int:
    """The mode of a folder in `parent` that others may read; they may change it where a group shares `parent`."""
    mode = stat.S_IMODE(parent.stat().st_mode)
    shared = stat.S_ISGID | stat.S_IWGRP
    return mode & ~(stat.S_ISVTX | stat.S_IWOTH) if mode & shared == shared else 0o755


def write_durable(path: Path, data: bytes) -> None:
    """Write `data` to `path` and wait until it is on the disk."""
    with path.open("wb") as file:
        file.write(data)
        sync_file(file)


@contextlib.contextmanager
def replaced_durably(path: Path, *, mode: int | None = 0o644) -> Iterator[IO[bytes]]:
    """A file to write to, which takes the place of `path` at the end; on the disk then. A failure changes nothing.

    mode: None: as the process's umask has it.
    """
    path = target_of(path)
    with temporary_beside(path, mode=mode) as temporary:
        with temporary.open("wb") as file:
            yield file
            sync_file(file)
        temporary.replace(path)
    sync(path.parent)


def replace_durably(path: Path, data: bytes, *, mode: int | None = 0o644) -> None:
    """Put `data` in the place of file `path`, on the disk when this returns; mode: as `replaced_durably` has it."""
    with replaced_durably(path, mode=mode) as file:
        file.write(data)


def rename_answered(source: Path, target: Path) -> None:
    """Rename a file or folder. Where a network lost the answer, its repetition says that nothing is there any more."""
    before = source.stat()
    try:
        source.rename(target)
    except FileNotFoundError:
        if not (target.exists() and os.path.samestat(before, target.stat())):
            raise


def link_once(temporary: Path, path: Path) -> bool:
    """Give the finished file `temporary` its name `path`; the first writer wins.

    Returns False where `path` exists already; nothing is changed then. Where the file system knows
    no hard links the name is checked, then taken by rename.
    """
    try:
        os.link(temporary, path)
    except OSError as err:
        if err.errno in _NO_HARD_LINKS:
            if path.exists():
                return False
            temporary.rename(path)
        # NFS may lose the answer to a link that was made, and ask again. The link count does not say whether it did:
        # somebody else may have linked the file before.
        elif not path.exists() or not temporary.samefile(path):
            if isinstance(err, FileExistsError):
                return False
            raise
    sync(path.parent)
    return True


# Folders


@contextlib.contextmanager
def staging_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A fresh folder in `parent`, for its owner or the group that shares `parent`; what is left is removed."""
    staging = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        if (mode := published_mode(parent)) & stat.S_IWGRP:
            staging.chmod(mode)
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextlib.contextmanager
def replaced_folder(output: Path) -> Iterator[Path]:
    """An empty folder to fill, which takes the place of `output` at the end; others may read it then.

    Nothing happens to `output` where the block raises.
    """
    output = target_of(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    with staging_folder(output.parent, f".{output.name}-") as staging:
        yield staging
        staging.chmod(published_mode(output.parent))
        sync_tree(staging)
        if output.exists():
            shutil.rmtree(output)
        rename_answered(staging, output)
        sync(output.parent)


@contextlib.contextmanager
def published_output(output: Path) -> Iterator[Path]:
    """A name in a fresh folder beside `output`, to write a file or a folder to; afterwards it becomes `output`.

    Nothing appears at `output` where the block raises.

    Raises:
        ModelingError: something is there already, or it cannot be written to.
    """
    if output.exists():
        raise ModelingError(f"output {output} exists; name one that does not")
    with contextlib.ExitStack() as stack:
        try:
            output = target_of(output)
            output.parent.mkdir(parents=True, exist_ok=True)
            staging = stack.enter_context(staging_folder(output.parent, f".{output.name}-"))
        except OSError as err:
            raise ModelingError(f"output {output} cannot be written ({err.strerror}); name another place") from err
        written = staging / output.name
        yield written
        written.chmod(published_mode(output.parent) if written.is_dir() else 0o644)
        sync_tree(staging)
        rename_answered(written, output)
        sync(output.parent)


def copy_durably(source: Path, target: Path) -> None:
    """Copy what lies in folder `source` into the empty folder `target`, on the disk when this returns.

    Others may read the copies; links are copied as links, never followed.
    """
    for inner, folders, files in os.walk(source):
        copied = target / Path(inner).relative_to(source)
        for name in folders:
            (copied / name).mkdir()
        for name in files:
            shutil.copyfile(Path(inner, name), copied / name, follow_symlinks=False)
            sync(copied / name)
        copied.chmod(published_mode(copied.parent))
        sync(copied)


# JSON

T = TypeVar("T")


def _unchanged(value: object, check: Callable[[object], object]) -> object:
    check(value)
    return value


STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)  # `__pydantic_config__` of what `validated` makes
Number = Annotated[float, WrapValidator(_unchanged)]  # 1 stays 1: what is written again has the same bytes
PathText = Annotated[Path, AfterValidator(lambda path: Path(text_to_path(str(path))))]  # see modeling.names


def decode_json(data: bytes | str, what: str, *, error: type[Exception] = ModelFormatError) -> Any:
    """The value in a text of JSON, called `what` in errors.

    Raises:
        error: not JSON.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as err:
        raise error(f"{what}: not JSON ({err})") from err


def validated(
    kind: type[T], value: Any, what: str = "", *, error: type[Exception] = ModelFormatError, whole: bool = True
) -> T:
    """Make a `kind`, often a dataclass with the config STRICT, of decoded JSON.

    what: it is called in errors. whole: fields with a default must be there, too.

    Raises:
        error: types or ranges that do not fit; keys unknown or missing. One line.
    """
    prefix = f"{what}: " if what else ""
    try:
        made: T = _adapter(cast(Any, kind)).validate_json(json.dumps(value, default=_text_of))  # so lists become tuples
    except ValidationError as err:
        raise error(prefix + complaint(err)) from err
    except RecursionError as err:
        raise error(f"{prefix}too many levels") from err
    if whole and (missing := next(_missing(made, value), None)):
        raise error(f"{prefix}{missing}: the key is missing")
    return made


class JsonRequest:
    """Base of a frozen dataclass of paths and plain values, with the config STRICT, that another process gets."""

    __slots__ = ()

    def to_json(self) -> dict[str, Any]:
        """A dict that JSON can hold."""
        return {name: _plain(value) for name, value in asdict(cast(Any, self)).items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The reverse of `to_json`; keys with a default may be left out.

        Raises:
            ModelingError: unknown or missing keys, or values that do not fit.
        """
        return validated(cls, value, error=ModelingError, whole=False)


def _plain(value: Any) -> Any:
    """A field of a request as JSON holds it."""
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return path_to_text(str(value)) if isinstance(value, Path) else value


def _text_of(path: os.PathLike[str]) -> str:
    return path_to_text(os.fspath(path))


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def complaint(err: ValidationError) -> str:
    """The first thing that is wrong, and where."""
    first = err.errors(include_url=False)[0]
    unknown = dict.fromkeys(("unexpected_keyword_argument", "extra_forbidden"), "the key is unknown")
    words = {"missing": "the key is missing"} | unknown
    where = ".".join(str(part) for part in first["loc"] if "[" not in str(part))  # not the validators of a union
    if first["type"] == "value_error":
        problem = str(first["ctx"]["error"])  # a check of ours says the value itself
    else:
        problem = words.get(first["type"]) or f"{first['msg']}, not {reprlib.repr(first['input'])}"
    return f"{where}: {problem}" if where else problem


def _missing(made: object, value: Any, place: str = "") -> Iterator[str]:
    """The fields of dataclasses within `made` for which `value` has no key."""
    if is_dataclass(made):
        for field in fields(made):
            if field.name not in value:
                yield place + field.name
            else:
                yield from _missing(getattr(made, field.name), value[field.name], f"{place}{field.name}.")
