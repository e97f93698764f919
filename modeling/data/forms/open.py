"""Opens training data, and detects their form."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from modeling.data.dataset import PART_NAMES, TEST, TRAIN, VALIDATION, Dataset, Finding, abbreviate
from modeling.data.forms.cifar10 import find_cifar10, open_cifar10
from modeling.data.forms.folders import EXPECTED, check_num_labels, open_folders
from modeling.data.forms.idx import find_idx_parts, open_idx
from modeling.data.forms.lists import open_list
from modeling.data.layout import Layout
from modeling.data.lists.reader import LIST_SUFFIXES
from modeling.errors import DataError
from modeling.names import is_archive, label_fault, look_of


def open_dataset(path: Path, layout: Layout | None = None, *, to_learn: bool = True) -> Dataset:
    """Detect the form of the data at `path` and list the images; image files are not opened.

    A folder per class, part folders, idx files, CIFAR-10's binary files, a list of path and label, or a manifest.

    layout: what the folders in `path` are: classes or parts; None: it is detected, too.
    to_learn: False: to evaluate a model: a single class, and classes without images, are no errors then.

    Raises:
        DataError: the form is not supported; the message says what was found and what is expected.
    """
    return check_opened(open_form(path, layout, to_learn=to_learn), to_learn=to_learn)


def check_opened(dataset: Dataset, *, to_learn: bool) -> Dataset:
    """The data set with the findings about its classes and parts.

    Raises:
        DataError: a class has no legal name; or the classes cannot be learned, where they are to be.
    """
    if to_learn:
        check_num_labels(dataset.shown, dataset.labels)
    if fault := label_fault(dataset.labels):
        raise DataError(f"{dataset.shown}: {fault}")
    findings = (*_check_names(dataset), *_check_parts(dataset, to_learn=to_learn))
    return replace(dataset, findings=(*dataset.findings, *findings))


def check_learnable(dataset: Dataset) -> None:
    """Reject data without any image for validation, as far as the list of images shows it; the scan checks more.

    Raises:
        DataError: every class has only one training image, and there is no official validation part.
    """
    parts_N = dataset.parts_N
    learnt_N = dataset.targets_N if parts_N is None else dataset.targets_N[parts_N <= TRAIN]
    has_validation = parts_N is not None and bool((parts_N == VALIDATION).any())
    if not has_validation and np.bincount(learnt_N).max() == 1:
        raise DataError(f"every class of {dataset.shown} has only one image: none is left for validation; add images")


def open_form(path: Path, layout: Layout | None, *, to_learn: bool) -> Dataset:
    """The data at `path` as `open_dataset` opens them, before its checks of classes and parts."""
    if layout is not None:
        if not path.is_dir():
            raise DataError(f"{path}: --layout {layout} is for folders, and this is {_what(path)}; leave it out")
        return open_folders(path, layout, to_learn=to_learn)
    if path.is_file() and path.suffix.lower() in LIST_SUFFIXES:
        return open_list(path)
    if path.is_file() and is_archive(path.name):
        raise DataError(f"{path} is an archive, which is not read; unpack it, and give the folder")
    if path.is_file():
        raise DataError(f"{path} is not a folder, nor a list ({', '.join(sorted(LIST_SUFFIXES))}); {EXPECTED}")
    if not path.is_dir():
        raise DataError(f"{path} is {_what(path)}; {EXPECTED}")
    if (idx := find_idx_parts(path)) is not None:
        return open_idx(*idx)
    if (cifar10 := find_cifar10(path)) is not None:
        return open_cifar10(cifar10)
    return open_folders(path, to_learn=to_learn)


def _what(path: Path) -> str:
    return "not a folder" if path.exists() else "missing"


def _check_names(dataset: Dataset) -> Iterator[Finding]:
    """A finding for each set of classes whose names are equal but for capital letters, or look equal."""
    cure = "rename one of them if they are one class"
    names: dict[str, list[str]] = {}
    for label in dataset.labels:
        names.setdefault(look_of(label), []).append(label)
    for alike in names.values():
        if len(alike) < 2:
            continue
        if len({label.casefold() for label in alike}) == 1:
            message = f"the names of classes {' and '.join(alike)} differ in upper and lower case only; {cure}"
            yield Finding("warning", "names_differ_by_case", message)
        else:
            shown = " and ".join(f"{label!a}" for label in alike)
            yield Finding("warning", "names_look_alike", f"the names of classes {shown} look alike; {cure}")


def _check_parts(dataset: Dataset, *, to_learn: bool) -> Iterator[Finding]:
    """A finding for each official part that lacks a class; a class that training lacks is an error, where it learns."""
    if dataset.parts_N is None:
        return
    learned = set(dataset.targets_N[dataset.parts_N <= TRAIN].tolist())  # FREE images may also be used for training
    for part in (VALIDATION, TEST):
        held = set(dataset.targets_N[dataset.parts_N == part].tolist())
        unlearned = [dataset.labels[target] for target in sorted(held - learned)]
        if unlearned and to_learn:
            raise DataError(
                f"{dataset.shown}: the {PART_NAMES[part]} part holds class {abbreviate(unlearned)}, which the "
                "train part lacks; a network cannot learn it: add training images, or remove the class"
            )
        if held and (absent := [dataset.labels[target] for target in sorted(learned - held)]):
            message = f"class {abbreviate(absent)} has no {PART_NAMES[part]} images: nothing is measured for it"
            yield Finding("warning", "class_not_in_part", message)
