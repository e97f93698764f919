"""Derives the findings of a data report: errors, warnings and information, one sentence each."""

# Shapes: N images, L labels.
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from modeling.data.dataset import VALIDATION, Finding, abbreviate
from modeling.data.duplicates import Duplicates
from modeling.data.report import MIN_SIDE, DataReport
from modeling.images.remarks import FURTHER_PAGES, UNCERTAIN_DEPTH, describe_remark

FEW_IMAGES = 3  # of a class: one each for training, validation and test
IMBALANCE = 10.0  # largest to smallest class, from which accuracy on the small one drops
_SEVERITIES = ("error", "warning", "info")
_PLAIN_MODES = {"L", "RGB"}


def check_report(report: DataReport) -> tuple[Finding, ...]:
    """All findings of a scan, sorted by severity, in a fixed order within a severity."""
    checks: tuple[Callable[[DataReport], Iterator[Finding]], ...] = (
        _check_readable, _check_classes, _check_balance, _check_duplicates, _check_look_alikes, _check_leaks,
        _check_pictures, _check_kinds,
    )  # fmt: skip
    findings = [finding for check in checks for finding in check(report)]
    return tuple(sorted(findings, key=lambda finding: _SEVERITIES.index(finding.severity)))


def _check_readable(report: DataReport) -> Iterator[Finding]:
    if not report.errors:
        return
    dataset, num_bad = report.dataset, len(report.errors)
    example = _example(report, report.errors)
    if num_bad == dataset.num_images:
        message = f"none of the {num_bad:,} images in {dataset.shown} can be read{example}"
        yield Finding("error", "none_readable", message)
        return
    codes = Counter(code for code, _ in report.errors.values()).most_common()
    kinds = ", ".join(f"{count:,} {code}" for code, count in codes)
    message = f"{num_bad:,} of {dataset.num_images:,} images cannot be read and are left out ({kinds}){example}"
    yield Finding("warning", "unreadable", message)


def _check_classes(report: DataReport) -> Iterator[Finding]:
    """Classes with too few usable training images."""
    dataset = report.dataset
    if len(report.errors) == dataset.num_images:
        return
    counts_L = _class_counts(report, report.learnable_N)
    for target in np.flatnonzero(counts_L == 0).tolist():
        yield _class_without_images(report, target)
    few = [f"{dataset.labels[target]} ({counts_L[target]})" for target in np.flatnonzero(counts_L < FEW_IMAGES)]
    if not counts_L.all():
        return
    has_validation = dataset.parts_N is not None and bool((dataset.parts_N == VALIDATION).any())
    if counts_L.max() == 1 and not has_validation:
        message = f"every class of {dataset.shown} has only one image: none is left for validation; add images"
        yield Finding("error", "one_image_per_class", message)
    elif few:
        message = (
            f"too few images for training, validation and test: {abbreviate(few)}; at least {FEW_IMAGES} per class "
            "are needed, 100 are recommended"
        )
        yield Finding("warning", "few_images", message)


def _class_without_images(report: DataReport, target: int) -> Finding:
    """The error for a class without usable training images."""
    dataset = report.dataset
    label = dataset.labels[target]
    bad = [index for index in report.errors if dataset.targets_N[index] == target]
    if (report.leaked_N & (dataset.targets_N == target)).any():
        message = (
            f"every training image of class {label} in {dataset.shown} is a duplicate of a test or validation image"
        )
        return Finding("error", "class_leaked", f"{message}; add others")
    return Finding(
        "error", "class_unreadable", f"no image of class {label} in {dataset.shown} can be read{_example(report, bad)}"
    )


def _check_balance(report: DataReport) -> Iterator[Finding]:
    counts_L, labels = _class_counts(report, report.learnable_N), report.dataset.labels
    largest, smallest = int(counts_L.argmax()), int(counts_L.argmin())
    if counts_L[smallest] and (ratio := counts_L[largest] / counts_L[smallest]) >= IMBALANCE:
        message = (
            f"class {labels[largest]} has {counts_L[largest]:,} images to learn from and {labels[smallest]} "
            f"{counts_L[smallest]:,}, {ratio:.0f} times fewer; add images of the small classes"
        )
        yield Finding("warning", "imbalance", message)


