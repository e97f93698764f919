"""Decides whether the folders of a data set are classes or parts, by their names and a first look into them.

A part holds class folders, a class holds images. What names and looks leave open is an error that says how to tell.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from modeling.data.dataset import TEST, TRAIN, VALIDATION, Finding, abbreviate
from modeling.data.layout import Layout
from modeling.errors import DataError
from modeling.images.formats import IMAGE_EXTENSIONS
from modeling.names import is_junk

PART_FOLDERS = {
    "train": TRAIN, "training": TRAIN,
    "val": VALIDATION, "valid": VALIDATION, "validation": VALIDATION,
    "test": TEST, "testing": TEST,
}  # fmt: skip
"""Names of parts in lower case; `part_of` knows more, for folders."""

_OTHER_WORDS = {
    "validate": VALIDATION, "dev": VALIDATION, "devel": VALIDATION, "development": VALIDATION, "eval": VALIDATION,
    "evaluation": VALIDATION, "tests": TEST, "holdout": TEST,
}  # fmt: skip
_WORDS = PART_FOLDERS | _OTHER_WORDS
_AROUND = r"data|dataset|images?|imgs?|pictures?|photos?|sets?|split|part|folder|files|samples"
_PART = re.compile(
    rf"(?:(?:{_AROUND})[\s_.-]*)?({'|'.join(sorted(_WORDS, key=len, reverse=True))})(?:[\s_.-]*(?:{_AROUND}|\d+))*"
)
_FOLD = re.compile(r"(?:k[\s_.-]*)?folds?[\s_.-]*\d+|\d+[\s_.-]*folds?|cv[\s_.-]*\d+")
_SLICE = re.compile(r"(?:split|partition|subset|set|part|batch|run)s?[\s_.-]*(?:\d+|[a-h])")


def part_of(name: str) -> int | None:
    """TRAIN, VALIDATION or TEST if a folder of this name is usually such a part (`val`, `train_set`, `test2017`)."""
    found = _PART.fullmatch(name.strip().lower())
    return _WORDS[found[1]] if found else None


@dataclass(frozen=True, slots=True)
class FirstLook:
    """What a first look into a folder shows.

    has_images: whether an image lies directly in it. folders: the names of its folders, in order; where it has images,
    perhaps not all.
    """

    has_images: bool
    folders: tuple[str, ...]

    @property
    def holds_only_folders(self) -> bool:
        """Whether it could be a part."""
        return bool(self.folders) and not self.has_images


def look_into(folder: Path) -> FirstLook:
    """A first look, which ends at the first image; hidden entries and junk are not seen.

    Raises:
        DataError: the folder cannot be read.
    """
    folders = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or is_junk(entry.name):
                    continue
                if entry.is_dir():
                    folders.append(entry.name)
                elif Path(entry.name).suffix.lower() in IMAGE_EXTENSIONS:
                    return FirstLook(True, tuple(sorted(folders)))
    except OSError as err:
        raise DataError(f"{err.filename}: cannot be read ({err.strerror})") from err
    return FirstLook(False, tuple(sorted(folders)))


class Looks:
    """First looks into the folders of a folder, each taken when it is asked for, and once."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self.path, self.names = path, tuple(names)
        self._taken: dict[str, FirstLook] = {}

    def into(self, name: str) -> FirstLook:
        """The first look into one of the folders."""
        if name not in self._taken:
            self._taken[name] = look_into(self.path / name)
        return self._taken[name]


def choose_parts(looks: Looks, layout: Layout | None) -> dict[str, int]:
    """The part that each folder is; empty if the folders are classes.

    layout: what the operator says they are; folders that are no part are then left out.

    Raises:
        DataError: it cannot be told, or the folders are folds; the message says how to tell.
    """
    names, path = looks.names, looks.path
    parts = {name: part for name in names if (part := part_of(name)) is not None}
    if layout == "classes" or not names:
        return {}
    if layout == "parts" and not parts:
        raise DataError(
            f"{path} holds {abbreviate(names)}, none of which is named as a part; rename them to train, val "
            "and test, or give a list of path, label and part"
        )
    if layout == "parts" or len(parts) == len(names):
        return parts
    if len(set(parts.values())) > 1 or any(looks.into(name).holds_only_folders for name in parts):
        raise _mixed(path, names, list(parts))
    _refuse_folds(looks)
    return {}


def _mixed(path: Path, names: Sequence[str], parts: Sequence[str]) -> DataError:
    others = [name for name in names if name not in parts]
    are, named = ("which are parts", "they") if len(parts) > 1 else ("which is named as a part", "it")
    is_not, it = ("which is not", "it") if len(others) == 1 else ("which are not", "them")
    return DataError(
        f"{path} holds {', '.join(parts)}, {are}, and {abbreviate(others)}, {is_not}; move {it} away, or give "
        f"--layout parts to leave {it} out, or --layout classes if {named} and the others are classes"
    )


def _refuse_folds(looks: Looks) -> None:
    """Folders named fold1, fold2; or split1, set_a and the like that hold the same folders and no images."""
    names = [name.strip().lower() for name in looks.names]
    if len(names) < 2:
        return
    if _hint_at_parts(looks.names) and _hold_equal_folders(looks):
        raise DataError(
            f"{looks.path} holds {abbreviate(looks.names)}: parts of one data set by their names, but it is not clear "
            "which; rename them to train, val and test, or give --layout classes if they are classes"
        )
    are_slices = all(_SLICE.fullmatch(name) for name in names) and _hold_equal_folders(looks)
    if are_slices or all(_FOLD.fullmatch(name) for name in names):
        raise DataError(
            f"{looks.path} holds {abbreviate(looks.names)}: folds of one data set, and nothing says which are to train "
            "on; put them into folders train, val and test, or give a list of path, label and part; if they are "
            "classes, give --layout classes"
        )


def _hint_at_parts(names: Sequence[str]) -> bool:
    """Whether each name has the word of a part in it (`my_train`, `1-test`, `trainA`), and not all have the same."""
    found = [{_WORDS[word] for word in _words(name) if word in _WORDS} for name in names]
    return all(found) and len(set().union(*found)) > 1


def _words(name: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)]


def _hold_equal_folders(looks: Looks) -> bool:
    """Whether all folders hold only folders, some of equal names."""
    if not all(looks.into(name).holds_only_folders for name in looks.names):
        return False
    counts = Counter(inner for name in looks.names for inner in looks.into(name).folders)
    return max(counts.values()) > 1


def check_classes(names: Sequence[str], shared: Sequence[str]) -> Iterator[Finding]:
    """Warnings where class folders could be something else.

    shared: names of folders that lie in several of them, if none has images of its own.
    """
    if shared:
        yield Finding(
            "warning",
            "shared_folders",
            f"the class folders {abbreviate(names)} hold no images but folders of equal names "
            f"({abbreviate(shared)}), whose images count for the class; if these are the classes, name the folders "
            "above them train, val and test, or give one of them",
        )
    if _hint_at_parts(names):
        yield Finding(
            "warning",
            "class_named_as_part",
            f"{abbreviate(names)} count as classes, though their names are those of parts; if they are parts, sort the "
            "images into class folders in folders train, val and test",
        )
    for name in names:
        if part_of(name) in (VALIDATION, TEST):
            yield Finding(
                "warning",
                "class_named_as_part",
                f"{name} counts as a class, as images lie in it; if it is a part, move it away, or sort it into class "
                "folders beside a folder train",
            )
