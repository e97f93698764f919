"""Predicts a shard whose workers died: one batch at a time, with a note of what is tried, without its poison images."""

import itertools
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from modeling.errors import ImageError
from modeling.inference.bisection import Predictor
from modeling.inference.decoders import Chunk, Decoders, join_chunks
from modeling.inference.pipeline import BatchResult, predict_decoded
from modeling.inference.prediction import Prediction
from workers.classify.decode_clock import DecodeClock, ShardImage
from workers.classify.journal import BATCH, IMAGE, SLOW_NOTES, Evidence, Journal, Notes
from workers.classify.open_shard import OpenShard


@dataclass(frozen=True)
class Careful:
    """What predicting carefully needs. progressed: called after each image; may raise."""

    classifier: Predictor
    top_k: int
    decoders: Decoders
    clock: DecodeClock
    progressed: Callable[[], None]


@dataclass
class _Batch:
    """The images of a batch that are done, each a chunk of its own, and the rows of those that were tried alone."""

    chunks: dict[int, Chunk] = field(default_factory=dict)
    alone: dict[int, Prediction] = field(default_factory=dict)


def predict_carefully(shard: OpenShard, sources: list[ShardImage], journal: Journal, careful: Careful) -> None:
    """Add the rows of every image to the shard.

    An image is decoded once, and its batch gets the same images as ever: the rows are those of an undisturbed worker.
    """
    evidence = journal.evidence()
    size = careful.classifier.batch_size
    with journal.open() as notes:
        for start in range(0, len(sources), size):
            indices = range(start, min(start + size, len(sources)))
            batch = _Batch({index: Chunk([error]) for index in indices if (error := _known_error(evidence, index))})
            for index in batch.chunks:
                with suppress(ImageError, OSError):
                    sources[index]()  # notes its size and time, as for any image that has a row of its own
            for index in _suspects(evidence, indices, batch):
                _try_others(evidence.deaths[IMAGE, index], sources, evidence, notes, careful)
                notes.trying(IMAGE, index)
                _try_alone(sources[index], batch, careful, more_time=bool(evidence.slow[index]))
            whole = not evidence.is_poison(BATCH, start)
            shard.add(_predict_batch(batch, sources, indices, notes, careful, whole=whole))
    shard.num_stopped = sum(evidence.slow[index] >= SLOW_NOTES for index in range(len(sources)))


def _known_error(evidence: Evidence, index: int) -> ImageError | None:
    """The error of an image that is not tried again."""
    if evidence.slow[index] >= SLOW_NOTES:
        return ImageError("too_slow", "decoding takes too long, also when the image is tried alone")
    if evidence.is_poison(IMAGE, index):
        return ImageError("crashed_worker", "a worker process died whenever it tried this image")
    return None


def _suspects(evidence: Evidence, indices: range, batch: _Batch) -> list[int]:
    """The images of a batch to try alone: first those that no process died at, so that others pass before a suspect."""
    tried = [
        index
        for index in indices
        if index not in batch.chunks and (evidence.deaths[BATCH, indices.start] or evidence.slow[index])
    ]
    return sorted(tried, key=lambda index: (evidence.deaths[IMAGE, index] > 0, -evidence.deaths[IMAGE, index], index))


def _try_others(number: int, sources: list[ShardImage], evidence: Evidence, notes: Notes, careful: Careful) -> None:
    """Try some images that no process died at, before a suspect: as many as processes died at it.

    So others have passed when a process dies at the suspect; and a process that is killed at a certain moment of its
    life is not killed at the same image each time.
    """
    sound = [index for index in range(len(sources)) if not evidence.deaths[IMAGE, index] and not evidence.slow[index]]
    for index in itertools.islice(itertools.cycle(sound), number):
        notes.trying(IMAGE, index)
        _try_alone(sources[index], _Batch(), careful, more_time=False)


def _try_alone(source: ShardImage, batch: _Batch, careful: Careful, *, more_time: bool) -> None:
    """Decode and predict one image."""
    careful.clock.alone = more_time
    chunk = careful.decoders.decode_all([source], Chunk())
    careful.clock.alone = False
    batch.chunks[source.index] = chunk
    [batch.alone[source.index]] = predict_decoded(chunk, careful.classifier, top_k=careful.top_k).predictions
    careful.progressed()


def _predict_batch(
    batch: _Batch, sources: list[ShardImage], indices: range, notes: Notes, careful: Careful, *, whole: bool
) -> BatchResult:
    """The rows of a batch. whole: predict its images together; otherwise keep the rows that they got alone."""
    if not whole:
        kept = [batch.alone.get(index) or _failed(batch.chunks[index]) for index in indices]
        return BatchResult(kept, join_chunks(batch.chunks.values()).seconds)
    notes.trying(BATCH, indices.start)
    for index in indices:
        if index not in batch.chunks:
            batch.chunks[index] = careful.decoders.decode_all([sources[index]], Chunk())
            careful.progressed()
    joined = join_chunks(batch.chunks[index] for index in indices)
    result = predict_decoded(joined, careful.classifier, top_k=careful.top_k)
    careful.progressed()
    return result


def _failed(chunk: Chunk) -> Prediction:
    """The row of an image that was not tried."""
    [error] = chunk.images
    assert isinstance(error, ImageError)
    return Prediction.failed(error)
