import threading
import weakref
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from modeling.errors import ImageError
from modeling.images.remarks import FURTHER_PAGES, UNCERTAIN_DEPTH
from modeling.inference.bisection import BisectingPredictor
from modeling.inference.decoders import SMALLEST_CHUNK
from modeling.inference.pipeline import best_num_streams, predict_units
from modeling.inference.prediction import Prediction
from tests.support.fakes import FakeClassifier, predict_brightness
from tests.support.images import encode, grey_png


def sources(*values: int):
    return [lambda value=value: grey_png(value) for value in values]


def answer(value: int) -> Prediction:
    return predict_brightness(value, 1)


def run(units, classifier, *, batch_size=4, decode_threads=2, **options):
    return list(
        predict_units(units, classifier, top_k=1, batch_size=batch_size, decode_threads=decode_threads, **options)
    )


def predictions(units, classifier, **options):
    """Batch by batch."""
    return [result.predictions for result in run(units, classifier, **options)]


def flat(batches):
    return [prediction for batch in batches for prediction in batch]


def decode_threads_alive() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(("decode", "predict"))]


@pytest.mark.parametrize("num_streams", [1, 2])
@pytest.mark.parametrize("images_per_sec", [0.0, 100.0, 1e9])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 8, 20, 64])
def test_batches_are_cut_by_position_whatever_is_decoded_and_submitted_together(
    num_streams, images_per_sec, batch_size
):
    units = [range(37), [], range(100, 108), range(200, 201)]
    classifier = FakeClassifier(num_streams=num_streams, images_per_sec=images_per_sec)

    found = predictions([sources(*unit) for unit in units], classifier, batch_size=batch_size)

    cut = [unit[at : at + batch_size] for unit in units for at in range(0, max(len(unit), 1), batch_size)]
    assert found == [[answer(value) for value in batch] for batch in cut]
    assert sorted(classifier.batches) == [list(batch) for batch in cut if batch]


def test_small_batches_of_a_fast_network_are_submitted_together_and_those_of_a_slow_one_are_not():
    def submissions(images_per_sec):
        calls = []
        classifier = FakeClassifier(images_per_sec=images_per_sec)
        run([sources(*range(16))], classifier, batch_size=1, between_batches=lambda: calls.append(len(classifier.seen)))
        return sorted(set(calls))

    assert submissions(10.0) == list(range(17))
    assert submissions(200.0) == [0, 4, 8, 12, 16]


@pytest.mark.parametrize("decode_threads", [0, 2])
@pytest.mark.parametrize("batch_decoder", [None, lambda files, max_pixels: [None] * len(files)])
def test_what_is_remarked_about_an_image_stays_with_its_prediction(decode_threads, batch_decoder):
    moving = encode(Image.new("L", (4, 4), 9), "GIF", save_all=True, append_images=[Image.new("L", (4, 4), 99)])
    deep = encode(Image.fromarray(np.full((4, 4), 257 * 9, np.uint16)))
    unit = sources(*range(40))
    unit[3], unit[21], unit[22] = (lambda: moving), (lambda: deep), (lambda: b"")

    found = flat(predictions([unit], FakeClassifier(batch_decoder=batch_decoder), decode_threads=decode_threads))

    remarks = {place: prediction.remarks for place, prediction in enumerate(found) if prediction.remarks}
    assert remarks == {3: (FURTHER_PAGES,), 21: (UNCERTAIN_DEPTH,)}
    assert found[3] == replace(answer(9), remarks=(FURTHER_PAGES,))
    assert found[22].error_code == "empty"


def test_predictions_come_in_the_order_of_the_images_though_reading_takes_unequal_time():
    overtaken = threading.Event()

    def first():
        assert overtaken.wait(timeout=10)
        return grey_png(0)

    def last():
        overtaken.set()
        return grey_png(16)

    unit = [first, *sources(*range(1, 16)), last, *sources(*range(17, 50))]

    found = predictions([unit], FakeClassifier(), batch_size=25, decode_threads=4)

    assert found == [[answer(value) for value in range(25)], [answer(value) for value in range(25, 50)]]


