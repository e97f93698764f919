"""Published models: immutable versions in `<root>/<name>/<version>/`, each visible completely or not at all.

The folder of a model also contains its aliases (`aliases.py`) and markers of removed versions (`version_folder.py`).
"""

import difflib
import hashlib
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from modeling.errors import ModelFormatError, ModelInUseError, ModelNameError, ModelNotFoundError
from modeling.registry.aliases import LATEST, check_alias, is_alias, read_aliases, write_aliases
from modeling.registry.card import CARD_FILE, WEIGHTS_FILE, ModelCard, read_checked
from modeling.registry.version_folder import (
    DIGEST_FILE,
    add_version,
    check_plain,
    is_number,
    locked,
    published_digest,
    remove_unpublished,
    remove_version,
    removed_numbers,
    version_numbers,
)

_ENGINES = ".engines"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A published version. `digest` is the sha256 of its card, which contains the sha256 of the weights."""

    name: str
    version: int
    digest: str
    path: Path

    @classmethod
    def at(cls, path: Path) -> Self:
        """The version in folder `path` of a store; a model outside a store gets its folder's name and version 0.

        Raises:
            ModelFormatError: its card cannot be read.
        """
        try:
            digest = hashlib.sha256((path / CARD_FILE).read_bytes()).hexdigest()
        except OSError as err:
            raise ModelFormatError(f"{path / CARD_FILE}: cannot be read ({err.strerror})") from err
        numbered = is_number(path.name)
        version = cls(path.parent.name if numbered else path.name, int(path.name) if numbered else 0, digest, path)
        version.check_unchanged()
        return version

    @property
    def ref(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"

    @property
    def artifacts(self) -> Path:
        """Folder beside the version for files built from it for specific hardware; safe to delete at any time."""
        return self.path.parent / _ENGINES / self.digest[:16]

    @property
    def shared_artifacts(self) -> Path:
        """Folder beside all models for what holds for every model of an architecture; safe to delete at any time."""
        return ModelStore(self.path.parent.parent).engines

    def check_unchanged(self) -> None:
        """Check that the card is the one that was published.

        Raises:
            ModelFormatError: it was changed since.
        """
        published = published_digest(self.path)
        if published not in (None, self.digest):
            raise ModelFormatError(
                f"{self.ref}: {CARD_FILE} was changed after it was published (its sha256 was {str(published)[:12]}, "
                f"now {self.digest[:12]}); put the original back, or import {self.path} under another name"
            )

    def card(self) -> ModelCard:
        """The model's card.

        Raises:
            ModelFormatError: the card is damaged or of an unknown format.
        """
        path = self.path / CARD_FILE
        return ModelCard.from_bytes(path.read_bytes(), path)

    def created(self) -> datetime:
        """The time of publishing, in UTC."""
        return datetime.fromtimestamp((self.path / CARD_FILE).stat().st_mtime, UTC)

    def files(self) -> tuple[Path, ...]:
        """Its files, relative to `path`, sorted by name; they include card and weights."""
        found = (path.relative_to(self.path) for path in self.path.rglob("*") if not path.is_dir())
        return tuple(sorted(path for path in found if str(path) != DIGEST_FILE))

    def size_bytes(self) -> int:
        """The total size of its files."""
        return sum((self.path / file).lstat().st_size for file in self.files())


Versions = list[ModelVersion]  # an alias for annotations: inside ModelStore, `list` is the method


def check_model_name(name: str) -> str:
    """Return the name if it is valid.

    Raises:
        ModelNameError: not lower-case letters, digits, dots, dashes and underscores, or too long.
    """
    if not _NAME.fullmatch(name):
        raise ModelNameError(f"model name {name!r} must be 1 to 100 of a-z 0-9 . _ - and begin with a letter or digit")
    return name


class ModelStore:
    """The models in one root folder, which several machines may share."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def engines(self) -> Path:
        """Folder for what holds for every model of an architecture; safe to delete at any time."""
        return self.root / _ENGINES

    def resolve(self, ref: str) -> ModelVersion:
        """The version that `name`, `name@latest`, `name@2` or `name@champion` (an alias) refers to.

        Raises:
            ModelNameError: the reference is not well-formed.
            ModelNotFoundError: no such name, version or alias; the message lists those that exist.
            ModelFormatError: the model's aliases cannot be read, or its card was changed after it was published.
        """
        version = self.find(ref)
        version.check_unchanged()
        return version

    def find(self, ref: str) -> ModelVersion:
        """As `resolve`, but also a version whose card was changed: to look at it, or to remove it."""
        name, _, requested = ref.partition("@")
        check_model_name(name)
        if "@" in ref and not (requested == LATEST or is_number(requested) or is_alias(requested)):
            raise ModelNameError(f"model version {requested!r} in {ref!r} must be a number, 'latest' or an alias")
        versions = self._versions(name)
        if not versions:
            raise ModelNotFoundError(self._unknown_name(name))
        if requested in ("", LATEST):
            return versions[-1]
        number = int(requested) if is_number(requested) else self._number_of(name, requested, versions)
        for version in versions:
            if version.version == number:
                return version
        raise ModelNotFoundError(self._missing_version(ref, number, versions))

    def resolve_pinned(self, ref: str, digest: str) -> ModelVersion:
        """The version `ref`, if it still has the digest it had when the job was submitted.

        Raises:
            ModelNotFoundError: the version no longer exists.
            ModelFormatError: the version has another digest.
        """
        version = self.find(ref)
        _check_pinned(version, digest)
        version.check_unchanged()
        return version

    def list(self) -> Versions:
        """Every published version, sorted by name and number; other entries of the root are ignored."""
        return [version for name in self._names() for version in self._versions(name)]

    def card(self, ref: str) -> ModelCard:
        """The card of a version.

        Raises:
            ModelNotFoundError: no such version.
            ModelFormatError: the card is damaged or of an unknown format.
        """
        return self.resolve(ref).card()

    def aliases(self, name: str) -> dict[str, int]:
        """The version number of each alias of a model; empty if the model does not exist.

        Raises:
            ModelFormatError: they cannot be read.
        """
        return read_aliases(self.root / check_model_name(name))

    def set_alias(self, version: ModelVersion, alias: str) -> int | None:
        """Point `alias` to `version`; returns the version number that it pointed to before.

        Raises:
            ModelNameError: the alias is not valid.
            ModelNotFoundError: the version was removed in the meantime.
            ModelFormatError: the existing aliases cannot be read.
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
        """Delete an alias; returns the version number that it pointed to.

        Raises:
            ModelNameError: the alias is not valid.
            ModelNotFoundError: no such model or alias; the message lists those that exist.
            ModelFormatError: the aliases cannot be read.
        """
        folder = self.resolve(check_model_name(name)).path.parent
        check_alias(alias)
        with locked(folder):
            number = self._number_of(name, alias, self._versions(name))
            write_aliases(folder, {known: at for known, at in read_aliases(folder).items() if known != alias})
        return number

    def publish(self, staged: Path, name: str, *, confirm: Callable[[], None] = lambda: None) -> ModelVersion:
        """Copy the model in folder `staged` to the next free version of `name`, completely or not at all.

        Publishing is idempotent: if a version of that name has the same digest, it is returned. The number of a removed
        version is never used again. confirm: called just before the version becomes visible; may raise.

        Raises:
            ModelNameError: the name is not valid.
            ModelFormatError: the model in `staged` is incomplete, or `staged` contains links or special files.
        """
        check_plain(staged)
        digest = _checked_digest(staged)
        folder = self.root / check_model_name(name)
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            for version in self._versions(name):
                if version.digest == digest:
                    return version
            number = add_version(staged, digest, folder, confirm=confirm)
        return ModelVersion(name, number, digest, folder / str(number))

    def remove_unpublished(self, *, dry_run: bool, size_of: Callable[[Path], int]) -> Iterator[int]:
        """Remove the copies of models whose publication was killed; the size of each. dry_run: only find them."""
        for folder in sorted(self.root.iterdir()) if self.root.is_dir() else ():
            if folder.is_dir():
                yield from remove_unpublished(folder, dry_run=dry_run, size_of=size_of)

    def remove(self, version: ModelVersion) -> None:
        """Remove a version: first its name, then its files; its number is never used again.

        Raises:
            ModelInUseError: an alias points to it.
            ModelNotFoundError: it was already removed.
            ModelFormatError: the model's aliases cannot be read.
            OSError: some files could not be deleted; the version is removed, and the next removal deletes them.
        """
        folder = self.root / version.name
        with locked(folder):
            _check_pinned(self.find(version.ref), version.digest)
            self.check_not_aliased(version)
            remove_version(folder, version.version)
        shutil.rmtree(version.artifacts, ignore_errors=True)

    def check_not_aliased(self, version: ModelVersion) -> None:
        """Check that no alias points to a version.

        Raises:
            ModelInUseError: names the aliases, and says how to move them.
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
        """Versions of `name`, sorted by number."""
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
        """The version number that an alias points to."""
        aliases = self.aliases(name)
        if alias in aliases:
            return aliases[alias]
        known = ", ".join(f"{other} ({number})" for other, number in aliases.items()) or "none"
        raise ModelNotFoundError(
            f"model {name!r} has no alias {alias!r}; aliases: {known}; versions: {_numbers_of(versions)}"
        )

    def _missing_version(self, ref: str, number: int, versions: Versions) -> str:
        name = versions[0].name
        shown_ref = ref if ref.endswith(f"@{number}") else f"{ref} (version {number})"
        removed = number in removed_numbers(self.root / name)
        what = f"model {shown_ref!r} was removed" if removed else f"no model {shown_ref!r}"
        return f"{what}; versions of {name!r}: {_numbers_of(versions)}"

    def _unknown_name(self, name: str) -> str:
        if removed_numbers(self.root / name):
            return f"no model {name!r}: all its versions were removed; train one with --name {name}"
        names = [known for known in self._names() if self._versions(known)]
        if not names:
            return f"no model {name!r}: none is published yet; train one with --name {name}"
        similar = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {similar[0]!r}? " if similar else ""
        shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
        return f"no model {name!r}; {hint}published: {shown}"


def _check_pinned(version: ModelVersion, digest: str) -> None:
    if version.digest != digest:
        raise ModelFormatError(f"{version.ref} was {digest[:12]} when the job was submitted, and is another now")


def _numbers_of(versions: Versions) -> str:
    return ", ".join(str(version.version) for version in versions)


def _checked_digest(staged: Path) -> str:
    """Digest of a staged model, whose weights are those of its card."""
    read_checked(staged)
    return hashlib.sha256((staged / CARD_FILE).read_bytes()).hexdigest()
