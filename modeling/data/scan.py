"""The scan before training: reads and decodes every image, and changes nothing."""

# Shapes: H height, W width, C channels.
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from modeling.data.cache import CachedFacts, FactsCache
from modeling.data.checks import check_report
from modeling.data.dataset import Dataset, Finding
from modeling.data.duplicates import find_duplicates, group_numbers
from modeling.data.facts import COLOUR_SIDE, GREY_SIDE, ImageFacts, check_image, check_pixels
from modeling.data.report import DataReport
from modeling.errors import ImageError
from modeling.images.loader import load_ahead, read_image_file
from modeling.images.progress import Emit, Progress, quiet_phase

ImageCheck = tuple[str, CachedFacts]
"""The sha256 of an image's bytes (empty if they cannot be read), and the verdict on it."""

_FILES_PER_TASK = 16
_TASKS_AHEAD = 256


def scan_dataset(dataset: Dataset, emit: Emit, cache: Path | None) -> DataReport:
    """Read and decode every image and return the data report.

    emit: receives `{"event": "scan", "num_done", "num_images"}` twice a second and at the end.
    cache: a folder that stores results by content for the next scan, or None.
    """
    with FactsCache(cache) as store:
        digests, verdicts = [], []
        known: dict[ImageFacts, ImageFacts] = {}
        all_facts = []
        for digest, (facts, error) in _with_progress(_check_images(dataset, store), dataset.num_images, emit):
            digests.append(digest)
            all_facts.append(facts)
            compact = None if facts is None else replace(facts, thumbnail=b"")
            verdicts.append(CachedFacts(None if compact is None else known.setdefault(compact, compact), error))
    quiet_phase(emit, "comparing the images")
    result = find_duplicates(digests, all_facts)
    report = DataReport(
        dataset=dataset,
        digests=tuple(digests),
        facts=tuple(facts for facts, _ in verdicts),
        errors={index: error for index, (_, error) in enumerate(verdicts) if error is not None},
        duplicates=result.duplicates,
        groups_N=group_numbers(dataset.num_images, result.duplicates),
        look_alikes=result.look_alikes,
        flat=tuple(index for index, fact in enumerate(all_facts) if fact is not None and _is_flat(fact.thumbnail)),
    )
    trouble = (Finding("info", "cache_unusable", store.trouble),) if store.trouble else ()
    return replace(report, findings=(*check_report(report), *dataset.findings, *trouble))


def _check_images(dataset: Dataset, store: FactsCache) -> Iterator[ImageCheck]:
    """The check of each image, in order."""
    if dataset.pixels_NHWC is not None:
        for pixels_HWC, facts in zip(dataset.pixels_NHWC, check_pixels(dataset.pixels_NHWC), strict=True):
            yield hashlib.sha256(pixels_HWC.tobytes()).hexdigest(), CachedFacts(facts, None)
        return

    def check_chunk(start: int) -> list[ImageCheck]:
        return [check_file(path, store) for path in dataset.files[start : start + _FILES_PER_TASK]]

    for checks in load_ahead(range(0, dataset.num_images, _FILES_PER_TASK), check_chunk, num_ahead=_TASKS_AHEAD):
        yield from checks


def check_file(path: Path, store: FactsCache) -> ImageCheck:
    """Read and decode one image file, unless the cache knows its bytes."""
    try:
        data = read_image_file(path)
    except ImageError as err:
        return "", CachedFacts(None, (err.code, err.message))
    digest = hashlib.sha256(data).hexdigest()
    verdict = store.get(digest)
    if verdict is None:
        try:
            verdict = CachedFacts(check_image(data), None)
        except ImageError as err:
            verdict = CachedFacts(None, (err.code, err.message))
        store.put(digest, verdict)
    return digest, verdict


def _is_flat(thumbnail: bytes) -> bool:
    """Whether an image has a single colour."""
    luma, chroma = GREY_SIDE**2, COLOUR_SIDE**2
    planes = (thumbnail[:luma], thumbnail[luma : luma + chroma], thumbnail[luma + chroma :])
    return all(plane == plane[:1] * len(plane) for plane in planes)


def _with_progress(checks: Iterator[ImageCheck], num_images: int, emit: Emit) -> Iterator[ImageCheck]:
    """Yield the checks and report progress."""
    progress = Progress(lambda done, total: emit({"event": "scan", "num_done": done, "num_images": total}))
    for num_done, check in enumerate(checks, start=1):
        yield check
        progress.update(num_done, num_images)