def test_a_unit_is_cut_into_batches_that_never_span_two_units():
    classifier = FakeClassifier()

    found = predictions([sources(1, 2, 3), sources(4, 5, 6, 7, 8)], classifier, batch_size=4)

    assert found == [[answer(v) for v in values] for values in ((1, 2, 3), (4, 5, 6, 7), (8,))]
    assert classifier.batches == [[1, 2, 3], [4, 5, 6, 7], [8]]


def test_a_batch_is_cut_by_position_though_some_of_its_images_are_bad():
    def missing():
        raise ImageError("missing", "no such file")

    def unreadable():
        raise PermissionError(13, "Permission denied")

    classifier = FakeClassifier()
    unit = [*sources(1), missing, lambda: b"", *sources(2), unreadable, *sources(3)]

    found = predictions([unit], classifier, batch_size=3)

    assert found == [
        [
            answer(1),
            Prediction(error_code="missing", error="no such file"),
            Prediction(error_code="empty", error="the file is empty (0 bytes)"),
        ],
        [answer(2), Prediction(error_code="unreadable", error="Permission denied"), answer(3)],
    ]
    assert classifier.batches == [[1], [2, 3]]


def test_an_empty_unit_and_a_unit_of_bad_images_have_results_too():
    bad = Prediction(error_code="empty", error="the file is empty (0 bytes)")

    assert predictions([[], [lambda: b""], sources(1)], FakeClassifier()) == [[], [bad], [answer(1)]]
    assert predictions([], FakeClassifier()) == []


def test_the_image_that_makes_the_classifier_raise_is_found_and_its_batch_mates_keep_their_answers():
    culprit = Prediction(error_code="predict_failed", error="ValueError: cannot take 6")

    found = predictions([sources(1, 2, 3, 4, 5, 6, 7)], FakeClassifier(refused=6), batch_size=8)

    assert found == [[answer(1), answer(2), answer(3), answer(4), answer(5), culprit, answer(7)]]


def test_a_batch_too_large_for_memory_is_halved():
    classifier = FakeClassifier(max_batch=2)

    assert predictions([sources(*range(5))], classifier, batch_size=8) == [[answer(v) for v in range(5)]]


@pytest.mark.parametrize("num_streams", [1, 2])
def test_bad_batches_between_good_ones_keep_their_places(num_streams):
    bad = Prediction(error_code="empty", error="the file is empty (0 bytes)")
    unit = [*[lambda: b""] * 4, *sources(1, 2, 3, 4), *[lambda: b""] * 40, *sources(5)]

    found = predictions([unit, [lambda: b""]], FakeClassifier(num_streams=num_streams))

    assert found == [[bad] * 4, [answer(v) for v in (1, 2, 3, 4)], *[[bad] * 4] * 10, [answer(5)], [bad]]


def test_a_size_that_did_not_fit_in_memory_is_not_tried_again():
    classifier = FakeClassifier(max_batch=2)

    run([sources(*range(8)), sources(*range(8))], classifier, batch_size=8)

    assert [len(batch) for batch in classifier.batches if len(batch) > 2] == [8, 4]


@pytest.mark.parametrize("num_streams", [2, 5])
def test_several_streams_give_the_same_answers_in_the_same_order(num_streams):
    overtaken = threading.Event()

    class Overtaken(FakeClassifier):
        """Answers the first batch only when a later one has been answered."""

        def predict(self, images, top_k):
            if int(images[0, 0, 0, 0]) == 0:
                assert overtaken.wait(timeout=10)
                return super().predict(images, top_k)
            try:
                return super().predict(images, top_k)
            finally:
                overtaken.set()

    units = [sources(*range(start, start + 7)) for start in range(0, 70, 7)] + [[], [lambda: b""]]
    expected = predictions(units, FakeClassifier(refused=12))

    assert predictions(units, Overtaken(refused=12, num_streams=num_streams)) == expected
    assert decode_threads_alive() == []


def test_streams_predict_at_the_same_time():
    together = threading.Barrier(2, timeout=10)  # breaks, and so fails the batch, unless two batches meet

    class Meeting(FakeClassifier):
        def predict(self, images, top_k):
            together.wait()
            return super().predict(images, top_k)

    found = predictions([sources(*range(16))], Meeting(num_streams=2))

    assert flat(found) == [answer(value) for value in range(16)]


