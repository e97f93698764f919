"""Threads that read and decode images ahead; their number is measured on the first images."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from modeling.errors import ImageError, trouble_of
from modeling.images.decode import decode_image, warm_up
from modeling.images.pixels import Pixels
from modeling.images.preprocessing import Preprocessing
from modeling.images.quotas import num_cores
from modeling.inference.decode_watch import DecodeWatch

Source = Callable[[], bytes]
"""Reads one image's bytes; may raise ImageError or OSError."""

BatchDecoder = Callable[[Sequence[bytes], int], Sequence[Pixels | None]]
"""Decodes files together, none with more than a number of pixels; None for those that `decode_image` has to decode."""

MAX_THREADS = 32  # or one a core, if there are more cores
SMALLEST_CHUNK, LARGEST_CHUNK = 8, 32
_CHUNK_S = 8e-3
_LOCKED_S = 150e-6  # per image: Python's lock is held or handed over, and other threads wait
_READ_BYTES = 1 << 20  # that a thread reads before it decodes
DEVICE_CHUNK, DEVICE_BYTES, DEVICE_THREADS = 64, 64 << 20, 2  # if a device decodes: images, bytes, callers
_TRIAL_IMAGES = 8
_TRIAL_S = 0.05  # short beside a slice of seconds; a few large images are enough


@dataclass(slots=True)
class Chunk:
    """The decoded images of one decode call: pixels, or the error.

    remarks: of the images that have any, by their place in `images` (`modeling.images.remarks`).
    seconds: by stage, divided by the number of threads that work at the same time.
    """

    images: list[Pixels | ImageError] = field(default_factory=list)
    remarks: dict[int, tuple[str, ...]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=lambda: {"read": 0.0, "decode": 0.0})


def join_chunks(chunks: Iterable[Chunk]) -> Chunk:
    """One chunk of the images of several."""
    joined = Chunk()
    for chunk in chunks:
        joined.remarks |= {len(joined.images) + place: remarks for place, remarks in chunk.remarks.items()}
        joined.images += chunk.images
        for stage, spent_s in chunk.seconds.items():
            joined.seconds[stage] += spent_s
    return joined


@dataclass(slots=True)
class _Trial:
    """The times of the first images, read and decoded one by one while no other thread works.

    spent_s: of all of them. The rest counts those that could be decoded: their elapsed time, and in it the processor
    time and the time of waiting for the storage.
    """

    spent_s: float = 0.0
    num_images: int = 0
    elapsed_s: float = 0.0
    processor_s: float = 0.0
    waited_s: float = 0.0

    @property
    def over(self) -> bool:
        return self.num_images >= _TRIAL_IMAGES or self.spent_s > _TRIAL_S


