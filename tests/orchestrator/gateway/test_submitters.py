"""The processes that list the images of jobs, and the end of their gateway."""

import os
import sys
import threading
from pathlib import Path

import pytest

from orchestrator.contract.settings import Settings
from orchestrator.gateway import serve as serve_module
from orchestrator.gateway.context import GatewayContext, GatewayOptions
from orchestrator.gateway.submitters import Submitters

PROGRAM = """
import sys
open(sys.argv[1]).read()  # waits until the test writes
open(sys.argv[2], "w").close()
"""


def test_the_end_of_a_gateway_waits_for_listings_as_long_as_it_should(tmp_path: Path):
    gate, listed = tmp_path / "gate", tmp_path / "listed"
    os.mkfifo(gate)
    submitters = Submitters()
    process = submitters.start((sys.executable, "-c", PROGRAM, str(gate), str(listed)))

    submitters.wait_until_listed(0)
    assert not listed.exists()
    threading.Thread(target=gate.write_text, args=("",)).start()
    submitters.wait_until_listed(60)
    assert listed.exists()
    process.communicate()


def test_a_gateway_that_has_ended_waits_for_its_listings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    steps: list[object] = []
    monkeypatch.setattr(serve_module.GatewayServer, "run", lambda *_: steps.append("served"))
    context = GatewayContext(Settings(home=tmp_path / "home"), GatewayOptions(port=0, listing_grace_s=7))
    monkeypatch.setattr(context.submitters, "wait_until_listed", steps.append)

    serve_module.serve(context, lambda url: None)

    assert steps == ["served", 7]