@pytest.mark.parametrize(
    ("images_per_sec", "decode_threads", "decoded_per_sec", "expected"),
    [
        (1000.0, 2, 400.0, 1),
        (1000.0, 2, 600.0, 2),  # one stream does 500
        (1000.0, 1, 600.0, 1),  # beside the network one thread does 450
        (1000.0, 1, 700.0, 2),
        (0.0, 2, 400.0, 2),  # not known
        (1000.0, 2, 0.0, 2),
    ],
)
def test_one_stream_is_enough_where_it_keeps_up(images_per_sec, decode_threads, decoded_per_sec, expected):
    assert best_num_streams(2, images_per_sec, decode_threads, decoded_per_sec) == expected


@pytest.mark.parametrize(("images_per_sec", "threads"), [(1e9, {"MainThread"}), (1.0, {"predict_0", "predict_1"})])
def test_one_stream_is_used_where_it_keeps_up_with_decoding(images_per_sec, threads):
    seen, both = set(), threading.Event()

    class Watched(FakeClassifier):
        def predict(self, images, top_k):
            seen.add(threading.current_thread().name)
            if seen == threads:
                both.set()
            assert both.wait(timeout=10)  # the first stream waits for the second, where there is one
            return super().predict(images, top_k)

    classifier = Watched(num_streams=2)
    classifier.images_per_sec = images_per_sec

    found = predictions([sources(*range(60))], classifier, decode_threads=0)

    assert flat(found) == [answer(value) for value in range(60)]
    assert seen == threads


def test_a_stream_that_breaks_ends_the_run_and_leaves_no_threads():
    with pytest.raises(RuntimeError, match="the device is gone"):
        run([sources(*range(50))], FakeClassifier(broken=True, num_streams=3))

    assert decode_threads_alive() == []


def test_a_broken_classifier_ends_the_run_instead_of_blaming_the_images():
    with pytest.raises(RuntimeError, match="the device is gone"):
        run([sources(1, 2)], FakeClassifier(broken=True))

    assert decode_threads_alive() == []


def test_reading_ahead_is_bounded():
    num_read, pause = 0, threading.Event()  # never set
    ahead = []

    def source():
        nonlocal num_read
        num_read += 1
        return grey_png(1)

    class Watcher(FakeClassifier):
        def predict(self, images, top_k):
            settled = -1  # the threads run ahead as far as they may, then stand still
            while settled != num_read:
                settled = num_read
                pause.wait(0.002)
            ahead.append(num_read - len(self.batches) * 4)
            return super().predict(images, top_k)

    run([[source] * 600], Watcher(), batch_size=4, decode_threads=2)

    assert num_read == 600
    assert max(ahead) <= (2 * 1 + 2 + 1) * SMALLEST_CHUNK  # two batches, one chunk a thread, and the one in hand


def test_the_next_unit_is_pulled_while_the_present_one_is_predicted_and_no_more_than_one():
    events = []

    def units() -> Iterator[list]:
        for number in range(4):
            events.append(f"pull {number}")
            yield sources(number)

    for number, result in enumerate(predict_units(units(), FakeClassifier(), top_k=1, batch_size=2, decode_threads=2)):
        assert result.predictions == [answer(number)]
        events.append(f"done {number}")

    assert events == ["pull 0", "pull 1", "done 0", "pull 2", "done 1", "pull 3", "done 2", "done 3"]


def test_a_unit_is_pulled_lazily_chunk_by_chunk():
    num_pulled, ahead = 0, []

    def unit():
        nonlocal num_pulled
        for value in range(200):
            num_pulled += 1
            yield from sources(value)

    num_done = 0
    for result in predict_units([unit()], FakeClassifier(), top_k=1, batch_size=4, decode_threads=2):
        ahead.append(num_pulled - num_done)
        num_done += len(result.predictions)

    assert num_done == num_pulled == 200
    in_progress = 1 + 2 * 1 + 2 + 1  # the one in hand, two batches, one a thread, and the next
    assert max(ahead) <= in_progress * SMALLEST_CHUNK


