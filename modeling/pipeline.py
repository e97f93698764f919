"""Read, decode, batch, predict: groups of images in, their predictions out, with every stage at work at once.

Threads read and decode small chunks of images a bounded way ahead, into the next group too; the calling
thread fills batches with the valid images in order. It predicts them itself, or hands them to as many threads as
the classifier has streams, and takes their answers in order. A batch never spans two groups, so that a group's
predictions do not depend on what came before it.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from modeling.batches import Batcher, GroupResult
from modeling.decoders import Chunk, Decoders, Source
from modeling.formats import MAX_PIXELS
from modeling.surviving import Predictor

_MAX_OPEN_GROUPS = 2  # the one being predicted and the next: more would claim work that others could do


@dataclass(frozen=True, slots=True)
class _Pending:
    chunk: Future[Chunk]
    ends_group: bool


def predict_groups(
    groups: Iterable[Sequence[Source]],
    classifier: Predictor,
    *,
    top_k: int,
    batch_size: int = 0,
    decode_threads: int = 0,
    max_pixels: int = MAX_PIXELS,
    between_batches: Callable[[], None] = lambda: None,
) -> Iterator[GroupResult]:
    """Predictions of every group, in order; the next group is pulled while the present one is predicted.

    batch_size: 0: the classifier's. decode_threads: 0: as many as the first images show to be best.
    `between_batches` runs in the calling thread after every chunk and every batch; what it raises, or what
    `groups` raises, ends the iteration once the threads have stopped.
    """
    batch_size = batch_size or classifier.batch_size
    decoders = Decoders(classifier.preprocessing, max_pixels, decode_threads)
    batcher = Batcher(classifier, top_k, batch_size, between_batches)
    try:
        for pending in _ahead(_chunks(groups, decoders), decoders, batch_size):
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
        decoders.close()


def _chunks(groups: Iterable[Sequence[Source]], decoders: Decoders) -> Iterator[tuple[Sequence[Source], bool]]:
    """Each group cut into chunks, and whether the group ends with it; an empty group is one empty chunk."""
    for group in groups:
        end = 0
        while not end or end < len(group):
            start, end = end, end + decoders.chunk_size
            yield group[start:end], end >= len(group)


def _ahead(chunks: Iterator[tuple[Sequence[Source], bool]], decoders: Decoders, batch_size: int) -> Iterator[_Pending]:
    """Chunks in order, each submitted before it is asked for: two batches and one chunk a thread, of two groups."""
    waiting: deque[_Pending] = deque()
    open_groups = 1  # groups with a chunk not yet handed on, counting the one that comes next
    exhausted = False
    while True:
        while (
            not exhausted
            and len(waiting) < 2 * -(-batch_size // decoders.chunk_size) + decoders.num_threads
            and open_groups <= _MAX_OPEN_GROUPS
        ):
            following = next(chunks, None)
            if following is None:
                exhausted = True
                break
            sources, ends_group = following
            waiting.append(_Pending(decoders.submit(sources), ends_group))
            open_groups += ends_group
        if not waiting:
            return
        pending = waiting.popleft()
        yield pending
        open_groups -= pending.ends_group
