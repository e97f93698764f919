"""The clock that ends a process which finishes nothing."""

import os
from types import SimpleNamespace

import pytest

from workers.leases import STALLED_EXIT_CODE, Leases


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
