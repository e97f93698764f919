"""Published models: immutable versions under `<root>/<name>/<version>/`, each whole or not there at all.

Beside the versions lie their aliases (`aliases.py`) and what removed ones leave (`version_folder.py`).
"""

import difflib
import hashlib
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from modeling.durable import check_plain, copy_durably, staging_folder
from modeling.errors import ModelFormatError, ModelInUseError, ModelNameError, ModelNotFoundError
from modeling.registry.aliases import LATEST, check_alias, is_alias, read_aliases, write_aliases
from modeling.registry.card import CARD_FILE, WEIGHTS_FILE, ModelCard
from modeling.registry.version_folder import bury, is_number, locked, removed_numbers, take_next_number, version_numbers

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One published version. `digest` is the sha256 of its card, which holds that of the weights."""

    name: str
    version: int
    digest: str
    path: Path

    @classmethod
    def at(cls, path: Path) -> Self:
        """The version in folder `path` of a store; a model elsewhere has its folder's name and the version 0.

        Raises:
            ModelFormatError: its card cannot be read.
        """
        try:
            digest = hashlib.sha256((path / CARD_FILE).read_bytes()).hexdigest()
        except OSError as err:
            raise ModelFormatError(f"{path / CARD_FILE}: cannot be read ({err.strerror})") from err
        if is_number(path.name):
            return cls(path.parent.name, int(path.name), digest, path)
        return cls(path.name, 0, digest, path)

    @property
    def ref(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"

    @property
    def artifacts(self) -> Path:
        """Folder of what is built from this version for some hardware; beside it, and safe to delete at any time."""
        return self.path.parent / ".engines" / self.digest[:16]

    def card(self) -> ModelCard:
        """What is known of the model.

        Raises:
            ModelFormatError: a damaged card, or one of an unknown format.
        """
        path = self.path / CARD_FILE
        return ModelCard.from_bytes(path.read_bytes(), path)

    def created(self) -> datetime:
        """When it was published, in UTC."""
        return datetime.fromtimestamp((self.path / CARD_FILE).stat().st_mtime, UTC)

    def files(self) -> tuple[Path, ...]:
        """Its files, relative to `path`, by name; card and weights are always among them."""
        return tuple(sorted(path.relative_to(self.path) for path in self.path.rglob("*") if not path.is_dir()))

    def size_bytes(self) -> int:
        """Size of all its files together."""
        return sum((self.path / file).lstat().st_size for file in self.files())


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
        """The version that `name`, `name@latest`, `name@2` or `name@champion` (an alias) means.

        Raises:
            ModelNameError: not a well-formed reference.
            ModelNotFoundError: no such name, version or alias; lists what there is.
            ModelFormatError: the model's aliases cannot be read.
        """
        name, _, wanted = ref.partition("@")
        check_model_name(name)
        if "@" in ref and not (wanted == LATEST or is_number(wanted) or is_alias(wanted)):
            raise ModelNameError(f"model version {wanted!r} in {ref!r} must be a number, 'latest' or an alias")
        versions = self._versions(name)
        if not versions:
            raise ModelNotFoundError(self._unknown_name(name))
        if wanted in ("", LATEST):
            return versions[-1]
        number = int(wanted) if is_number(wanted) else self._number_of(name, wanted, versions)
        for version in versions:
            if version.version == number:
                return version
        raise ModelNotFoundError(self._missing_version(ref, number, versions))

    def resolve_pinned(self, ref: str, digest: str) -> ModelVersion:
        """The version `ref`, which had `digest` when somebody chose it.

        Raises:
            ModelNotFoundError: it is there no more.
            ModelFormatError: what is there is another.
        """
        version = self.resolve(ref)
        if version.digest != digest:
            raise ModelFormatError(f"{ref} was {digest[:12]} when the job was submitted, and is another now")
        return version

    def list(self) -> Versions:
        """Every published version, by name and number; anything else in the root is passed over."""
        return [version for name in self._names() for version in self._versions(name)]

    def card(self, ref: str) -> ModelCard:
        """The card of a version.

        Raises:
            ModelNotFoundError: no such version.
            ModelFormatError: a damaged card, or one of an unknown format.
        """
        return self.resolve(ref).card()

    def aliases(self, name: str) -> dict[str, int]:
        """The version number behind each alias of a model; empty where the model is not there.

        Raises:
            ModelFormatError: they cannot be read.
        """
        return read_aliases(self.root / check_model_name(name))

    def set_alias(self, version: ModelVersion, alias: str) -> int | None:
        """Let `alias` stand for `version` from now on; returns the version number it stood for before.

        Raises:
            ModelNameError: a bad alias.
            ModelNotFoundError: the version was removed meanwhile.
            ModelFormatError: the aliases that there are cannot be read.
        """
        check_alias(alias)
        folder = self.root / version.name
        with locked(folder):
            self.resolve(version.ref)
            aliases = read_aliases(folder)
            before = aliases.get(alias)
            if before != version.version:
                write_aliases(folder, aliases | {alias: version.version})
        return before

    def drop_alias(self, name: str, alias: str) -> int:
        """Forget an alias; returns the version number it stood for.

        Raises:
            ModelNameError: a bad alias.
            ModelNotFoundError: no such model or alias; lists what there is.
            ModelFormatError: the aliases cannot be read.
        """
        folder = self.resolve(check_model_name(name)).path.parent
        check_alias(alias)
        with locked(folder):
            number = self._number_of(name, alias, self._versions(name))
            write_aliases(folder, {known: at for known, at in read_aliases(folder).items() if known != alias})
        return number

    def publish(self, staged: Path, name: str) -> ModelVersion:
        """Copy all of folder `staged`, a model, to the next free version of `name`, whole or not at all.

        A model whose digest is published under that name already keeps its number: twice is harmless. The number
        of a removed version is never used again.

        Raises:
            ModelNameError: a bad name.
            ModelFormatError: `staged` holds no whole model, or something that is no plain file or folder.
        """
        check_plain(staged)
        digest = _checked_digest(staged)
        folder = self.root / check_model_name(name)
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            for version in self._versions(name):
                if version.digest == digest:
                    return version
            with staging_folder(folder, ".publishing-") as copy:
                copy_durably(staged, copy)
                number = take_next_number(copy, folder)
        return ModelVersion(name, number, digest, folder / str(number))

    def remove(self, version: ModelVersion) -> None:
        """Remove a version: its name goes at once, then its files; its number is never used again.

        Raises:
            ModelInUseError: an alias stands for it.
            ModelNotFoundError: it was removed already.
            ModelFormatError: the model's aliases cannot be read.
            OSError: its files could not all be deleted; the version is gone, the next removal tries again.
        """
        folder = self.root / version.name
        with locked(folder):
            self.resolve_pinned(version.ref, version.digest)
            self.check_unnamed(version)
            bury(folder, version.version)
        shutil.rmtree(version.artifacts, ignore_errors=True)

    def check_unnamed(self, version: ModelVersion) -> None:
        """See that no alias stands for a version.

        Raises:
            ModelInUseError: which do, and how to move them.
            ModelFormatError: the model's aliases cannot be read.
        """
        names = [alias for alias, number in self.aliases(version.name).items() if number == version.version]
        if names:
            raise ModelInUseError(
                f"{version.ref} is {' and '.join(f'@{alias}' for alias in names)}; move that first with "
                f"`pigeonhole models alias {version.name}@OTHER {names[0]}`"
            )

    def _names(self) -> Sequence[str]:
        if not self.root.is_dir():
            return []
        return sorted(entry.name for entry in self.root.iterdir() if _NAME.fullmatch(entry.name))

    def _versions(self, name: str) -> Versions:
        """Versions of `name` in the order of their numbers."""
        found = []
        for number in version_numbers(self.root / name):
            path = self.root / name / str(number)
            try:
                card = (path / CARD_FILE).read_bytes()
            except OSError:
                continue
            if (path / WEIGHTS_FILE).is_file():
                found.append(ModelVersion(name, number, hashlib.sha256(card).hexdigest(), path))
        return found

    def _number_of(self, name: str, alias: str, versions: Versions) -> int:
        """The version number that an alias stands for."""
        aliases = self.aliases(name)
        if alias in aliases:
            return aliases[alias]
        known = ", ".join(f"{other} ({number})" for other, number in aliases.items()) or "none"
        raise ModelNotFoundError(
            f"model {name!r} has no alias {alias!r}; aliases: {known}; versions: {_numbers_of(versions)}"
        )

    def _missing_version(self, ref: str, number: int, versions: Versions) -> str:
        name = versions[0].name
        asked = ref if ref.endswith(f"@{number}") else f"{ref} (version {number})"
        removed = number in removed_numbers(self.root / name)
        what = f"model {asked!r} was removed" if removed else f"no model {asked!r}"
        return f"{what}; versions of {name!r}: {_numbers_of(versions)}"

    def _unknown_name(self, name: str) -> str:
        if removed_numbers(self.root / name):
            return f"no model {name!r}: all its versions were removed; train one with --name {name}"
        names = [known for known in self._names() if self._versions(known)]
        if not names:
            return f"no model {name!r}: none is published yet; train one with --name {name}"
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
        return f"no model {name!r}; {hint}published: {shown}"


def _numbers_of(versions: Versions) -> str:
    return ", ".join(str(version.version) for version in versions)


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