class Decoders:
    """Reads and decodes chunks of images in threads; the caller keeps their order.

    Not `images/loader.py`: the number of threads is found from the first images, and work units bound how far ahead.

    Unless a number of threads is given, the calling thread reads and decodes the first images and measures how many
    threads keep the cores busy: one per core, and more by the share of time that reading waits for the storage
    (Goetz et al., Java Concurrency in Practice, 2006, 8.2: cores x (1 + wait / compute)). Small images take and
    release the interpreter's lock often: more threads than can hold it in turns slow each other down.
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        max_pixels: int,
        num_threads: int = 0,
        batch_decoder: BatchDecoder | None = None,
        watch: DecodeWatch | None = None,
    ) -> None:
        """num_threads: 0: by measurement. batch_decoder: a device's decoder, which is tried first.

        watch: receives what each thread decodes; not what a device decodes.
        """
        self._preprocessing = preprocessing
        self._max_pixels = max_pixels
        self._batch_decoder = batch_decoder
        self._watch = watch
        self._trial = _Trial()
        self._pool: ThreadPoolExecutor | None = None
        self._num_threads = num_threads or (min(DEVICE_THREADS, num_cores()) if batch_decoder else 0)
        warm_up()

    @property
    def chunk_size(self) -> int:
        """Images to submit at a time: more of those that decode fast, since handing over a chunk takes time too."""
        if self._batch_decoder:
            return DEVICE_CHUNK
        if not self._trial.num_images:
            return SMALLEST_CHUNK
        fast = int(_CHUNK_S * self._trial.num_images / max(self._trial.elapsed_s, 1e-9))
        return max(SMALLEST_CHUNK, min(LARGEST_CHUNK, fast))

    @property
    def num_threads(self) -> int:
        """Threads that decode; one per core until the first images are measured."""
        return self._num_threads or num_cores()

    @property
    def images_per_sec(self) -> float:
        """Images per second of all threads, estimated from the first images; 0 if none were measured."""
        trial = self._trial
        return self.num_threads * trial.num_images / max(trial.elapsed_s, 1e-9)

    def submit(self, sources: Sequence[Source]) -> Future[Chunk]:
        """Read and decode the images in a thread; in this one until the number of threads is known."""
        chunk = Chunk()
        if not self._num_threads:
            sources = self._try(sources, chunk)
        if self._pool is None:
            if not self._num_threads:
                return _done(chunk)
            self._pool = ThreadPoolExecutor(self._num_threads, thread_name_prefix="decode")
        return self._pool.submit(self.decode_all, sources, chunk, self._num_threads) if sources else _done(chunk)

    def close(self) -> None:
        """Drop the chunks that no thread has begun, and end the threads."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _try(self, sources: Sequence[Source], chunk: Chunk) -> Sequence[Source]:
        """Read and decode images in this thread until enough are measured; returns the rest."""
        trial = self._trial
        for place, source in enumerate(sources):
            if trial.over:
                self._num_threads = best_num_threads(trial.waited_s, trial.processor_s, trial.num_images, num_cores())
                return sources[place:]
            self._try_one(source, chunk)
        return ()

    def _try_one(self, source: Source, chunk: Chunk) -> None:
        started, processor_started = time.perf_counter(), time.thread_time()
        data = _read(source)
        read_s, processor_read_s = time.perf_counter() - started, time.thread_time() - processor_started
        image = self._decode(data, chunk, len(chunk.images), source)
        elapsed_s, processor_s = time.perf_counter() - started, time.thread_time() - processor_started
        chunk.images.append(image)
        chunk.seconds["read"] += read_s
        chunk.seconds["decode"] += elapsed_s - read_s
        trial = self._trial
        trial.spent_s += elapsed_s
        if not isinstance(image, ImageError):
            trial.num_images += 1
            trial.elapsed_s += elapsed_s
            trial.processor_s += processor_s
            trial.waited_s += max(0.0, read_s - processor_read_s)

    def decode_all(self, sources: Sequence[Source], chunk: Chunk, num_threads: int = 1) -> Chunk:
        """Read some images, decode them into `chunk`, and go on with others, all in this thread.

        Each system call releases the interpreter's lock and wakes a waiting thread, mostly for nothing: with tiny
        images that takes longer than decoding. So several files are read in a row.
        """
        waiting = deque(sources)
        limit = DEVICE_BYTES if self._batch_decoder else _READ_BYTES
        while waiting:
            started = time.perf_counter()
            read: list[bytes | ImageError] = []
            begun: list[Source] = []
            num_bytes = 0
            while waiting and num_bytes < limit:
                begun.append(waiting.popleft())
                read.append(_read(begun[-1]))
                num_bytes += len(read[-1]) if isinstance(read[-1], bytes) else 0
            done = time.perf_counter()
            chunk.images += self._decode_read(read, begun, chunk)
            chunk.seconds["read"] += (done - started) / num_threads
            chunk.seconds["decode"] += (time.perf_counter() - done) / num_threads
        return chunk

    def _decode_read(
        self, read: Sequence[bytes | ImageError], sources: Sequence[Source], chunk: Chunk
    ) -> list[Pixels | ImageError]:
        """Decode what was read, on the device first if it has a decoder."""
        first = len(chunk.images)
        if self._batch_decoder is None:
            together = enumerate(zip(read, sources, strict=True), first)
            return [self._decode(data, chunk, place, source) for place, (data, source) in together]
        files = [b"" if isinstance(data, ImageError) else data for data in read]
        decoded = self._batch_decoder(files, self._max_pixels)
        return [
            self._decode(data, chunk, place, source) if pixels is None else pixels
            for place, (data, source, pixels) in enumerate(zip(read, sources, decoded, strict=True), first)
        ]

    def _decode(self, data: bytes | ImageError, chunk: Chunk, place: int, source: Source) -> Pixels | ImageError:
        """The pixels or the error; what is remarked goes into the chunk."""
        if isinstance(data, ImageError):
            return data
        remarks: list[str] = []
        if self._watch is not None:
            self._watch.begin(source)
        try:
            pixels_HWC = decode_image(data, self._preprocessing, max_pixels=self._max_pixels, remarks=remarks)
        except ImageError as err:
            return err
        finally:
            if self._watch is not None:
                self._watch.end()
        if remarks:
            chunk.remarks[place] = tuple(remarks)
        return pixels_HWC


def best_num_threads(waited_s: float, processor_s: float, num_images: int, cores: int) -> int:
    """Threads that keep the cores busy, from the waiting and the processor time of one thread with some images."""
    if not num_images:
        return cores
    at_work = max(1, min(cores, int(processor_s / num_images / _LOCKED_S)))
    wanted = round(at_work * (1 + waited_s / max(processor_s, 1e-9)))
    return max(1, min(max(MAX_THREADS, cores), wanted))


def _read(source: Source) -> bytes | ImageError:
    try:
        return source()
    except ImageError as err:
        return err
    except OSError as err:
        if trouble_of(err) == "worker":
            raise
        return ImageError("unreadable", err.strerror or type(err).__name__)


def _done(chunk: Chunk) -> Future[Chunk]:
    future: Future[Chunk] = Future()
    future.set_result(chunk)
    return future
