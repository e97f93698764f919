"""The scan before training: every image is read and decoded, and nothing is changed."""

# Shapes: H height, W width, C channels.
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from modeling.data.cache import FactsCache, Verdict
from modeling.data.checks import check_report
from modeling.data.dataset import Dataset
from modeling.data.duplicates import find_duplicates, group_numbers
from modeling.data.facts import COLOUR_SIDE, GREY_SIDE, ImageFacts, check_image, check_pixels
from modeling.data.findings import Finding
from modeling.data.report import DataReport
from modeling.errors import ImageError
from modeling.images.loader import load_ahead, read_image_file
from modeling.images.progress import Emit, Progress

Look = tuple[str, Verdict]
"""The sha256 of an image's bytes (empty where they cannot be read), and what it is."""

_FILES_A_TASK = 16
_TASKS_AHEAD = 256


def scan_dataset(dataset: Dataset, emit: Emit, cache: Path | None) -> DataReport:
    """Read every image to its end and say what there is.

    emit: told `{"event": "scan", "num_done", "num_images"}` twice a second and at the end.
    cache: a folder in which what was found out is kept by content for the next scan, or None.
    """
    with FactsCache(cache) as store:
        digests, verdicts = [], []
        known: dict[ImageFacts, ImageFacts] = {}
        thumbnailed = []
        for digest, (facts, error) in _with_progress(_looks(dataset, store), dataset.num_images, emit):
            digests.append(digest)
            thumbnailed.append(facts)
            plain = None if facts is None else replace(facts, thumbnail=b"")
            verdicts.append(Verdict(None if plain is None else known.setdefault(plain, plain), error))
    likeness = find_duplicates(digests, thumbnailed)
    report = DataReport(
        dataset=dataset,
        digests=tuple(digests),
        facts=tuple(facts for facts, _ in verdicts),
        errors={index: error for index, (_, error) in enumerate(verdicts) if error is not None},
        duplicates=likeness.duplicates,
        groups_N=group_numbers(dataset.num_images, likeness.duplicates),
        look_alikes=likeness.look_alikes,
        flat=tuple(index for index, fact in enumerate(thumbnailed) if fact is not None and _is_flat(fact.thumbnail)),
    )
    trouble = (Finding("info", "cache_unusable", store.trouble),) if store.trouble else ()
    return replace(report, findings=(*check_report(report), *dataset.findings, *trouble))


def _looks(dataset: Dataset, store: FactsCache) -> Iterator[Look]:
    """A look at each image, in order."""
    if dataset.pixels_NHWC is not None:
        for pixels_HWC, facts in zip(dataset.pixels_NHWC, check_pixels(dataset.pixels_NHWC), strict=True):
            yield hashlib.sha256(pixels_HWC.tobytes()).hexdigest(), Verdict(facts, None)
        return

    def look_at_some(start: int) -> list[Look]:
        return [_look_at_file(path, store) for path in dataset.files[start : start + _FILES_A_TASK]]

    for looks in load_ahead(range(0, dataset.num_images, _FILES_A_TASK), look_at_some, num_ahead=_TASKS_AHEAD):
        yield from looks


def _look_at_file(path: Path, store: FactsCache) -> Look:
    try:
        data = read_image_file(path)
    except ImageError as err:
        return "", Verdict(None, (err.code, err.message))
    digest = hashlib.sha256(data).hexdigest()
    verdict = store.get(digest)
    if verdict is None:
        verdict = _check(data)
        store.put(digest, verdict)
    return digest, verdict


def _check(data: bytes) -> Verdict:
    try:
        return Verdict(check_image(data), None)
    except ImageError as err:
        return Verdict(None, (err.code, err.message))


def _is_flat(thumbnail: bytes) -> bool:
    """Whether an image is of a single colour."""
    luma, chroma = GREY_SIDE**2, COLOUR_SIDE**2
    planes = (thumbnail[:luma], thumbnail[luma : luma + chroma], thumbnail[luma + chroma :])
    return all(plane == plane[:1] * len(plane) for plane in planes)


def _with_progress(looks: Iterator[Look], num_images: int, emit: Emit) -> Iterator[Look]:
    """The looks, with events on how many are done."""
    progress = Progress(lambda done, total: emit({"event": "scan", "num_done": done, "num_images": total}))
    for num_done, look in enumerate(looks, start=1):
        yield look
        progress.update(num_done, num_images)
