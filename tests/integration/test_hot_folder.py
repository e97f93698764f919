"""`pigeonhole hotfolder` with a real server: a line whose worker has no model, and jobs of real workers."""

import json
import os
import zipfile
from collections import Counter

import pytest

from orchestrator.contract.lines.store import LineStore
from orchestrator.contract.server import connect_raw
from orchestrator.hot_folder import watch
from orchestrator.hot_folder.folders import open_hot_folder
from tests.support.hot_folders import HotFolderProcesses, Scans
from tests.support.invoke import invoke
from tests.support.line_worker import enter_line, line_worker, make_line
from tests.support.pushes import digit_png
from tests.support.server import wait_until

pytestmark = pytest.mark.integration


@pytest.fixture
def scans(tmp_path, monkeypatch, server):
    """A hot folder, and a home without anything."""
    monkeypatch.setenv("PIGEONHOLE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIGEONHOLE_SERVER_URL", server.url)
    found = Scans(tmp_path / "scans")
    (found.path / "in").mkdir(parents=True)
    return found


@pytest.fixture
def _at_work(server):
    """A line with a worker."""
    enter_line(server.url, make_line())
    with line_worker(server.url):
        yield


def work(scans, *arguments, code=0):
    """Run until nothing is left; the files that it tells of."""
    done = invoke("hotfolder", scans.path, "--once", "--json", "--poll", "20ms", *arguments)
    assert done.exit_code == code, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.usefixtures("_at_work")
def test_each_image_gets_a_sidecar_and_what_is_no_image_a_reason(scans):
    scans.drop("a.jpg", b"image a")
    scans.drop("b.jpg", b"bad")
    (scans.path / "in" / "link.jpg").symlink_to("/etc/passwd")

    told = work(scans, "--line", "post")

    assert sorted(each["file"] for each in told) == ["done/a.jpg", "error/b.jpg", "error/link.jpg"]
    assert scans.names("done") == ["a.jpg", "a.jpg.json"]
    facts = scans.sidecar("a.jpg")
    assert (facts["bin"], facts["reason"], facts["label"], facts["model"]) == ("1", None, "a", "m@1")
    assert facts["item"].startswith("a.jpg@")
    assert scans.sidecar("b.jpg", "error")["error"] == "not_an_image"
    assert "a link" in scans.sidecar("link.jpg", "error")["error"]
    assert scans.names("in") == scans.names("working") == scans.hidden("working") == []


@pytest.mark.usefixtures("_at_work")
def test_images_are_moved_into_a_folder_for_each_bin(scans):
    scans.drop("a.jpg", b"image a")
    work(scans, "--line", "post", "--by-bin")
    scans.drop("a.jpg", b"another")
    work(scans, "--line", "post", "--by-bin")

    first, second = scans.names("done/1")

    assert {first[:2], second[:2]} == {"a."}
    assert {(scans.path / "done/1" / name).read_bytes() for name in (first, second)} == {b"image a", b"another"}


