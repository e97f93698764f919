"""Opens a folder per class; or folders `train`, `validation` and `test`, each with a folder per class."""

# Shapes: N images.
import os
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from modeling.data.dataset import TRAIN, Dataset, Finding, Kind, Severity, abbreviate
from modeling.data.forms.foreign import are_containers, foreign_layout, hint, how_to_label, lists_beside
from modeling.data.forms.layouts import Looks, check_classes, choose_parts, look_into
from modeling.data.layout import Layout
from modeling.errors import DataError
from modeling.images.formats import IMAGE_EXTENSIONS
from modeling.names import class_name, is_archive, is_junk, is_text, path_to_text

EXPECTED = (
    "expected a folder per class with images in it, folders train and test of such, MNIST idx files "
    "(train-images-idx3-ubyte, ...), CIFAR-10's binary files (data_batch_1.bin, ...), or a .csv or .jsonl of path,label"
)

_IGNORED: dict[str, tuple[Severity, str]] = {  # reason: (severity, sentence)
    "hidden": ("info", "hidden files and folders were ignored"),
    "junk": ("info", "files and folders that systems leave behind were ignored, such as __MACOSX and @eaDir"),
    "archives": ("warning", "archives were not read; unpack them if they hold images"),
    "other": ("info", "files without an image's extension were ignored"),
    "links": ("warning", "links to folders were not followed; put the folders themselves there"),
    "loose": ("warning", "images lie outside the class folders and belong to no class; move them into one"),
    "no part": ("warning", "folders beside the parts were left out, as --layout parts asks"),
}


@dataclass(slots=True)
class _Listing:
    """Images found so far by class and part, the number of ignored entries by reason, and what else is to be told.

    targets: the images' places in `classes`, which are in order. loose: the name of an image outside class folders.
    """

    classes: tuple[str, ...] = ()
    files: list[Path] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    parts: list[int] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    loose: str = ""
    _starts: list[tuple[Path, int]] = field(default_factory=list)  # each class folder's first image

    def ignore(self, path: Path) -> None:
        """Count an entry that is not an image of a class."""
        self.ignored[_kind_of(path)] += 1

    def add_class(self, folder: Path, part: int) -> int:
        """Add all image files below a class folder in a fixed order; returns their number."""
        before = len(self.files)
        self._starts.append((folder, before))
        for path in _walk(folder):
            if _kind_of(path) == "image":
                self.files.append(path)
            else:
                self.ignore(path)
        count = len(self.files) - before
        target = bisect_left(self.classes, class_name(folder.name))
        self.targets += [target] * count
        self.parts += [part] * count
        return count

    def shared_folders(self) -> list[str]:
        """Names of folders that lie in several class folders, if none of these has images of its own."""
        counts: Counter[str] = Counter()
        ends = [start for _, start in self._starts[1:]] + [len(self.files)]
        for (folder, start), end in zip(self._starts, ends, strict=True):
            if start < end and self.files[start].parent == folder:  # a walk lists a folder's own files first
                return []
            above = len(str(folder)) + 1
            counts.update({str(path)[above:].partition("/")[0] for path in self.files[start:end]})
        return sorted(name for name, count in counts.items() if count > 1)

    def name_classes(self, folders: Sequence[str]) -> None:
        """Give the class folders of all parts their classes."""
        self.classes = tuple(sorted({class_name(name) for name in folders}))
        self.findings += _check_names(folders)


def open_folders(path: Path, layout: Layout | None = None, *, to_learn: bool = True) -> Dataset:
    """List the images of a folder per class, or of part folders.

    layout: what the folders of `path` are; None: it is found by their names and by what they hold.
    to_learn: as `open_dataset` has it.

    Raises:
        DataError: the layout is not supported, or cannot be told; the message says what was found and what to do.
    """
    listing = _Listing()
    names = _folder_names(path, listing)
    looks = Looks(path, names)
    if layout is None and (foreign := foreign_layout(looks)):
        raise DataError(f"{path} looks like {foreign}; --layout classes takes its folders for classes all the same")
    parts = choose_parts(looks, layout)
    if parts:
        listing.ignored["no part"] += len(names) - len(parts)
        return _open_parts(path, parts, listing, to_learn=to_learn)
    _check_classes(path, looks, listing, to_learn=to_learn)
    if layout is None:
        listing.findings += _check_containers(path, names)
    listing.name_classes(names)
    for name in names:
        if not listing.add_class(path / name, TRAIN) and to_learn:
            raise _empty_class(path / name, path)
    if layout is None:
        listing.findings += check_classes(names, listing.shared_folders())
    if not listing.files:
        raise DataError(f"{path} holds no images in its class folders; {EXPECTED}")
    return _dataset("folders", path, listing)


