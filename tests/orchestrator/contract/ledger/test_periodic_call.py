"""A call that a thread repeats."""

import logging
import threading

import pytest
import redis

from orchestrator.contract.ledger.periodic_call import PeriodicCall
from tests.support.server import wait_until


class Calls:
    """Counts calls; the first of them raise the given errors."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.number = 0

    def __call__(self) -> None:
        self.number += 1
        if self._errors:
            raise self._errors.pop(0)


def test_a_call_is_repeated_until_the_block_ends():
    calls = Calls()

    with PeriodicCall(calls, 0.001, "renewal"):
        wait_until(lambda: calls.number >= 3, what="three calls were made")

    assert "renewal" not in {thread.name for thread in threading.enumerate()}


def test_the_first_call_comes_after_a_pause_or_immediately():
    later, immediately = Calls(), Calls()

    with PeriodicCall(later, 3600, "later"), PeriodicCall(immediately, 3600, "at once", immediately=True):
        wait_until(lambda: immediately.number == 1, what="the first call was made")

    assert (later.number, immediately.number) == (0, 1)


@pytest.mark.parametrize("error", [redis.ConnectionError("gone"), redis.ResponseError("a bug"), ValueError("a bug")])
def test_an_error_is_logged_and_the_next_call_is_made(error, caplog):
    calls = Calls(error)

    with caplog.at_level(logging.WARNING), PeriodicCall(calls, 0.001, "renewal"):
        wait_until(lambda: calls.number >= 2, what="a call after the error was made")

    [record] = caplog.records
    away = isinstance(error, redis.ConnectionError)
    assert record.getMessage() == (
        "renewal: the server is away, trying again: gone" if away else "renewal failed, trying again"
    )
    assert (record.levelno, record.exc_info is None) == (logging.WARNING if away else logging.ERROR, away)


def test_stopping_waits_no_longer_than_it_may_for_a_call_that_hangs():
    begun, may_end = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        may_end.wait(timeout=10)

    periodic = PeriodicCall(hang, 0.001, "hangs")
    periodic.start()
    assert begun.wait(timeout=10)
    periodic.stop(wait_s=0.01)

    assert not may_end.is_set()
    may_end.set()
    periodic.stop()
    assert "hangs" not in {thread.name for thread in threading.enumerate()}


def test_stopping_what_was_never_started_does_nothing():
    PeriodicCall(Calls(), 1, "idle").stop()
