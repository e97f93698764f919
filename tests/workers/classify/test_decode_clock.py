"""A process whose decoder hangs ends, whatever fails on the way."""

import os
from types import SimpleNamespace

import pytest

from modeling.inference.decode_watch import Running
from orchestrator.contract.ledger.ledger import Claim
from tests.support.fakes import Bells
from workers.classify.decode_clock import DECODE_S, SLOW_EXIT_CODE, DecodeClock, ShardImage

JOB = "c261123-143355-7f3a2b"


class Ended(BaseException):
    """The process would have ended here."""


class Leases:
    """Stands for the leases of a slice."""

    handed_back = 0

    def progressed(self):
        pass

    def hand_back(self):
        self.handed_back += 1


@pytest.fixture(autouse=True)
def end(monkeypatch):
    def end(code):
        raise Ended(code)

    monkeypatch.setattr(os, "_exit", end)


def test_a_process_with_a_slow_image_ends_although_its_journal_takes_no_note(tmp_path):
    (tmp_path / "journals").touch()  # no folder can be made there
    bells, leases = Bells(), Leases()
    clock = DecodeClock(SimpleNamespace(ring=bells), JOB, tmp_path / "journals", leases)
    image = ShardImage(bytes).of(Claim(JOB, 3, 7, 1), 5)
    clock.watch = SimpleNamespace(look=lambda: [Running(image, DECODE_S + 1, advanced=True)])

    with pytest.raises(Ended) as ended:
        clock.look()

    assert ended.value.args == (SLOW_EXIT_CODE,)
    assert (leases.handed_back, bells.rung) == (1, [("classify", JOB)])
