"""The server is killed, frozen, emptied, or answers that it cannot serve."""

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import partial

from benchmarks.surroundings_rig import IDENTICAL, LEASE_S, Fault, Found, Rig
from tests.support.server import Server

_GOES_ON = f"work waits and goes on by itself: {IDENTICAL}"


@contextlib.contextmanager
def _killed(rig: Rig, seconds: float, lose: Callable[[Server], None]) -> Iterator[None]:
    rig.cluster.server.kill()
    lose(rig.cluster.server)
    time.sleep(seconds)
    rig.cluster.server.start()
    yield


@contextlib.contextmanager
def _emptied(rig: Rig) -> Iterator[None]:
    rig.cluster.server.empty()
    yield


@contextlib.contextmanager
def _frozen(rig: Rig, seconds: float) -> Iterator[None]:
    rig.cluster.server.freeze()
    time.sleep(seconds)
    rig.cluster.server.thaw()
    yield


@contextlib.contextmanager
def _refusing(rig: Rig, how: str, seconds: float) -> Iterator[None]:
    with rig.cluster.server.refusing(how):
        time.sleep(seconds)
    yield


def _fault(name: str, fault: Callable[..., contextlib.AbstractContextManager[None]], *arguments: object) -> Fault:
    def inject(rig: Rig) -> Found:
        return rig.disturbed(partial(fault, rig, *arguments))

    return Fault(name, _GOES_ON, inject)


_LONG_S = 3 * LEASE_S

SERVER_FAULTS = (
    _fault("server killed, back at once", _killed, 0.0, lambda _: None),
    _fault("server killed, away for longer than a lease", _killed, _LONG_S, lambda _: None),
    _fault("server killed, its last second lost", _killed, 0.0, Server.lose_last_second),
    _fault("server killed, its files lost", _killed, 0.0, Server.lose_files),
    _fault("server emptied", _emptied),
    _fault("server frozen for longer than a lease", _frozen, _LONG_S),
    _fault("server frozen for longer than a call's limit", _frozen, 20.0),
    _fault("server at its memory limit", _refusing, "memory", _LONG_S),
    _fault("server cannot write to its disk (MISCONF)", _refusing, "disk", _LONG_S),
    _fault("server is a read-only replica", _refusing, "replica", _LONG_S),
    _fault("server is a replica without its master", _refusing, "masterless", _LONG_S),
    _fault("server lacks replicas (NOREPLICAS)", _refusing, "replicas", _LONG_S),
)