@pytest.mark.usefixtures("_at_work")
def test_a_folder_that_cannot_be_read_is_named_at_the_end(scans, monkeypatch):
    (scans.path / "in" / "batch").mkdir()
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("batch"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    done = invoke("hotfolder", scans.path, "--once", "--poll", "20ms", "--line", "post")

    assert done.exit_code == 0
    assert "in/batch cannot be read: Permission denied" in done.stderr
    assert "1 stay in in/: they cannot be read" in done.stderr


@pytest.mark.usefixtures("_at_work")
def test_nothing_is_lost_or_doubled_while_two_are_killed_in_turns(scans, tmp_path, server):
    scans.path.joinpath("in", "named\udcff.jpg").write_bytes(b"a name that is not UTF-8")
    running = HotFolderProcesses(scans.path, ["--line", "post", "--poll", "50ms"], {}, log=tmp_path / "log")
    contents = [b"image %d" % number for number in range(401)]  # the last by the one that is left
    try:
        running.start()
        for number, content in enumerate(contents):
            scans.drop(f"{number:03}.jpg", content)
            if number % 100 == 50:
                running.start()
            if number % 100 == 99:
                some = min(len(scans.names("done")) + 1, 2 * (number + 1))
                wait_until(lambda some=some: len(scans.names("done")) >= some, what="some of it is done")
                running.kill()
        wait_until(lambda: len(scans.names("done")) == 804, what=f"all is done\n{(tmp_path / 'log').read_text()}")
        assert running.stop() == [0]
    finally:
        running.close()

    images = [name for name in scans.names("done") if not name.endswith(".json")]
    assert Counter((scans.path / "done" / name).read_bytes() for name in images if "named" not in name) == Counter(
        contents
    )
    assert all(scans.sidecar(name)["bin"] == "1" for name in images)
    assert scans.names("in") == scans.names("working") == scans.names("error") == []
    assert scans.hidden("done") == scans.hidden("working") == []
    counts = LineStore(connect_raw(server.url), "post").counts()
    assert counts["answers"] == 402  # an item that is pushed again after a kill is the same request


def test_a_job_is_followed_by_the_next_start_after_a_kill(tmp_path, monkeypatch, running_cluster):
    cluster = running_cluster
    environment = {"PIGEONHOLE_HOME": str(cluster.home), "PIGEONHOLE_SERVER_URL": cluster.server.url}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    scans = Scans(open_hot_folder(tmp_path / "scans").path)
    scans.drop("1.png", digit_png(1))
    running = HotFolderProcesses(scans.path, ["--model", "digits", "--poll", "50ms"], environment, log=tmp_path / "log")
    before = set(cluster.jobs())
    with next(worker for worker in cluster.workers if worker.alive).frozen():
        running.start()
        wait_until(lambda: list(scans.path.glob("working/*/job")), what="the job is submitted")
        running.kill()

    [told] = work(scans, "--model", "digits")

    assert {told["job"]} == set(cluster.jobs()) - before
    assert scans.names("done") == ["1.png", "1.png.json"]
    assert scans.names("working") == scans.hidden("working") == []


def test_folders_zips_and_single_images_become_jobs(tmp_path, monkeypatch, running_cluster):
    cluster = running_cluster
    monkeypatch.setenv("PIGEONHOLE_HOME", str(cluster.home))
    monkeypatch.setenv("PIGEONHOLE_SERVER_URL", cluster.server.url)
    monkeypatch.setattr(watch, "FOLDER_SETTLES_S", 0.0)
    scans = Scans(tmp_path / "scans")
    (scans.path / "in" / "batch" / "inner").mkdir(parents=True)
    (scans.path / "in" / "batch" / "inner" / "0.png").write_bytes(digit_png(0))
    scans.drop("1.png", digit_png(1))
    scans.drop("2.xyz", digit_png(2))
    scans.drop("bad.png", b"no image")
    with zipfile.ZipFile(scans.path / "in" / "more.zip", "w") as archive:
        archive.writestr("3.png", digit_png(3))
        archive.writestr("4.png", b"no image")
    (scans.path / "in" / "bad.zip").write_bytes(b"no ZIP")

    work(scans, "--model", "digits")

    done = ["1.png", "1.png.json", "2.xyz", "2.xyz.json", "batch", "batch.json", "batch.manifest.csv", "batch/inner",
            "batch/inner/0.png", "more.zip", "more.zip.json", "more.zip.manifest.csv"]  # fmt: skip
    assert scans.names("done") == done
    assert scans.names("error") == ["bad.png", "bad.png.json", "bad.zip", "bad.zip.json"]
    assert scans.names("working") == scans.names("in") == []
    counts = scans.sidecar("more.zip")["counts"]
    assert (counts["num_images"], counts["num_failed"]) == (2, 1)
    assert (scans.path / "done" / "batch.manifest.csv").read_text().splitlines()[1].startswith("inner/0.png,ok,")
    assert scans.sidecar("1.png")["label"] == scans.sidecar("1.png")["bin"]
    assert "cannot be read" in scans.sidecar("bad.zip", "error")["error"]
