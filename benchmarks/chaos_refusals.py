"""Faults of a soak beside those of a chaos run: a server that takes no writes, and a network that is cut.

Each returns a line that says what it did, or None where it could do nothing.
"""

from contextlib import AbstractContextManager, ExitStack

from benchmarks.chaos_faults import Target
from tests.support.cut_proxy import DIRECTIONS


def refuse_for_memory(target: Target) -> str | None:
    """The server is at its memory limit for some seconds."""
    return _refuse(target, "memory")


def refuse_for_disk(target: Target) -> str | None:
    """The server cannot write to its disk for some seconds, and takes no writes (`MISCONF`)."""
    return _refuse(target, "disk")


def _refuse(target: Target, how: str) -> str | None:
    if not target.server_is_up:
        return None
    seconds = target.random.uniform(1, 12)
    _lasts(target, target.cluster.server.refusing(how), seconds)
    return f"the server takes no writes for {seconds:.1f} s, for its {how}"


def cut_network(target: Target) -> str | None:
    """The network between all workers and the server is cut, one way or both, for some seconds."""
    if not target.server_is_up or target.network is None:
        return None
    seconds = target.random.uniform(1, 12)
    directions = target.random.choice((DIRECTIONS, DIRECTIONS[:1], DIRECTIONS[1:]))
    _lasts(target, target.network.cut(*directions), seconds)
    return f"the network of the workers is cut {' and '.join(directions)} for {seconds:.1f} s"


def _lasts(target: Target, fault: AbstractContextManager[None], seconds: float) -> None:
    """The fault begins, and ends with the repairs that are due then; the server has no other one meanwhile."""
    target.report_server_fault()
    target.server_is_up = False
    ends = ExitStack()
    ends.enter_context(fault)

    def repair() -> None:
        ends.close()
        target.server_is_up = True
        target.report_server_fault()

    target.repairs.later(seconds, repair)
