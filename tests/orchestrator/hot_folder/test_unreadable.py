"""A hot folder with something that cannot be read."""

import os

from orchestrator.hot_folder.folders import open_hot_folder
from tests.support.hot_folder_runs import FakeClient, make_runner, run_to_the_end
from tests.support.hot_folders import Scans


def test_a_folder_that_cannot_be_read_is_said_once_and_holds_up_no_other(tmp_path, monkeypatch):
    scans = Scans(open_hot_folder(tmp_path / "scans").path)
    (scans.path / "in" / "batch").mkdir()
    scandir, said = os.scandir, []

    def refuse(path):
        if str(path).endswith("batch"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    scans.drop("a.jpg", b"x")
    runner = make_runner(scans, said, client=FakeClient())
    run_to_the_end(runner)

    assert said == ["in/batch cannot be read: Permission denied; it stays there until it can"]
    assert runner.num_unreadable == 1
    assert runner.describe() == "1 done, 0 in error/, 0 in work, 1 waiting"
    assert scans.names("done") == ["a.jpg", "a.jpg.json"]