def _open_parts(path: Path, parts: Mapping[str, int], listing: _Listing, *, to_learn: bool) -> Dataset:
    """The images of part folders; every class must occur in the training part, if it is to be learned."""
    folders = {part: path / name for name, part in parts.items()}
    if len(folders) != len(parts):
        raise DataError(
            f"{path} holds {', '.join(parts)}: two folders of the same part; keep one of them, or give --layout "
            "classes if they are classes"
        )
    if TRAIN not in folders and to_learn:
        raise DataError(
            f"{path} holds {', '.join(parts)}: parts, not classes, and no train folder among them; add it, or give "
            "--layout classes if they are classes"
        )
    found = {part: _folder_names(folder, listing) for part, folder in sorted(folders.items())}
    _check_part(path, parts, found, listing, to_learn=to_learn)
    listing.name_classes([name for names in found.values() for name in names])
    for part, names in found.items():
        counts = [listing.add_class(folders[part] / name, part) for name in names]
        if part == TRAIN and 0 in counts and to_learn:
            raise _empty_class(folders[part] / names[counts.index(0)], path)
        if not sum(counts):
            raise DataError(
                f"{folders[part]} holds no images in class folders; remove it, or sort its images into some"
                f"{hint(path, parts)}"
            )
    return _dataset("part_folders", path, listing)


def _check_part(
    path: Path, parts: Mapping[str, int], found: Mapping[int, Sequence[str]], listing: _Listing, *, to_learn: bool
) -> None:
    """See that every part holds class folders, as far as the names in it say."""
    folders = {part: path / name for name, part in parts.items()}
    train, classes = folders[min(folders)], found[min(folders)]
    if classes:
        _check_classes(train, Looks(train, classes), listing, to_learn=to_learn)
    elif look_into(train).has_images:
        raise DataError(
            f"{train} holds images and no class folders, and a part holds a folder per class; sort its images into "
            f"some{hint(path, parts)}; give --layout classes if {', '.join(parts)} are the classes"
        )
    else:
        raise DataError(f"{train} holds no class folders; {EXPECTED}{hint(path, parts)}")
    for part, names in found.items():
        if names and are_containers(names) and not set(names) & set(classes):
            raise DataError(
                f"{folders[part]} holds {abbreviate(names)} and no class folders; sort its images into a folder per "
                f"class{hint(path, parts)}"
            )


def _dataset(kind: Kind, path: Path, listing: _Listing) -> Dataset:
    return Dataset(
        kind=kind,
        path=path,
        labels=listing.classes,
        targets_N=np.array(listing.targets, dtype=np.int64),
        files=tuple(listing.files),
        parts_N=np.array(listing.parts, dtype=np.int8) if kind == "part_folders" else None,
        num_ignored=listing.ignored.total(),
        findings=(*_findings(listing.ignored), *listing.findings),
    )


def _findings(ignored: Counter[str]) -> Iterator[Finding]:
    """A finding for each reason for which entries were ignored."""
    for reason, (severity, sentence) in _IGNORED.items():
        if count := ignored[reason]:
            yield Finding(severity, f"{reason.replace(' ', '_')}_entries", f"{count} {sentence}")


def _check_names(folders: Sequence[str]) -> Iterator[Finding]:
    """A finding for each class whose folders have several names, or another name than the class."""
    names: dict[str, set[str]] = {}
    for folder in folders:
        names.setdefault(class_name(folder), set()).add(folder)
    for label, variants in names.items():
        shown = " and ".join(sorted(f"{name!a}" for name in variants))
        if len(variants) > 1:
            why = "differ only in their Unicode form or in spaces at their ends"
            yield Finding("warning", "same_class", f"the folders {shown} are one class, as their names {why}")
        elif variants != {label}:
            message = f"the folder {shown} is class {label!a}, in Unicode's form NFC and without spaces at its ends"
            yield Finding("info", "class_name", message)


def _check_containers(path: Path, names: Sequence[str]) -> Iterator[Finding]:
    """A warning about folders that are named after what lies in them; an error if there is a table beside them."""
    if not are_containers(names):
        return
    if lists := lists_beside(path):
        raise DataError(
            f"{path} holds {abbreviate(list(names))} and {lists}: folders of images with their labels in a table; give "
            "that, with columns path and label, or --layout classes if the folders are the classes"
        )
    message = (
        f"{abbreviate(list(names))} count as classes; if their images are of several classes, give a list of path,label"
    )
    yield Finding("warning", "container_names", message)


