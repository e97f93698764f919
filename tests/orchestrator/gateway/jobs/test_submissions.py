"""The processes that list the images of jobs, and the end of their gateway."""

import os
import sys
import threading
from pathlib import Path

import pytest

from orchestrator.contract.settings import Settings
from orchestrator.gateway import serve as serve_module
from orchestrator.gateway.context import GatewayContext, GatewayOptions
from orchestrator.gateway.jobs import submissions as submissions_module
from orchestrator.gateway.jobs.bodies import ClassifyBody

SUBMITTER = """
import sys
sys.stdin.read()
print('{"job": "c261129-143355-7f3a2b"}', flush=True)
open(sys.argv[1]).read()  # waits until the test writes
open(sys.argv[2], "w").close()
"""


def test_the_end_of_a_gateway_waits_for_listings_as_long_as_it_should(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    gate, listed = tmp_path / "gate", tmp_path / "listed"
    os.mkfifo(gate)
    monkeypatch.setattr(submissions_module, "_COMMAND", (sys.executable, "-c", SUBMITTER, str(gate), str(listed)))
    context = GatewayContext(Settings(home=tmp_path / "home"), GatewayOptions(roots=(tmp_path,)))
    context.submissions.submit(ClassifyBody(kind="classify", source=str(tmp_path), model="digits"), None)

    context.submissions.wait_until_listed(0)
    assert not listed.exists()
    threading.Thread(target=gate.write_text, args=("",)).start()
    context.submissions.wait_until_listed(60)
    assert listed.exists()


def test_a_gateway_that_has_ended_waits_for_its_listings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    steps: list[object] = []
    monkeypatch.setattr(serve_module.GatewayServer, "run", lambda *_: steps.append("served"))
    context = GatewayContext(Settings(home=tmp_path / "home"), GatewayOptions(port=0, listing_grace_s=7))
    monkeypatch.setattr(context.submissions, "wait_until_listed", steps.append)

    serve_module.serve(context, lambda url: None)

    assert steps == ["served", 7]
