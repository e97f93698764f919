"""Read, decode, batch, predict: groups of images in, their predictions out, with every stage at work at once.

Threads read and decode small chunks of images a bounded way ahead, into the next group too; the calling
thread fills batches with the valid images in order. It predicts them itself, or hands them to as many threads as
the classifier has streams, and takes their answers in order. A batch never spans two groups, so that a group's
predictions do not depend on what came before it.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from modeling.batches import Batcher, GroupResult
from modeling.decode import decode_image
from modeling.errors import ImageError
from modeling.formats import MAX_PIXELS
from modeling.pixels import Pixels
from modeling.preprocessing import Preprocessing
from modeling.surviving import Predictor

Source = Callable[[], bytes]
"""Reads one image's bytes; may raise ImageError or OSError."""

_CHUNK = 8  # images a thread reads and decodes at a time
_MAX_OPEN_GROUPS = 2  # the one being predicted and the next: more would claim work that others could do


@dataclass(slots=True)
class _Chunk:
    """A few images of one group: pixels, or why there are none."""

    images: list[Pixels | ImageError] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: {"read": 0.0, "decode": 0.0})


@dataclass(frozen=True, slots=True)
class _Pending:
    chunk: Future[_Chunk]
    ends_group: bool


def predict_groups(
    groups: Iterable[Sequence[Source]],
    classifier: Predictor,
    *,
    top_k: int,
    batch_size: int,
    decode_threads: int,
    max_pixels: int = MAX_PIXELS,
    between_batches: Callable[[], None] = lambda: None,
) -> Iterator[GroupResult]:
    """Predictions of every group, in order; the next group is pulled while the present one is predicted.

    `between_batches` runs in the calling thread after every chunk and every batch; what it raises, or what
    `groups` raises, ends the iteration once the threads have stopped.
    """
    preprocessing = classifier.preprocessing
    pool = ThreadPoolExecutor(decode_threads, thread_name_prefix="decode")

    def submit(sources: Sequence[Source]) -> Future[_Chunk]:
        return pool.submit(_read_and_decode, sources, preprocessing, max_pixels)

    max_chunks = 2 * -(-batch_size // _CHUNK) + decode_threads  # two batches, and work for every thread
    batcher = Batcher(classifier, top_k, batch_size, between_batches)
    try:
        for pending in _ahead(_chunks(groups), submit, max_chunks):
            started = time.perf_counter()
            chunk = pending.chunk.result()
            batcher.add(chunk.images, chunk.seconds | {"wait": time.perf_counter() - started})
            if pending.ends_group:
                batcher.end_group()
            yield from batcher.results()
        batcher.land_all()
        yield from batcher.results()
    finally:
        batcher.close()
        pool.shutdown(wait=True, cancel_futures=True)


def _chunks(groups: Iterable[Sequence[Source]]) -> Iterator[tuple[Sequence[Source], bool]]:
    """Each group cut into chunks, and whether the group ends with it; an empty group is one empty chunk."""
    for group in groups:
        for start in range(0, max(1, len(group)), _CHUNK):
            yield group[start : start + _CHUNK], start + _CHUNK >= len(group)


def _ahead(
    chunks: Iterator[tuple[Sequence[Source], bool]],
    submit: Callable[[Sequence[Source]], Future[_Chunk]],
    max_chunks: int,
) -> Iterator[_Pending]:
    """Chunks in order, each submitted before it is asked for: up to `max_chunks`, of two groups at most."""
    waiting: deque[_Pending] = deque()
    open_groups = 1  # groups with a chunk not yet handed on, counting the one that comes next
    exhausted = False
    while True:
        while not exhausted and len(waiting) < max_chunks and open_groups <= _MAX_OPEN_GROUPS:
            following = next(chunks, None)
            if following is None:
                exhausted = True
                break
            sources, ends_group = following
            waiting.append(_Pending(submit(sources), ends_group))
            open_groups += ends_group
        if not waiting:
            return
        pending = waiting.popleft()
        yield pending
        open_groups -= pending.ends_group


def _read_and_decode(sources: Sequence[Source], preprocessing: Preprocessing, max_pixels: int) -> _Chunk:
    """Runs in a decode thread."""
    chunk = _Chunk()
    for source in sources:
        started = time.perf_counter()
        read = started
        try:
            data = source()
            read = time.perf_counter()
            chunk.images.append(decode_image(data, preprocessing, max_pixels=max_pixels))
        except ImageError as err:
            chunk.images.append(err)
        except OSError as err:
            chunk.images.append(ImageError("unreadable", err.strerror or type(err).__name__))
        finally:
            chunk.seconds["read"] += read - started
            chunk.seconds["decode"] += time.perf_counter() - read
    return chunk
