"""Images of pushes that a decoder hangs on, refuses, or lacks memory for."""

import threading
import time

import pytest

from orchestrator.contract.lines.requests import Held
from orchestrator.contract.lines.settings import Line, LineSettings
from tests.support.bombs import png_of
from tests.support.images import grey_png
from tests.support.line_workers import FakePushPredictor
from tests.support.server import wait_until
from workers.lines import decode
from workers.lines.decode import SLOW_EXIT_CODE, LineDecoders
from workers.lines.model import LineModel
from workers.lines.requests import OpenLine, Request
from workers.lines.scheduler import Scheduler


class ProcessEndedError(Exception):
    pass


def test_a_decoder_that_hangs_ends_the_process(monkeypatch):
    released, exit_codes = threading.Event(), []

    def decode_for_ever(data, *args, **options):
        while not released.is_set():
            pass  # processor time is what counts
        return decode_image(data, *args, **options)

    def exit_process(code):
        exit_codes.append(code)
        raise ProcessEndedError

    decode_image = decode.decode_image
    monkeypatch.setattr(decode, "decode_image", decode_for_ever)
    monkeypatch.setattr(decode, "DECODE_S", 0.05)
    monkeypatch.setattr(decode.os, "_exit", exit_process)
    scheduler = Scheduler(1, lambda late: None)
    decoders = LineDecoders(scheduler, 1, 1_000_000, lambda request, error: None, lambda requests: None)
    line = Line(LineSettings("post", "m@champion", "F", "R"))
    opened = OpenLine(line, None, "redis://s", LineModel("m@1", FakePushPredictor()))
    held = Held("1/slow", 0, 0, 1, False, grey_png(1))
    now = time.monotonic()
    decoders.start()
    scheduler.add([Request(held, opened, now + 1e6, now, 0.0, image=held.image)])

    def ended():
        try:
            decoders.look()
        except ProcessEndedError:
            return True
        return False

    try:
        wait_until(ended, what="the process ends")
    finally:
        released.set()
        decoders.stop()
        scheduler.close()
    assert exit_codes == [SLOW_EXIT_CODE]


@pytest.mark.parametrize(
    ("data", "code"),
    [(b"", "empty"), (b"\xff\xd8 no image", "not_an_image"), (png_of(2_000), "too_large")],
    ids=["empty", "no image", "more pixels than the worker takes"],
)
def test_what_is_no_image_or_a_bomb_is_reported_and_held_no_longer(data, code):
    errors = []
    scheduler = Scheduler(1, lambda late: None)
    decoders = LineDecoders(
        scheduler,
        1,
        1_000_000,
        lambda request, error: errors.append((request.key, error.code)),
        lambda requests: None,
    )
    line = Line(LineSettings("post", "m@champion", "F", "R"))
    opened = OpenLine(line, None, "redis://s", LineModel("m@1", FakePushPredictor()))
    now = time.monotonic()
    decoders.start()
    scheduler.add([Request(Held("1/bad", 0, 0, 1, False, data), opened, now + 1e6, now, 0.0, image=data)])

    wait_until(lambda: not scheduler.num_held, what="it is answered")

    assert errors == [("1/bad", code)]
    decoders.stop()
    scheduler.close()


def test_an_image_for_which_this_worker_lacks_memory_is_left_to_others_and_not_answered(monkeypatch):
    def decode_nothing(data, *args, **options):
        raise MemoryError

    monkeypatch.setattr(decode, "decode_image", decode_nothing)
    answered, left = [], []
    scheduler = Scheduler(1, lambda late: None)
    decoders = LineDecoders(
        scheduler,
        1,
        1_000_000,
        lambda request, error: answered.append(request.key),
        lambda requests: left.extend(each.key for each in requests),
    )
    line = Line(LineSettings("post", "m@champion", "F", "R"))
    opened = OpenLine(line, None, "redis://s", LineModel("m@1", FakePushPredictor()))
    now = time.monotonic()
    decoders.start()
    scheduler.add([Request(Held("1/a", 0, 0, 1, False, b"a"), opened, now + 1e6, now, 0.0, image=b"a")])

    wait_until(lambda: not scheduler.num_held, what="it is held no longer")

    decoders.stop()
    scheduler.close()
    assert (answered, left) == ([], ["1/a"])
