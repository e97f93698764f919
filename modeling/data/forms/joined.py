"""Opens several data sets as one: images of all of them, each file once, with the labels that people corrected."""

# Shapes: N images, M images of all data sets before they are joined.
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modeling.data.dataset import FREE, PART_NAMES, Dataset, Finding, Source, abbreviate
from modeling.data.forms.open import check_opened, open_dataset, open_form
from modeling.data.layout import Layout
from modeling.errors import DataError
from modeling.names import path_to_text

CORRECTIONS = "corrections"
"""The code of the finding that counts the labels that a manifest corrects."""


def open_datasets(paths: Sequence[Path], layout: Layout | None = None, *, to_learn: bool = True) -> Dataset:
    """Open the data sets at `paths` as one; a single one as `open_dataset` does.

    A file that several of them hold counts once. A label that a person corrected in a manifest replaces the label that
    another data set gives the file; the model's own label in a manifest yields to it. Official parts are kept.

    layout: what the folders in those of `paths` are that are folders. to_learn: as `open_dataset` has it.

    Raises:
        DataError: one of them cannot be opened, or they contradict each other.
    """
    if len(paths) == 1:
        return open_dataset(paths[0], layout, to_learn=to_learn)
    absolute = [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100 links are kept, as the operator's names
    with_layout = [path.is_dir() for path in absolute]
    if not any(with_layout):
        with_layout = [True] * len(absolute)  # the first one's error says that --layout is for folders
    opened = [
        open_form(path, layout if has_layout else None, to_learn=False)
        for path, has_layout in zip(absolute, with_layout, strict=True)
    ]
    joined = check_opened(_join(opened), to_learn=to_learn)
    if to_learn:
        _check_classes(joined)
    return joined


def _join(opened: Sequence[Dataset]) -> Dataset:
    in_memory = [dataset for dataset in opened if dataset.pixels_NHWC is not None]
    if not in_memory:
        return _join_files(opened)
    if len(in_memory) == len(opened):
        return _join_pixels(opened)
    held = ", ".join(_path_of(dataset) for dataset in in_memory)
    raise DataError(
        f"{held} stores pixels without image files, which cannot be joined with image files; save the pixels as images "
        "in a folder per class, or train on one of the two"
    )


# Files


@dataclass(slots=True)
class _Image:
    """An image of the joined data set: its file, and the data set that gives its label."""

    file: Path
    label: str
    part: int
    source: Dataset
    corrected: bool


@dataclass(slots=True)
class _Joining:
    """Images by their files' resolved paths, and what happened to those that several data sets hold."""

    images: dict[str, _Image] = field(default_factory=dict)
    holders: Counter[str] = field(default_factory=Counter)  # the number of data sets that hold a file
    conflicts: list[str] = field(default_factory=list)
    num_repeated: int = 0
    num_yielding: Counter[Path] = field(default_factory=Counter)  # labels of a manifest's model that are left out

    def add(self, key: str, new: _Image) -> None:
        """Add an image, or let it and the known one of the same file decide on one label and part."""
        self.holders[key] += 1
        known = self.images.setdefault(key, new)
        if known is new:
            return
        self.num_repeated += 1
        kept, other = (new, known) if _rank(new) > _rank(known) else (known, new)
        if kept.label != other.label and _rank(kept) == _rank(other):
            self._conflict(known, f"is {known.label} in", new, f"{new.label} in")
        if FREE not in (known.part, new.part) and known.part != new.part:
            self._conflict(known, f"is in the {PART_NAMES[known.part]} part of", new, f"{PART_NAMES[new.part]} part of")
        if kept.label != other.label and not kept.corrected and other.source.kind == "manifest":
            self.num_yielding[other.source.path] += 1
        part = known.part if known.part != FREE else new.part
        self.images[key] = _Image(known.file, kept.label, part, kept.source, kept.corrected)

    def _conflict(self, known: _Image, is_known: str, new: _Image, is_new: str) -> None:
        self.conflicts.append(
            f"{_shown(known.file)} {is_known} {_path_of(known.source)} and {is_new} {_path_of(new.source)}"
        )


def _rank(image: _Image) -> int:
    """Whose label counts: a person's correction, else the data set's, else the answer of a manifest's model."""
    return 2 if image.corrected else 0 if image.source.kind == "manifest" else 1


def _join_files(opened: Sequence[Dataset]) -> Dataset:
    joining, keys = _Joining(), []
    for dataset in opened:
        keys.append(_keys(dataset.files))
        for key, image in zip(keys[-1], _images(dataset), strict=True):
            joining.add(key, image)
    if joining.conflicts:
        num, shown = len(joining.conflicts), "; ".join(joining.conflicts[:3])
        more = f"; and {num - 3:,} more" if num > 3 else ""
        raise DataError(
            f"the data sets contradict each other about {num:,} {'file' if num == 1 else 'files'}: {shown}{more}; keep "
            "one of the labels; corrections are read from a manifest's column corrected_label"
        )
    images = list(joining.images.values())
    labels = tuple(sorted({image.label for image in images}.union(*map(_empty_classes, opened))))
    number = {label: target for target, label in enumerate(labels)}
    parts_N = np.array([image.part for image in images], dtype=np.int8)
    return Dataset(
        kind="joined",
        path=opened[0].path,
        labels=labels,
        targets_N=np.array([number[image.label] for image in images], dtype=np.int64),
        files=tuple(image.file for image in images),
        parts_N=parts_N if (parts_N != FREE).any() else None,
        num_ignored=sum(dataset.num_ignored for dataset in opened),
        root=_common_root(opened),
        findings=(*_findings(opened), *_corrections(opened, keys, joining), *_repeated(joining)),
        sources=_sources(opened),
    )


def _images(dataset: Dataset) -> Iterator[_Image]:
    parts = [FREE] * dataset.num_images if dataset.parts_N is None else dataset.parts_N.tolist()
    corrected = [False] * dataset.num_images if dataset.corrected_N is None else dataset.corrected_N.tolist()
    rows = zip(dataset.files, dataset.targets_N.tolist(), parts, corrected, strict=True)
    return (_Image(file, dataset.labels[target], part, dataset, said) for file, target, part, said in rows)


def _keys(files: Iterable[Path]) -> list[str]:
    """A key for each file of a data set: its path without links; a second name of a file there has a key of its own."""
    keys: dict[str, None] = {}
    for file, resolved in zip(files, _resolved(files), strict=True):
        keys[f"{file}\0" if resolved in keys else resolved] = None
    return list(keys)


def _resolved(files: Iterable[Path]) -> Iterator[str]:
    """Each file's path without links; folders, which many files share, are resolved once."""
    folders: dict[Path, str] = {}
    for file in files:
        if file.is_symlink():
            yield os.path.realpath(file)
            continue
        folder = folders.get(file.parent)
        if folder is None:
            folder = folders[file.parent] = os.path.realpath(file.parent)
        yield f"{folder}/{file.name}"


def _corrections(opened: Sequence[Dataset], keys: Sequence[Sequence[str]], joining: _Joining) -> Iterator[Finding]:
    """For each manifest, how many labels it corrects and how many of these images the other data sets hold."""
    for dataset, own in zip(opened, keys, strict=True):
        if dataset.corrected_N is None:
            continue
        corrected = [key for key, said in zip(own, dataset.corrected_N.tolist(), strict=True) if said]
        num_alone = sum(joining.holders[key] == 1 for key in corrected)
        others = " or ".join(_path_of(other) for other in opened if other is not dataset)
        message = f"{_path_of(dataset)}: {len(corrected):,} corrected, {num_alone:,} of them not in {others}"
        if num_yielding := joining.num_yielding[dataset.path]:
            message += f"; for {num_yielding:,} images the label there counts, not the model's own"
        yield Finding("info", CORRECTIONS, message)


def _repeated(joining: _Joining) -> Iterator[Finding]:
    if joining.num_repeated:
        message = f"{joining.num_repeated:,} images are in several of the data sets and count once"
        yield Finding("info", "repeated_images", message)


# Pixels


def _join_pixels(opened: Sequence[Dataset]) -> Dataset:
    pixels = [dataset.pixels_NHWC for dataset in opened if dataset.pixels_NHWC is not None]
    sizes = [" x ".join(map(str, each.shape[1:])) for each in pixels]
    if len(set(sizes)) > 1:
        shown = ", ".join(f"{_path_of(dataset)} ({size})" for dataset, size in zip(opened, sizes, strict=True))
        raise DataError(f"the pixels of {shown} differ in size or colour and cannot be joined; train on one of them")
    labels = tuple(sorted({label for dataset in opened for label in dataset.labels}))
    parts_N = np.concatenate([_parts(dataset) for dataset in opened])
    return Dataset(
        kind="joined",
        path=opened[0].path,
        labels=labels,
        targets_N=np.concatenate([_targets(dataset, labels) for dataset in opened]),
        pixels_NHWC=np.concatenate(pixels),
        parts_N=parts_N if (parts_N != FREE).any() else None,
        num_ignored=sum(dataset.num_ignored for dataset in opened),
        root=_common_root(opened),
        findings=tuple(_findings(opened)),
        sources=_sources(opened),
    )


def _parts(dataset: Dataset) -> NDArray[np.int8]:
    return np.full(dataset.num_images, FREE, dtype=np.int8) if dataset.parts_N is None else dataset.parts_N


def _targets(dataset: Dataset, labels: Sequence[str]) -> NDArray[np.int64]:
    return np.array([labels.index(label) for label in dataset.labels], dtype=np.int64)[dataset.targets_N]


# Both


def _sources(opened: Sequence[Dataset]) -> tuple[Source, ...]:
    return tuple(Source(_path_of(dataset), dataset.kind, dataset.num_images) for dataset in opened)


def _common_root(opened: Sequence[Dataset]) -> Path:
    """The folder that holds all data sets: names relative to it are different."""
    return Path(os.path.commonpath([os.path.abspath(dataset.root or dataset.path) for dataset in opened]))  # noqa: PTH100


def _findings(opened: Sequence[Dataset]) -> Iterator[Finding]:
    for dataset in opened:
        for finding in dataset.findings:
            yield Finding(finding.severity, finding.code, f"{_path_of(dataset)}: {finding.message}")


def _empty_classes(dataset: Dataset) -> list[str]:
    """Class folders without images; a class whose last image was corrected is not among them: it is gone."""
    counts_L = np.bincount(dataset.targets_N, minlength=len(dataset.labels))
    return [dataset.labels[target] for target in np.flatnonzero(counts_L == 0).tolist()]


def _check_classes(joined: Dataset) -> None:
    """Reject classes without images, which each data set alone may have."""
    if empty := _empty_classes(joined):
        raise DataError(f"class {abbreviate(empty)} of {joined.shown} holds no images; remove or fill its folder")


def _path_of(dataset: Dataset) -> str:
    return path_to_text(str(dataset.path))


def _shown(path: Path) -> str:
    return path_to_text(str(path))
