"""Opens a folder per class; or folders `train`, `validation` and `test`, each with a folder per class."""

# Shapes: N images.
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from modeling.data.dataset import TEST, TRAIN, VALIDATION, Dataset, Finding, Kind, Severity, abbreviate
from modeling.errors import DataError
from modeling.images.formats import IMAGE_EXTENSIONS
from modeling.names import is_text, path_to_text

EXPECTED = (
    "expected a folder per class with images in it, folders train and test of such, MNIST idx files "
    "(train-images-idx3-ubyte, ...), CIFAR-10's binary files (data_batch_1.bin, ...), or a .csv or .jsonl of path,label"
)
PART_FOLDERS = {
    "train": TRAIN, "training": TRAIN,
    "val": VALIDATION, "valid": VALIDATION, "validation": VALIDATION,
    "test": TEST, "testing": TEST,
}  # fmt: skip
"""Names of part folders in lower case."""

# Created by systems, not by operators.
_JUNK_FOLDERS = {"__macosx", "@eadir", "lost+found", "$recycle.bin", "system volume information"}

_IGNORED: dict[str, tuple[Severity, str]] = {  # reason: (severity, sentence)
    "hidden": ("info", "hidden files and folders were ignored"),
    "other": ("info", "files without an image's extension were ignored"),
    "links": ("warning", "links to folders were not followed; put the folders themselves there"),
    "loose": ("warning", "images lie outside the class folders and belong to no class; move them into one"),
}


@dataclass(slots=True)
class _Listing:
    """Images found so far, and the number of ignored entries by reason."""

    files: list[Path] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    parts: list[int] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)

    def ignore(self, path: Path) -> None:
        """Count an entry that is not an image of a class."""
        self.ignored[_kind_of(path)] += 1


def open_folders(path: Path, *, to_learn: bool = True) -> Dataset:
    """List the images of a folder per class, or of part folders.

    to_learn: as `open_dataset` has it.

    Raises:
        DataError: the layout is not supported; the message says what was found and what is expected.
    """
    listing = _Listing()
    names = _folder_names(path, listing)
    parts = {name: PART_FOLDERS[name.lower()] for name in names if name.lower() in PART_FOLDERS}
    if names and len(parts) == len(names):
        return _open_parts(path, parts, listing, to_learn=to_learn)
    if TRAIN in parts.values() and TEST in parts.values():
        others = ", ".join(name for name in names if name not in parts)
        raise DataError(f"{path} holds {', '.join(parts)}, which are parts, and {others}, which is not; move it away")
    _check_classes(path, names, to_learn=to_learn)
    for target, name in enumerate(names):
        if not _list_class(path / name, target, TRAIN, listing) and to_learn:
            raise _empty_class(path / name)
    if not listing.files:
        raise DataError(f"{path} holds no images in its class folders; {EXPECTED}")
    return _dataset("folders", path, names, listing)


def _open_parts(path: Path, parts: dict[str, int], listing: _Listing, *, to_learn: bool) -> Dataset:
    """The images of part folders; every class must occur in the training part, if it is to be learned."""
    folders = {part: path / name for name, part in parts.items()}
    if len(folders) != len(parts):
        raise DataError(f"{path} holds {', '.join(parts)}: two folders of the same part; keep one of them")
    if TRAIN not in folders and to_learn:
        raise DataError(f"{path} holds {', '.join(parts)}: parts, not classes, and no train folder among them; add it")
    found = {part: _folder_names(folder, listing) for part, folder in sorted(folders.items())}
    first = min(folders)
    _check_classes(folders[first], found[first], to_learn=to_learn)
    classes = sorted(set().union(*found.values()))
    for part, names in found.items():
        counts = [_list_class(folders[part] / name, classes.index(name), part, listing) for name in names]
        if part == TRAIN and 0 in counts and to_learn:
            raise _empty_class(folders[part] / names[counts.index(0)])
        if not sum(counts):
            raise DataError(
                f"{folders[part]} holds no images in class folders; remove it, or sort its images into some"
            )
    return _dataset("part_folders", path, classes, listing)


