"""Published models: immutable versions under `<root>/<name>/<version>/`, each whole or not there at all."""

import difflib
import errno
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from modeling.card import CARD_FILE, WEIGHTS_FILE, ModelCard
from modeling.errors import ModelFormatError, ModelNameError, ModelNotFoundError

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")
_TAKEN = {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One published version. `digest` is the sha256 of its card, which holds that of the weights."""

    name: str
    version: int
    digest: str
    path: Path

    @property
    def ref(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"


Versions = list[ModelVersion]  # a name for it: inside ModelStore, `list` is the method


def check_model_name(name: str) -> str:
    """The name itself.

    Raises:
        ModelNameError: not lower-case letters, digits, dots, dashes and underscores, or too long.
    """
    if not _NAME.fullmatch(name):
        raise ModelNameError(f"model name {name!r} must be 1 to 100 of a-z 0-9 . _ - and begin with a letter or digit")
    return name


class ModelStore:
    """The models under one root folder, which many machines may share."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def resolve(self, ref: str) -> ModelVersion:
        """The version that `name`, `name@latest` or `name@2` means.

        Raises:
            ModelNameError: not a well-formed reference.
            ModelNotFoundError: no such name or version; lists what there is.
        """
        name, _, wanted = ref.partition("@")
        check_model_name(name)
        if "@" in ref and wanted != "latest" and not _VERSION.fullmatch(wanted):
            raise ModelNameError(f"model version {wanted!r} in {ref!r} must be a number or 'latest'")
        versions = self._versions(name)
        if not versions:
            raise ModelNotFoundError(self._unknown_name(name))
        if wanted in ("", "latest"):
            return versions[-1]
        for version in versions:
            if version.version == int(wanted):
                return version
        known = ", ".join(str(version.version) for version in versions)
        raise ModelNotFoundError(f"no model {ref!r}; versions of {name!r}: {known}")

    def list(self) -> Versions:
        """Every published version, by name and number; anything else in the root is passed over."""
        return [version for name in self._names() for version in self._versions(name)]

    def card(self, ref: str) -> ModelCard:
        """The card of a version.

        Raises:
            ModelNotFoundError: no such version.
            ModelFormatError: a damaged card, or one of an unknown format.
        """
        path = self.resolve(ref).path / CARD_FILE
        return ModelCard.from_bytes(path.read_bytes(), path)

    def publish(self, staged: Path, name: str) -> ModelVersion:
        """Copy the model in folder `staged` to the next free version of `name`, whole or not at all.

        A model whose digest is published under that name already keeps its number: twice is harmless.

        Raises:
            ModelNameError: a bad name.
            ModelFormatError: `staged` holds no whole model.
        """
        digest = _checked_digest(staged)
        folder = self.root / check_model_name(name)
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / ".lock"):
            for version in self._versions(name):
                if version.digest == digest:
                    return version
            copy = Path(tempfile.mkdtemp(prefix=".publishing-", dir=folder))
            try:
                _copy_durably(staged, copy)
                number = _move_to_next_number(copy, folder)
            finally:
                shutil.rmtree(copy, ignore_errors=True)
        return ModelVersion(name, number, digest, folder / str(number))

    def _names(self) -> Sequence[str]:
        if not self.root.is_dir():
            return []
        return sorted(entry.name for entry in self.root.iterdir() if _NAME.fullmatch(entry.name))

    def _versions(self, name: str) -> Versions:
        """Versions of `name` in the order of their numbers."""
        found = []
        for number in _numbers(self.root / name):
            path = self.root / name / str(number)
            try:
                card = (path / CARD_FILE).read_bytes()
            except OSError:
                continue
            if (path / WEIGHTS_FILE).is_file():
                found.append(ModelVersion(name, number, hashlib.sha256(card).hexdigest(), path))
        return found

    def _unknown_name(self, name: str) -> str:
        names = [known for known in self._names() if self._versions(known)]
        if not names:
            return f"no model {name!r}: none is published yet; train one with --name {name}"
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
        return f"no model {name!r}; {hint}published: {shown}"


def _numbers(folder: Path) -> list[int]:
    """Every entry of a model's folder that is named like a version, ascending."""
    try:
        return sorted(int(entry) for entry in os.listdir(folder) if _VERSION.fullmatch(entry))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _checked_digest(staged: Path) -> str:
    """Digest of a staged model whose weights are those that its card names."""
    try:
        card_bytes = (staged / CARD_FILE).read_bytes()
        with open(staged / WEIGHTS_FILE, "rb") as weights:
            weights_sha256 = hashlib.file_digest(weights, "sha256").hexdigest()
    except OSError as err:
        raise ModelFormatError(f"{staged}: no whole model to publish ({err})") from err
    card = ModelCard.from_bytes(card_bytes, staged / CARD_FILE)
    if card.weights_sha256 != weights_sha256:
        raise ModelFormatError(f"{staged}: the weights' sha256 is {weights_sha256}, not {card.weights_sha256}")
    return hashlib.sha256(card_bytes).hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the file's lock, so that publishers on one machine go one after another."""
    with open(path, "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _copy_durably(source: Path, target: Path) -> None:
    """Copy a folder's files and see them on disk before the folder gets its name."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    target.chmod(0o755)  # mkdtemp keeps others out
    for path in (*target.rglob("*"), target):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _move_to_next_number(copy: Path, folder: Path) -> int:
    """Rename `copy` to the next free number; a publisher on another machine may take it first."""
    while True:
        number = max(_numbers(folder), default=0) + 1
        try:
            copy.rename(folder / str(number))
        except OSError as err:
            if err.errno not in _TAKEN:
                raise
            continue
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return number
