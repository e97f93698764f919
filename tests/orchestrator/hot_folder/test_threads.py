"""A hot folder on a machine that starts no thread for a while."""

import threading

import pytest

from orchestrator.contract.errors import PigeonholeError
from orchestrator.hot_folder import run
from orchestrator.hot_folder.folders import open_hot_folder
from tests.support.hot_folder_runs import FakeClient, FakeSubmit, make_runner, run_to_the_end
from tests.support.hot_folders import Scans


@pytest.fixture
def scans(tmp_path):
    open_hot_folder(tmp_path / "scans")
    return Scans(tmp_path / "scans")


@pytest.fixture
def refused(monkeypatch):
    """The threads that were not started: the first five of jobs and of moves."""
    names, start = [], threading.Thread.start

    def refuse(thread):
        if thread.name.startswith(("hot-folder-job", "hot-folder-move")) and len(names) < 5:
            names.append(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    monkeypatch.setattr(run, "RECOVER_S", 0.05)
    return names


def test_a_job_whose_thread_is_not_started_is_tried_again(scans, settings, refused):
    said = []
    runner = make_runner(scans, said, submit=FakeSubmit(PigeonholeError("no such model")), settings=settings)
    scans.drop("a.jpg", b"x")
    run_to_the_end(runner)

    assert len(refused) == 5
    assert scans.names("error") == ["a.jpg", "a.jpg.json"]
    assert [text.partition(".images ")[2] for text in said] == [
        "cannot be used: can't start new thread; it is tried again"
    ]
    assert runner.jobs.num_running == 0


def test_an_answered_image_whose_thread_is_not_started_is_moved_later(scans, refused):
    runner = make_runner(scans, [], client=FakeClient())
    for name in ("a.jpg", "b.jpg"):
        scans.drop(name, b"x")
    run_to_the_end(runner)

    assert len(refused) == 5
    assert scans.names("done") == ["a.jpg", "a.jpg.json", "b.jpg", "b.jpg.json"]
    assert scans.names("working") == []