def test_several_streams_pull_no_more_units_than_they_are_busy_with_and_the_next():
    num_pulled, num_done, ahead = 0, 0, []

    def units() -> Iterator[list]:
        nonlocal num_pulled
        for number in range(30):
            num_pulled += 1
            ahead.append(num_pulled - num_done)
            yield sources(number)

    classifier = FakeClassifier(num_streams=2)
    for _ in predict_units(units(), classifier, top_k=1, batch_size=2, decode_threads=2):
        num_done += 1

    assert num_done == 30
    assert max(ahead) <= 2 + 2 + 1  # two being read, two streams, and one batch that waits for a stream


def test_all_threads_read_however_small_the_batches_of_a_unit_are():
    together, lock, num_inside = threading.Event(), threading.Lock(), 0

    def source():
        nonlocal num_inside
        with lock:
            num_inside += 1
            if num_inside == 16:
                together.set()
        assert together.wait(timeout=10), f"only {num_inside} images were read at once"
        return grey_png(1)

    results = run([[source] * 320], FakeClassifier(), batch_size=8, decode_threads=16)

    assert [len(result.predictions) for result in results] == [8] * 40


def test_what_between_batches_raises_stops_everything_and_leaves_no_threads():
    class DrainError(Exception):
        pass

    classifier = FakeClassifier()

    def stop():
        if len(classifier.batches) == 2:
            raise DrainError

    with pytest.raises(DrainError):
        run([sources(*range(100))], classifier, between_batches=stop)

    assert classifier.batches == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert decode_threads_alive() == []


def test_closing_the_iterator_early_leaves_no_threads():
    units = [sources(*range(50)), sources(1)]
    results = predict_units(units, FakeClassifier(), top_k=1, batch_size=4, decode_threads=2)
    next(results)

    results.close()

    assert decode_threads_alive() == []


def test_what_the_units_raise_is_raised_and_leaves_no_threads():
    def units():
        yield sources(1)
        raise ConnectionError("the ledger is gone")

    with pytest.raises(ConnectionError, match="the ledger is gone"):
        run(units(), FakeClassifier())

    assert decode_threads_alive() == []


def test_every_stage_is_timed():
    (result,) = run([sources(1, 2, 3)], FakeClassifier())

    assert sorted(result.seconds) == ["decode", "predict", "read", "wait"]
    assert all(seconds >= 0 for seconds in result.seconds.values())
    assert result.seconds["decode"] > 0


def test_a_size_that_did_not_fit_is_not_tried_by_the_next_slice_either():
    classifier = FakeClassifier(max_batch=2)

    for _ in range(2):
        run([sources(*range(8))], classifier, batch_size=8)

    assert [len(batch) for batch in classifier.batches].count(8) == 1


@pytest.mark.parametrize(
    "text",
    ["DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes", "CUDA error: out of memory"],
)
def test_a_batch_that_native_code_cannot_allocate_is_halved(text):
    class Greedy(FakeClassifier):
        def predict(self, images, top_k):
            if len(images) > 2:
                raise RuntimeError(text)
            return super().predict(images, top_k)

    classifier = Greedy()

    found = BisectingPredictor(classifier, 1).predict([np.full((4, 4, 1), value, np.uint8) for value in range(8)])

    assert (found, classifier.largest_batch) == ([answer(value) for value in range(8)], 2)


def test_a_classifier_that_lacks_descriptors_blames_no_image():
    def fail(brightness):
        classifier.before = lambda brightness: None  # the next attempt would succeed
        raise OSError(24, "Too many open files")

    classifier = FakeClassifier(before=fail)

    with pytest.raises(OSError, match="Too many open files"):
        run([sources(*range(8))], classifier, batch_size=8)


def test_a_batch_that_did_not_fit_is_out_of_memory_by_the_time_that_its_halves_are_tried():
    held: list[weakref.ref] = []

    class Greedy(FakeClassifier):
        def predict(self, images, top_k):
            if len(images) > 2:
                held.append(weakref.ref(images))  # the traceback of what is raised next holds this call's images
                raise MemoryError
            assert all(batch() is None for batch in held)
            return super().predict(images, top_k)

    predictor = BisectingPredictor(Greedy(), 1)

    found = predictor.predict([np.full((4, 4, 1), value, np.uint8) for value in range(8)])

    assert found == [answer(value) for value in range(8)]
    assert len(held) == 1 + 1  # of eight, of four; later ones are of two at once
