"""The clock of a worker's machine, or of the server's, is set by hours while a job runs."""

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import partial

from benchmarks.surroundings_rig import IDENTICAL, LEASE_S, Fault, Found, Rig
from tests.support.set_clock import CAN_SET_CLOCKS, SetClock

HOURS_S = 3 * 3600.0
MOST_HELD = 3  # shards by one worker
_EXPECTED = f"work goes on, no lease is over early or lasts for hours: {IDENTICAL}"


@contextlib.contextmanager
def _set(clocks: Callable[[Rig], list[SetClock]], rig: Rig, seconds: float) -> Iterator[None]:
    for clock in clocks(rig):
        clock.set(seconds)
    yield


@contextlib.contextmanager
def _set_and_killed(rig: Rig, seconds: float) -> Iterator[None]:
    """A worker that dies in the moment when the server's clock is set: its shards are free soon."""
    assert rig.server_clock is not None
    rig.server_clock.set(seconds)
    rig.workers[0].kill_group()
    rig.killed.append(rig.workers[0])
    time.sleep(LEASE_S)
    yield


def _fault(name: str, fault: Callable[..., contextlib.AbstractContextManager[None]], seconds: float) -> Fault:
    most_again = MOST_HELD if fault is _set_and_killed else 0

    def inject(rig: Rig) -> Found:
        try:
            return rig.disturbed(partial(fault, rig, seconds), most_again=most_again)
        finally:
            for clock in (rig.server_clock, *rig.worker_clocks):
                if clock is not None:
                    clock.set(0)

    return Fault(name, _EXPECTED, inject, None if CAN_SET_CLOCKS else "setting a clock needs Linux and gcc")


def _server(rig: Rig) -> list[SetClock]:
    return [rig.server_clock] if rig.server_clock else []


def _one_worker(rig: Rig) -> list[SetClock]:
    return rig.worker_clocks[:1]


CLOCK_FAULTS = tuple(
    _fault(name, fault, seconds)
    for seconds, way in ((HOURS_S, "forward by 3 h"), (-HOURS_S, "back by 3 h"))
    for name, fault in (
        (f"clock of the server set {way}", partial(_set, _server)),
        (f"clock of a worker set {way}", partial(_set, _one_worker)),
        (f"clock of the server set {way}, a worker killed then", _set_and_killed),
    )
)