def _check_duplicates(report: DataReport) -> Iterator[Finding]:
    kinds = ((True, "duplicates", "the same bytes"), (False, "near_duplicates", "nearly the same picture"))
    for exact, kind, what in kinds:
        sets = [found for found in report.duplicates if found.exact == exact]
        mixed = [found for found in sets if len(report.labels_of(found)) > 1]
        if mixed:
            pair = _example_pair(report, mixed)
            message = f"{_describe_size(mixed)} are {what} in different classes{pair}; at most one class is right"
            yield Finding("warning", f"{kind}_across_classes", message)
        if plain := [found for found in sets if found not in mixed]:
            message = (
                f"{_describe_size(plain)} are {what}{_example_pair(report, plain)}; a split keeps them in one part"
            )
            yield Finding("info", kind, message)


def _check_look_alikes(report: DataReport) -> Iterator[Finding]:
    if alike := report.look_alikes:
        message = (
            f"{len(alike):,} images are so similar that near duplicates among them cannot be detected, such as "
            f"{report.dataset.name(alike[0])}; a fixed camera causes this, but if they are frames of videos, "
            "keep each video in one part with part folders"
        )
        yield Finding("warning", "look_alikes", message)


def _check_leaks(report: DataReport) -> Iterator[Finding]:
    if num_leaked := int(report.leaked_N.sum()):
        message = (
            f"{num_leaked:,} images are duplicates of images in the official test or validation part, and "
            "are left out of the other part"
        )
        yield Finding("warning", "duplicates_across_parts", message)


def _check_pictures(report: DataReport) -> Iterator[Finding]:
    name = report.dataset.name
    tiny = [index for index, fact in enumerate(report.facts) if fact is not None and min(fact.size) < MIN_SIDE]
    if tiny:
        examples = abbreviate([name(index) for index in tiny[:4]], 3)
        message = f"{len(tiny):,} images are less than {MIN_SIDE} px wide or high ({examples})"
        yield Finding("warning", "tiny", f"{message}; replace them by larger ones")
    if flat := report.flat:
        message = f"{len(flat):,} images have a single colour, such as {name(flat[0])}; remove them"
        yield Finding("warning", "single_colour", message)


def _check_kinds(report: DataReport) -> Iterator[Finding]:
    facts = [fact for fact in report.facts if fact is not None]
    if num_turned := sum(fact.orientation > 1 for fact in facts):
        yield Finding("info", "turned", f"{num_turned:,} images are stored turned and are read upright (EXIF)")
    modes = Counter(fact.mode for fact in facts if fact.mode not in _PLAIN_MODES)
    if modes:
        kinds = ", ".join(f"{count:,} {mode}" for mode, count in modes.most_common())
        yield Finding(
            "info", "modes", f"{modes.total():,} images are neither RGB nor grey, and are converted ({kinds})"
        )
    remarks = Counter(remark for fact in facts for remark in fact.remarks)
    if num_moving := remarks[FURTHER_PAGES]:
        yield Finding("info", FURTHER_PAGES, describe_remark(FURTHER_PAGES, num_moving))
    if num_uncertain := remarks[UNCERTAIN_DEPTH]:
        yield Finding("warning", UNCERTAIN_DEPTH, describe_remark(UNCERTAIN_DEPTH, num_uncertain))


def _class_counts(report: DataReport, chosen_N: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The number of chosen images of each class."""
    return np.bincount(report.dataset.targets_N[chosen_N], minlength=len(report.dataset.labels)).astype(np.int64)


def _example(report: DataReport, indices: Iterable[int]) -> str:
    for index in indices:
        code, message = report.errors[index]
        return f"; for one, {report.dataset.name(index)}: {code}: {message}"
    return ""


def _describe_size(sets: list[Duplicates]) -> str:
    """The number of images and of sets."""
    num_images = sum(len(found.indices) for found in sets)
    return f"{num_images:,} images in {len(sets):,} {'set' if len(sets) == 1 else 'sets'}"


def _example_pair(report: DataReport, sets: list[Duplicates]) -> str:
    """Two images of the first set: the first one, and one of another class if there is one."""
    dataset, (first, second, *_) = report.dataset, sets[0].indices
    others = (index for index in sets[0].indices if dataset.targets_N[index] != dataset.targets_N[first])
    return f" ({dataset.name(first)} = {dataset.name(next(others, second))})"
