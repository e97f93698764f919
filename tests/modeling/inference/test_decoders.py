import threading
from types import SimpleNamespace

import pytest

from modeling.errors import ImageError
from modeling.images.formats import MAX_PIXELS
from modeling.inference import decoders as module
from modeling.inference.decoders import MAX_THREADS, Decoders, best_num_threads
from tests.support.images import GREY_4, grey_png


@pytest.fixture
def decoders():
    opened = []

    def open_decoders(num_threads: int = 0) -> Decoders:
        opened.append(Decoders(GREY_4, MAX_PIXELS, num_threads))
        return opened[-1]

    yield open_decoders
    for each in opened:
        each.close()


def values_of(chunk):
    return [image if isinstance(image, ImageError) else int(image[0, 0, 0]) for image in chunk.images]


def sources(*values):
    return [lambda value=value: grey_png(value) for value in values]


@pytest.mark.parametrize(
    ("waited_s", "processor_s", "num_images", "cores", "num_threads"),
    [
        (0.000, 0.010, 8, 4, 4),  # photographs: one a core
        (0.0005, 0.010, 8, 4, 4),
        (0.020, 0.010, 8, 4, 12),  # two thirds are waiting for the storage
        (9.0, 0.010, 8, 4, MAX_THREADS),
        (0.0, 0.010, 8, 64, 8),  # more could not hold the interpreter's lock in turns
        (0.0, 0.280, 8, 64, 64),  # of 12 megapixels, which hardly need it
        (0.0, 0.00064, 8, 4, 1),  # 80 microseconds each, under the interpreter's lock
        (0.00576, 0.00064, 8, 4, 10),  # the same from a slow storage
        (0.0, 0.0, 1, 4, 1),
        (0.0, 0.0, 0, 4, 4),  # nothing could be decoded: as usual
    ],
)
def test_threads_are_as_many_as_keep_the_cores_busy(waited_s, processor_s, num_images, cores, num_threads):
    assert best_num_threads(waited_s, processor_s, num_images, cores) == num_threads


@pytest.mark.parametrize("num_threads", [0, 3])
def test_every_image_comes_back_in_order_measured_or_not(decoders, num_threads):
    at_work = decoders(num_threads)
    groups = [range(start, start + 7) for start in range(0, 210, 7)]

    chunks = [at_work.submit(sources(*group)) for group in groups]

    assert [values_of(chunk.result()) for chunk in chunks] == [list(group) for group in groups]


def test_the_first_images_are_decoded_by_the_caller_and_the_others_by_threads(decoders):
    threads = []

    def source():
        threads.append(threading.current_thread())
        return grey_png(1)

    at_work = decoders()
    at_work.submit([source] * 12).result()

    caller = threading.current_thread()
    assert [thread is caller for thread in threads] == [True] * 8 + [False] * 4


def test_slow_images_are_not_tried_one_by_one_for_long(decoders, monkeypatch):
    monkeypatch.setattr(module, "_TRIAL_S", 0.0)
    threads = []

    def source():
        threads.append(threading.current_thread())
        return grey_png(1)

    decoders().submit([source] * 3).result()

    assert [thread is threading.current_thread() for thread in threads] == [True, False, False]


@pytest.fixture
def slow_storage(monkeypatch):
    """A source whose reading waits 10 ms, by clocks that stand still otherwise, but for 1 ms of decoding."""
    clocks, decode = threading.local(), module.decode_image

    def spend(seconds, *, working):
        clocks.wall = getattr(clocks, "wall", 0.0) + seconds
        clocks.processor = getattr(clocks, "processor", 0.0) + seconds * working

    def source():
        spend(0.01, working=False)
        return grey_png(1)

    def timed_decode(*args, **options):
        spend(0.001, working=True)
        return decode(*args, **options)

    clock = SimpleNamespace(
        perf_counter=lambda: getattr(clocks, "wall", 0.0), thread_time=lambda: getattr(clocks, "processor", 0.0)
    )
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "decode_image", timed_decode)
    return source


def test_reading_that_waits_gets_more_threads_than_there_are_cores(decoders, slow_storage, monkeypatch):
    monkeypatch.setattr(module, "num_cores", lambda: 2)

    at_work = decoders()
    at_work.submit([slow_storage] * 9).result()

    assert at_work.num_threads == 2 * (1 + 10)
    assert at_work.images_per_sec == pytest.approx(22 / 0.011)


def test_images_that_cannot_be_decoded_do_not_set_the_pace_for_others(decoders, monkeypatch):
    monkeypatch.setattr(module, "_TRIAL_S", 60.0)
    monkeypatch.setattr(module, "best_num_threads", lambda waited_s, processor_s, num_images, cores: num_images)
    at_work = decoders()

    chunk = at_work.submit([lambda: b""] * 30 + sources(*range(9))).result()

    assert at_work.num_threads == 8  # as many as were decoded before it was known
    assert len(chunk.images) == 39


def test_a_given_number_of_threads_is_kept(decoders, slow_storage):
    at_work = decoders(3)

    at_work.submit([slow_storage] * 20).result()

    assert at_work.num_threads == 3


def test_bad_images_are_told_in_their_places(decoders):
    def missing():
        raise ImageError("missing", "no such file")

    def broken():
        raise OSError(5, "Input/output error")

    found = values_of(decoders().submit([*sources(1), missing, broken, *sources(2), lambda: b""]).result())

    codes = [each.code if isinstance(each, ImageError) else each for each in found]
    assert codes == [1, "missing", "unreadable", 2, "empty"]


@pytest.mark.parametrize("err", [OSError(24, "Too many open files"), MemoryError()])
def test_a_process_that_cannot_open_files_says_so_and_blames_no_image(decoders, err):
    def fail():
        raise err

    with pytest.raises(type(err)):
        decoders().submit([*sources(1), fail]).result()


def test_seconds_are_those_of_all_threads_together(decoders, slow_storage):
    chunk = decoders(4).submit([slow_storage] * 8).result()

    assert chunk.seconds["read"] == pytest.approx(8 * 0.01 / 4)
    assert chunk.seconds["decode"] == pytest.approx(8 * 0.001 / 4)


def test_images_are_read_in_a_row_before_they_are_decoded_but_no_more_than_a_mebibyte_of_them(decoders, monkeypatch):
    events = []
    decode = module.decode_image
    monkeypatch.setattr(module, "decode_image", lambda *args, **more: events.append("decode") or decode(*args, **more))

    def source(size):
        return lambda: events.append("read") or grey_png(1).ljust(size, b"\0")

    chunk = decoders(1).submit([source(0), source(0), source(1 << 20), source(0)]).result()

    assert events == ["read"] * 3 + ["decode"] * 3 + ["read", "decode"]
    assert values_of(chunk) == [1, 1, 1, 1]


def test_what_is_decoded_fast_is_submitted_in_larger_chunks(decoders, monkeypatch):
    at_work = decoders()
    before = at_work.chunk_size
    ticks = iter(tick / 4096 for tick in range(10_000))
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=ticks.__next__, thread_time=lambda: 0.0))
    at_work.submit(sources(*range(8)))  # two ticks of a quarter of a millisecond each

    assert before == module.SMALLEST_CHUNK < at_work.chunk_size < module.LARGEST_CHUNK


def test_an_empty_chunk_is_done_at_once(decoders):
    assert decoders().submit([]).result().images == []
