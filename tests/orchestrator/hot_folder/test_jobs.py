"""Claims of a hot folder as jobs, with a submitter that a test answers for."""

import threading

import pytest

from orchestrator.contract.errors import PigeonholeError
from orchestrator.hot_folder import jobs as jobs_module
from orchestrator.hot_folder.claims import Claim
from orchestrator.hot_folder.folders import open_hot_folder
from orchestrator.hot_folder.jobs import Jobs
from orchestrator.hot_folder.results import Sorting


@pytest.fixture
def claim(tmp_path):
    claim = Claim.make(open_hot_folder(tmp_path / "scans"), "6a", 1, "images")
    (claim.data / "a.jpg").write_bytes(b"x")
    return claim


@pytest.mark.parametrize(("again_s", "num_tries"), [(60.0, 1), (0.01, 3)])
def test_a_file_that_no_name_is_free_for_is_said_once_and_waited_for(claim, settings, monkeypatch, again_s, num_tries):
    monkeypatch.setattr(jobs_module, "AGAIN_S", again_s)
    said, tries, done = [], [], threading.Event()

    def say(text):
        said.append(text)
        if num_tries == 1:
            jobs.stop()

    def refuse(spec):
        tries.append(spec)
        if len(tries) == 3:
            jobs.stop()
        raise PigeonholeError("no such model")

    jobs = Jobs(settings, "m", 1, Sorting(), lambda *_: None, say, done.set, refuse)
    jobs.start(claim)

    assert done.wait(60)
    assert said == ["a.jpg: no name is free for it in done/ or error/; it is tried again"]
    assert len(tries) == num_tries
    assert claim.names() == ["a.jpg"]
