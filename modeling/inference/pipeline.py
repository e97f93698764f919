"""Read, decode, batch, predict: groups of images in, their predictions out, with every stage at work at once.

Threads read and decode small chunks of images a bounded way ahead, into the next groups too; the calling
thread fills batches with the valid images in order. It predicts them itself, or hands them to as many threads as
the classifier has streams, and takes their answers in order. A batch never spans two groups, so that a group's
predictions do not depend on what came before it. Groups come in lots: a worker's lot is a shard, of which it claims
one ahead and no more, however small its batches are.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from modeling.images.formats import MAX_PIXELS
from modeling.inference.batches import Batcher, GroupResult
from modeling.inference.bisection import Predictor
from modeling.inference.decoders import Chunk, Decoders, Source

_BESIDE_NETWORK = 0.75  # of the speed that one decoding thread has by itself
_MAX_OPEN_LOTS = 2  # the one being predicted and the next: more would claim work that others could do


@dataclass(frozen=True, slots=True)
class _Pending:
    chunk: Future[Chunk]
    ends_group: bool
    ends_lot: bool


def predict_groups(
    lots: Iterable[Iterable[Sequence[Source]]],
    classifier: Predictor,
    *,
    top_k: int,
    batch_size: int = 0,
    decode_threads: int = 0,
    max_pixels: int = MAX_PIXELS,
    between_batches: Callable[[], None] = lambda: None,
) -> Iterator[GroupResult]:
    """Predictions of every group of every lot, in order; the next lot is pulled while the present one is predicted.

    batch_size: 0: the classifier's. decode_threads: 0: as many as the first images show to be best.
    `between_batches` runs in the calling thread after every chunk and every batch; what it raises, or what
    `lots` raises, ends the iteration once the threads have stopped.
    """
    batch_size = batch_size or classifier.batch_size
    decoders = Decoders(classifier.preprocessing, max_pixels, decode_threads, classifier.decode_together)
    batcher = Batcher(classifier, top_k, batch_size, between_batches, lambda: _streams_beside(classifier, decoders))
    try:
        for pending in _ahead(_chunks(lots, decoders), decoders, batch_size):
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


def _chunks(
    lots: Iterable[Iterable[Sequence[Source]]], decoders: Decoders
) -> Iterator[tuple[Sequence[Source], bool, bool]]:
    """Each group cut into chunks, and whether group and lot end with it; an empty group is one empty chunk."""
    for lot in lots:
        groups = iter(lot)
        group = next(groups, None)
        while group is not None:
            following = next(groups, None)
            end = 0
            while not end or end < len(group):
                start, end = end, end + decoders.chunk_size
                ends_group = end >= len(group)
                yield group[start:end], ends_group, ends_group and following is None
            group = following


def _ahead(
    chunks: Iterator[tuple[Sequence[Source], bool, bool]], decoders: Decoders, batch_size: int
) -> Iterator[_Pending]:
    """Chunks in order, each submitted before it is asked for: two batches and one a thread, of two lots at most."""
    waiting: deque[_Pending] = deque()
    open_lots = 1  # lots with a chunk not yet handed on, counting the one that comes next
    exhausted = False
    while True:
        while not exhausted and len(waiting) < _num_chunks(decoders, batch_size) and open_lots <= _MAX_OPEN_LOTS:
            following = next(chunks, None)
            if following is None:
                exhausted = True
                break
            sources, ends_group, ends_lot = following
            waiting.append(_Pending(decoders.submit(sources), ends_group, ends_lot))
            open_lots += ends_lot
        if not waiting:
            return
        pending = waiting.popleft()
        yield pending
        open_lots -= pending.ends_lot


def _streams_beside(classifier: Predictor, decoders: Decoders) -> int:
    return best_num_streams(
        classifier.num_streams, classifier.images_per_sec, decoders.num_threads, decoders.images_per_sec
    )


def best_num_streams(num_streams: int, images_per_sec: float, decode_threads: int, decoded_per_sec: float) -> int:
    """One where it keeps up with decoding, else all: fewer threads wait less for the interpreter's lock.

    images_per_sec: of all streams; 0 where it is not known, as decoded_per_sec. That was measured with nothing else at
    work: one thread, which is for tiny images, lives by the lock and is slower beside the network.
    """
    expected = decoded_per_sec * (_BESIDE_NETWORK if decode_threads == 1 else 1.0)
    return 1 if images_per_sec > num_streams * expected > 0 else num_streams


def _num_chunks(decoders: Decoders, batch_size: int) -> int:
    """Chunks that may be under way: those of two batches, and one for each thread."""
    return 2 * -(-batch_size // decoders.chunk_size) + decoders.num_threads
