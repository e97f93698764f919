"""The network between a worker and the server is cut, in one direction or both, or is slow."""

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import partial

from benchmarks.surroundings_rig import IDENTICAL, LEASE_S, Fault, Found, Rig
from tests.support.cut_proxy import DIRECTIONS, Direction

_EXPECTED = f"the other worker goes on: {IDENTICAL}"
_ALL = f"work waits and goes on by itself: {IDENTICAL}"


@contextlib.contextmanager
def _cut(rig: Rig, places: tuple[int, ...], seconds: float, directions: tuple[Direction, ...]) -> Iterator[None]:
    with contextlib.ExitStack() as cuts:
        for place in places:
            cuts.enter_context(rig.proxies[place].cut(*directions))
        time.sleep(seconds)
    yield


@contextlib.contextmanager
def _slow(rig: Rig, delay_s: float) -> Iterator[None]:
    for proxy in rig.proxies:
        proxy.delay_s = delay_s
    time.sleep(30)
    for proxy in rig.proxies:
        proxy.delay_s = 0.0
    yield


def _fault(
    name: str, expected: str, fault: Callable[..., contextlib.AbstractContextManager[None]], *arguments: object
) -> Fault:
    def inject(rig: Rig) -> Found:
        return rig.disturbed(partial(fault, rig, *arguments))

    return Fault(name, expected, inject)


_CUTS: tuple[tuple[str, tuple[Direction, ...]], ...] = (
    ("both ways", DIRECTIONS), ("to the server", ("to server",)), ("from the server", ("to client",))
)  # fmt: skip

NETWORK_FAULTS = (
    *(_fault(f"network of one worker cut {name}, {LEASE_S / 2:g} s", _EXPECTED, _cut, (0,), LEASE_S / 2, cut)
      for name, cut in _CUTS),
    *(_fault(f"network of one worker cut {name}, {3 * LEASE_S:g} s", _EXPECTED, _cut, (0,), 3 * LEASE_S, cut)
      for name, cut in _CUTS),
    *(_fault(f"network of all workers cut {name}, 20 s", _ALL, _cut, (0, 1), 20.0, cut) for name, cut in _CUTS),
    _fault("network slow: 2 s more for each call, 30 s", _ALL, _slow, 2.0),
)  # fmt: skip
