"""The claims of a slice, and the clock that ends a process which finishes nothing."""

import os
from types import SimpleNamespace

import pytest

from orchestrator.contract.ledger.ledger import Claim
from workers.leases import STALLED_EXIT_CODE, Leases


def test_claims_that_were_lost_are_not_held_and_one_that_was_claimed_again_is():
    lost, kept, early, again = (
        Claim("job", 0, 11, 1),
        Claim("job", 1, 12, 1),
        Claim("job", 2, 13, 1),
        Claim("job", 2, 14, 2),
    )

    def renew(job, claims, lease_s):
        leases.add(again)  # while the answer about the claim before is on its way
        return "running", {0, 2}

    context = SimpleNamespace(
        ledger=SimpleNamespace(renew=renew), settings=SimpleNamespace(lease_s=30.0, stall_s=300.0)
    )
    leases = Leases(context, "job")
    for claim in (lost, kept, early):
        leases.add(claim)

    leases._tick()

    assert (leases.held(), leases.lost) == ([kept, again], {0, 2})


class Ended(BaseException):
    """The process would have ended here."""


def test_a_process_that_finishes_nothing_ends_itself_although_its_own_look_fails(monkeypatch):
    def end(code):
        raise Ended(code)

    def look():
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "_exit", end)
    ledger = SimpleNamespace(renew=lambda *_: ("running", set()))
    context = SimpleNamespace(ledger=ledger, settings=SimpleNamespace(lease_s=30.0, stall_s=0.0))
    leases = Leases(context, "job", on_tick=look)

    with pytest.raises(Ended) as ended:
        leases._tick()

    assert ended.value.args == (STALLED_EXIT_CODE,)
