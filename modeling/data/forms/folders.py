"""A folder per class; or folders `train`, `validation` and `test`, each with a folder per class."""

# Shapes: N images.
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from modeling.data.dataset import TEST, TRAIN, VALIDATION, Dataset, Kind
from modeling.data.findings import Finding, Severity, some
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

_JUNK_FOLDERS = {"__macosx", "@eadir", "lost+found", "$recycle.bin", "system volume information"}  # of no operator

_PASSED_OVER: dict[str, tuple[Severity, str]] = {  # reason: (severity, sentence)
    "hidden": ("info", "hidden files and folders were passed over"),
    "other": ("info", "files are no images by their names and were passed over"),
    "links": ("warning", "links to folders were not followed; put the folders themselves there"),
    "loose": ("warning", "images lie outside the class folders and belong to no class; move them into one"),
}


@dataclass(slots=True)
class _Listing:
    """Images found so far, with what was passed over by reason."""

    files: list[Path] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    parts: list[int] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)

    def pass_over(self, path: Path) -> None:
        """Count an entry that is none of a class's images."""
        self.ignored[_reason(path)] += 1


def open_folders(path: Path) -> Dataset:
    """List the images of a folder per class, or of part folders.

    Raises:
        DataError: what was found, and what is expected.
    """
    listing = _Listing()
    names = _folder_names(path, listing)
    parts = {name: PART_FOLDERS[name.lower()] for name in names if name.lower() in PART_FOLDERS}
    if names and len(parts) == len(names):
        return _open_parts(path, parts, listing)
    if TRAIN in parts.values() and TEST in parts.values():
        others = ", ".join(name for name in names if name not in parts)
        raise DataError(f"{path} holds {', '.join(parts)}, which are parts, and {others}, which is none; move it away")
    _check_classes(path, names)
    for target, name in enumerate(names):
        if not _list_class(path / name, target, TRAIN, listing):
            raise _empty_class(path / name)
    return _dataset("folders", path, names, listing)


def _open_parts(path: Path, parts: dict[str, int], listing: _Listing) -> Dataset:
    """The images of part folders; every class must be among those of training."""
    folders = {part: path / name for name, part in parts.items()}
    if len(folders) != len(parts):
        raise DataError(f"{path} holds {', '.join(parts)}: two folders of the same part; keep one of them")
    if TRAIN not in folders:
        raise DataError(f"{path} holds {', '.join(parts)}: parts, not classes, and no train folder among them; add it")
    found = {part: _folder_names(folder, listing) for part, folder in sorted(folders.items())}
    _check_classes(folders[TRAIN], found[TRAIN])
    classes = sorted(set().union(*found.values()))
    for part, names in found.items():
        counts = [_list_class(folders[part] / name, classes.index(name), part, listing) for name in names]
        if part == TRAIN and 0 in counts:
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
        findings=tuple(_told(listing.ignored)),
    )


def _told(ignored: Counter[str]) -> Iterator[Finding]:
    """A finding for each reason why something was passed over."""
    for reason, (severity, sentence) in _PASSED_OVER.items():
        if count := ignored[reason]:
            yield Finding(severity, f"{reason}_entries", f"{count} {sentence}")


def _folder_names(path: Path, listing: _Listing) -> tuple[str, ...]:
    """Names of the folders in `path` that may be classes, in order; the rest is counted."""
    names = []
    try:
        entries = sorted(entry.name for entry in path.iterdir())
    except OSError as err:
        raise _unreadable(err) from err
    for name in entries:
        if not name.startswith(".") and name.lower() not in _JUNK_FOLDERS and (path / name).is_dir():
            names.append(name)
        elif _reason(path / name) == "image":
            listing.ignored["loose"] += 1
        else:
            listing.pass_over(path / name)
    if odd := [name for name in names if not is_text(name)]:
        raise DataError(f"{path}: the name of the class folder {path_to_text(odd[0])!r} is not UTF-8; rename it")
    return tuple(names)


def _check_classes(path: Path, classes: Sequence[str]) -> None:
    if not classes:
        raise DataError(f"{path} holds no class folders; {EXPECTED}")
    if len(classes) > 1:
        return
    only = path / classes[0]
    if inner := sorted(entry.name for entry in only.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
        raise DataError(f"{path} holds one class only ({classes[0]}); if its folders {some(inner)} are it, give {only}")
    raise DataError(f"{path} holds one class only ({classes[0]}); training needs two or more; {EXPECTED}")


def check_num_labels(path: Path, labels: Sequence[str]) -> None:
    """Refuse a data set of fewer than two classes.

    Raises:
        DataError: if there are not two labels.
    """
    if len(labels) < 2:
        raise DataError(f"{path} holds one class only ({', '.join(labels)}); training needs two or more")


def _empty_class(folder: Path) -> DataError:
    num_entries = sum(1 for _ in _walk(folder))
    return DataError(f"class folder {folder} holds no images ({num_entries} other entries); remove or fill it")


def _list_class(folder: Path, target: int, part: int, listing: _Listing) -> int:
    """Add the image files anywhere under a class folder in a fixed order; how many there are."""
    before = len(listing.files)
    for path in _walk(folder):
        if _reason(path) == "image":
            listing.files.append(path)
        else:
            listing.pass_over(path)
    count = len(listing.files) - before
    listing.targets += [target] * count
    listing.parts += [part] * count
    return count


def _reason(path: Path) -> str:
    """`image` for an image by its name, else why an entry is passed over."""
    if path.name.startswith(".") or path.name.lower() in _JUNK_FOLDERS:
        return "hidden"
    if path.suffix.lower() in IMAGE_EXTENSIONS:
        return "image"
    return "links" if path.is_symlink() and path.is_dir() else "other"


def _walk(folder: Path) -> Iterator[Path]:
    """Files under `folder`, and the folders that are not entered: hidden ones and links."""

    def fail(err: OSError) -> None:
        raise _unreadable(err) from err

    for parent, folders, names in os.walk(folder, onerror=fail):
        entered = [
            name
            for name in sorted(folders)
            if _reason(Path(parent, name)) != "hidden" and not Path(parent, name).is_symlink()
        ]
        yield from (Path(parent, name) for name in sorted(set(folders) - set(entered)))
        folders[:] = entered
        yield from (Path(parent, name) for name in sorted(names))


def _unreadable(err: OSError) -> DataError:
    return DataError(f"{err.filename}: cannot be read ({err.strerror})")
