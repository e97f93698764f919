import threading

import pytest

from modeling.inference.decode_watch import DecodeWatch
from tests.support.server import wait_until


@pytest.fixture
def working():
    """Starts a thread that decodes `source` by calling `work` again and again, and ends it."""
    stop, threads = threading.Event(), []

    def start(watch, source, work):
        begun = threading.Event()

        def run():
            watch.begin(source)
            begun.set()
            while not stop.is_set():
                work()
            watch.end()

        threads.append(threading.Thread(target=run))
        threads[-1].start()
        begun.wait()

    yield start
    stop.set()
    for thread in threads:
        thread.join()


def test_a_thread_that_decodes_is_seen_with_its_image_and_its_processor_time(working):
    watch = DecodeWatch()
    working(watch, "a.jpg", lambda: sum(range(1000)))

    first = watch.look()
    wait_until(lambda: watch.look()[0].processor_s > 0.01, what="the thread has worked for a while")

    assert [(each.source, each.processor_s) for each in first] == [("a.jpg", 0.0)]


def test_a_thread_that_waits_spends_no_processor_time(working):
    watch, waiting = DecodeWatch(), threading.Event()
    asleep = threading.Event()
    working(watch, "a.jpg", lambda: (asleep.set(), waiting.wait())[0])
    asleep.wait()
    watch.look()
    wait_until(lambda: not watch.look()[0].advanced, what="the thread sleeps")

    assert watch.look()[0].processor_s < 0.1
    waiting.set()


def test_the_next_image_of_a_thread_begins_at_zero():
    watch = DecodeWatch()
    watch.begin("a.jpg")
    watch.look()
    wait_until(lambda: watch.look()[0].processor_s > 0, what="time passes")
    watch.end()
    watch.begin("a.jpg")

    assert [(each.source, each.processor_s) for each in watch.look()] == [("a.jpg", 0.0)]


def test_between_images_and_after_the_end_of_a_thread_nothing_is_decoded():
    watch = DecodeWatch()
    thread = threading.Thread(target=lambda: (watch.begin(1), watch.end()))
    thread.start()
    thread.join()
    unfinished = threading.Thread(target=lambda: watch.begin(2))
    unfinished.start()
    unfinished.join()

    wait_until(lambda: watch.look() == [], what="the system has ended the thread")
