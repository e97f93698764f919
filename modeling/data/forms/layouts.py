"""Decides whether the folders of a data set are classes or parts, by their names and a first look into them.

A part holds class folders, a class holds images. What names and looks leave open is an error that says how to tell.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from modeling.data.dataset import TEST, TRAIN, VALIDATION, Finding, abbreviate
from modeling.errors import DataError
from modeling.images.formats import IMAGE_EXTENSIONS
from modeling.names import is_junk

Layout = Literal["classes", "parts"]

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


def choose_parts(path: Path, looks: Mapping[str, FirstLook], layout: Layout | None) -> dict[str, int]:
    """The part that each folder of `path` is; empty if the folders are classes.

    layout: what the operator says they are; folders that are no part are then left out.

    Raises:
        DataError: it cannot be told, or the folders are folds; the message says how to tell.
    """
    parts = {name: part for name in looks if (part := part_of(name)) is not None}
    if layout == "classes" or not looks:
        return {}
    if layout == "parts" and not parts:
        raise DataError(
            f"{path} holds {abbreviate(list(looks))}, none of which is named as a part; rename them to train, val "
            "and test, or give a list of path, label and part"
        )
    if layout == "parts" or len(parts) == len(looks):
        return parts
    if len(set(parts.values())) > 1 or any(looks[name].holds_only_folders for name in parts):
        raise _mixed(path, list(looks), list(parts))
    _refuse_folds(path, looks)
    return {}


def _mixed(path: Path, names: Sequence[str], parts: Sequence[str]) -> DataError:
    others = [name for name in names if name not in parts]
    are, named = ("which are parts", "they") if len(parts) > 1 else ("which is named as a part", "it")
    is_not, it = ("which is not", "it") if len(others) == 1 else ("which are not", "them")
    return DataError(
        f"{path} holds {', '.join(parts)}, {are}, and {abbreviate(others)}, {is_not}; move {it} away, or give "
        f"--layout parts to leave {it} out, or --layout classes if {named} and the others are classes"
    )


def _refuse_folds(path: Path, looks: Mapping[str, FirstLook]) -> None:
    """Folders named fold1, fold2; or split1, set_a and the like that hold the same folders and no images."""
    names = [name.strip().lower() for name in looks]
    if len(names) < 2:
        return
    are_slices = all(_SLICE.fullmatch(name) for name in names) and bool(_shared_folders(looks))
    if are_slices or all(_FOLD.fullmatch(name) for name in names):
        raise DataError(
            f"{path} holds {abbreviate(list(looks))}: folds of one data set, and nothing says which are to train on; "
            "put them into folders train, val and test, or give a list of path, label and part; if they are classes, "
            "give --layout classes"
        )


def _shared_folders(looks: Mapping[str, FirstLook]) -> list[str]:
    """The names of folders that lie in two class folders or more, if no class folder has images of its own."""
    if not all(look.holds_only_folders for look in looks.values()):
        return []
    counts = Counter(name for look in looks.values() for name in look.folders)
    return sorted(name for name, count in counts.items() if count > 1)


def check_classes(looks: Mapping[str, FirstLook]) -> Iterator[Finding]:
    """Warnings where class folders could be something else."""
    if len(looks) > 1 and (shared := _shared_folders(looks)):
        yield Finding(
            "warning",
            "shared_folders",
            f"the class folders {abbreviate(list(looks))} hold no images but folders of equal names "
            f"({abbreviate(shared)}), whose images count for the class; if these are the classes, name the folders "
            "above them train, val and test, or give one of them",
        )
    for name in looks:
        if part_of(name) in (VALIDATION, TEST):
            yield Finding(
                "warning",
                "class_named_as_part",
                f"{name} counts as a class, as images lie in it; if it is a part, move it away, or sort it into class "
                "folders beside a folder train",
            )