def _folder_names(path: Path, listing: _Listing) -> tuple[str, ...]:
    """Names of the folders in `path` that may be classes, in order; other entries are counted."""
    names = []
    try:
        entries = sorted(entry.name for entry in path.iterdir())
    except OSError as err:
        raise _unreadable(err) from err
    for name in entries:
        kind = _kind_of(path / name)
        if kind not in ("hidden", "junk") and (path / name).is_dir():
            names.append(name)
        elif kind == "image":
            listing.ignored["loose"] += 1
            listing.loose = listing.loose or name
        else:
            listing.ignore(path / name)
    if odd := [name for name in names if not is_text(name)]:
        raise DataError(f"{path}: the name of the class folder {path_to_text(odd[0])!r} is not UTF-8; rename it")
    if blank := [name for name in names if not class_name(name)]:
        raise DataError(f"{path}: the name of the class folder {blank[0]!a} is nothing but spaces; rename it")
    return tuple(names)


def _check_classes(path: Path, looks: Looks, listing: _Listing, *, to_learn: bool) -> None:
    """See that there are at least two class folders."""
    if len(looks.names) > 1 or (looks.names and not to_learn):
        return
    if not looks.names:
        if num_loose := listing.ignored["loose"]:
            known = hint(path)
            advice = f"{known}; {'otherwise ' if known else ''}{how_to_label(path, listing.loose)}"
            raise DataError(f"{path} holds {num_loose:,} images without labels{advice}")
        raise DataError(f"{path} holds no class folders; {EXPECTED}{hint(path)}")
    [name] = looks.names
    only, look = path / name, looks.into(name)
    while look.holds_only_folders and len(look.folders) == 1:
        only /= look.folders[0]
        look = look_into(only)
    advice = hint(path)
    if look.folders:
        advice = f"; if its folders {abbreviate(look.folders)} are it, give {only}{advice}"
    else:
        advice = f"; training needs two or more{advice or _how_to_label_below(path, only)}"
    raise DataError(f"{path} holds one class only ({name}){advice}")


def _how_to_label_below(path: Path, folder: Path) -> str:
    """The advice for a data set with one folder of images, which may be no class but all there is (`DCIM`)."""
    image = next((file for file in _walk(folder) if _kind_of(file) == "image"), None)
    if image is None:
        return f"; {EXPECTED}"
    return f"; if these images are of several classes, {how_to_label(path, str(image.relative_to(path)))}"


def check_num_labels(path: str, labels: Sequence[str]) -> None:
    """Reject a data set with fewer than two classes.

    Raises:
        DataError: there are fewer than two labels.
    """
    if len(labels) < 2:
        raise DataError(f"{path} holds one class only ({', '.join(labels)}); training needs two or more")


def _empty_class(folder: Path, root: Path) -> DataError:
    num_entries = sum(1 for _ in _walk(folder))
    return DataError(
        f"class folder {folder} holds no images ({num_entries} other entries); remove or fill it{hint(root)}"
    )


def _kind_of(path: Path) -> str:
    """`image` if the name has an image's extension, else the reason for which the entry is ignored."""
    if path.name.startswith("."):
        return "hidden"
    if is_junk(path.name):
        return "junk"
    if path.suffix.lower() in IMAGE_EXTENSIONS:
        return "image"
    if is_archive(path.name) and not path.is_dir():
        return "archives"
    return "links" if path.is_symlink() and path.is_dir() else "other"


def _walk(folder: Path) -> Iterator[Path]:
    """Files below `folder`, and the folders that are not entered: hidden ones, junk and links."""

    def fail(err: OSError) -> None:
        raise _unreadable(err) from err

    for parent, folders, names in os.walk(folder, onerror=fail):
        entered = [
            name
            for name in sorted(folders)
            if _kind_of(Path(parent, name)) not in ("hidden", "junk") and not Path(parent, name).is_symlink()
        ]
        yield from (Path(parent, name) for name in sorted(set(folders) - set(entered)))
        folders[:] = entered
        yield from (Path(parent, name) for name in sorted(names))


def _unreadable(err: OSError) -> DataError:
    return DataError(f"{err.filename}: cannot be read ({err.strerror})")