def _dataset(kind: Kind, path: Path, classes: Sequence[str], listing: _Listing) -> Dataset:
    return Dataset(
        kind=kind,
        path=path,
        labels=tuple(classes),
        targets_N=np.array(listing.targets, dtype=np.int64),
        files=tuple(listing.files),
        parts_N=np.array(listing.parts, dtype=np.int8) if kind == "part_folders" else None,
        num_ignored=listing.ignored.total(),
        findings=tuple(_findings(listing.ignored)),
    )


def _findings(ignored: Counter[str]) -> Iterator[Finding]:
    """A finding for each reason for which entries were ignored."""
    for reason, (severity, sentence) in _IGNORED.items():
        if count := ignored[reason]:
            yield Finding(severity, f"{reason}_entries", f"{count} {sentence}")


def _folder_names(path: Path, listing: _Listing) -> tuple[str, ...]:
    """Names of the folders in `path` that may be classes, in order; other entries are counted."""
    names = []
    try:
        entries = sorted(entry.name for entry in path.iterdir())
    except OSError as err:
        raise _unreadable(err) from err
    for name in entries:
        if not name.startswith(".") and name.lower() not in _JUNK_FOLDERS and (path / name).is_dir():
            names.append(name)
        elif _kind_of(path / name) == "image":
            listing.ignored["loose"] += 1
        else:
            listing.ignore(path / name)
    if odd := [name for name in names if not is_text(name)]:
        raise DataError(f"{path}: the name of the class folder {path_to_text(odd[0])!r} is not UTF-8; rename it")
    return tuple(names)


def _check_classes(path: Path, classes: Sequence[str], *, to_learn: bool) -> None:
    if not classes:
        raise DataError(f"{path} holds no class folders; {EXPECTED}")
    if len(classes) > 1 or not to_learn:
        return
    only = path / classes[0]
    if inner := sorted(entry.name for entry in only.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
        raise DataError(
            f"{path} holds one class only ({classes[0]}); if its folders {abbreviate(inner)} are it, give {only}"
        )
    raise DataError(f"{path} holds one class only ({classes[0]}); training needs two or more; {EXPECTED}")


def check_num_labels(path: Path, labels: Sequence[str]) -> None:
    """Reject a data set with fewer than two classes.

    Raises:
        DataError: there are fewer than two labels.
    """
    if len(labels) < 2:
        raise DataError(f"{path} holds one class only ({', '.join(labels)}); training needs two or more")


def _empty_class(folder: Path) -> DataError:
    num_entries = sum(1 for _ in _walk(folder))
    return DataError(f"class folder {folder} holds no images ({num_entries} other entries); remove or fill it")


def _list_class(folder: Path, target: int, part: int, listing: _Listing) -> int:
    """Add all image files below a class folder in a fixed order; returns their number."""
    before = len(listing.files)
    for path in _walk(folder):
        if _kind_of(path) == "image":
            listing.files.append(path)
        else:
            listing.ignore(path)
    count = len(listing.files) - before
    listing.targets += [target] * count
    listing.parts += [part] * count
    return count


def _kind_of(path: Path) -> str:
    """`image` if the name has an image's extension, else the reason for which the entry is ignored."""
    if path.name.startswith(".") or path.name.lower() in _JUNK_FOLDERS:
        return "hidden"
    if path.suffix.lower() in IMAGE_EXTENSIONS:
        return "image"
    return "links" if path.is_symlink() and path.is_dir() else "other"


def _walk(folder: Path) -> Iterator[Path]:
    """Files below `folder`, and the folders that are not entered: hidden ones and links."""

    def fail(err: OSError) -> None:
        raise _unreadable(err) from err

    for parent, folders, names in os.walk(folder, onerror=fail):
        entered = [
            name
            for name in sorted(folders)
            if _kind_of(Path(parent, name)) != "hidden" and not Path(parent, name).is_symlink()
        ]
        yield from (Path(parent, name) for name in sorted(set(folders) - set(entered)))
        folders[:] = entered
        yield from (Path(parent, name) for name in sorted(names))


def _unreadable(err: OSError) -> DataError:
    return DataError(f"{err.filename}: cannot be read ({err.strerror})")
