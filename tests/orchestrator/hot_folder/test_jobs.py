"""Claims of a hot folder as jobs, with a submitter that a test answers for."""

import os
import subprocess
import sys
import threading
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.contract.errors import PigeonholeError
from orchestrator.contract.jobs.job_folder import JobFolder, Outcome
from orchestrator.hot_folder import jobs as jobs_module
from orchestrator.hot_folder.claims import Claim
from orchestrator.hot_folder.folders import open_hot_folder
from orchestrator.hot_folder.jobs import Jobs
from orchestrator.hot_folder.results import Sorting
from tests.support.fakes import make_job
from tests.support.hot_folders import Scans
from tests.support.manifests import answered, publish_rows

ROOT = Path(__file__).parents[3]


@pytest.fixture
def scans(tmp_path):
    open_hot_folder(tmp_path / "scans")
    return Scans(tmp_path / "scans")


def make_claim(scans, kind):
    return Claim.make(open_hot_folder(scans.path), "6a", 1, kind)


def end(job: JobFolder, state: str, **facts: object) -> None:
    job.write_outcome(Outcome(state=state, ended=datetime.now(UTC), **facts))


class Submitted:
    """Jobs that have one image, and end as a test wants."""

    def __init__(self, settings, tmp_path):
        self._settings = settings
        self._output = tmp_path / "manifest.csv"
        self.jobs = []
        self.then = lambda job: None

    def __call__(self, spec):
        job = make_job(self._settings, ["0.jpg"], root=Path(spec.source), output=self._output)
        self.jobs.append(job)
        self.then(job)
        return job.job

    def publish(self, job):
        publish_rows(self._output, [answered("0.jpg", "cat")], job.request().source, job=job.job)
        end(job, "succeeded", result=str(self._output))


@pytest.fixture
def submitted(settings, tmp_path):
    return Submitted(settings, tmp_path)


def run_to_the_end(claim, settings, submit, *, then=lambda jobs: None):
    """Work on a claim as one process does, until it is done or was stopped; what is said."""
    said, done = [], threading.Event()
    jobs = Jobs(settings, "m", 1, Sorting(), Claim.end, said.append, done.set, submit)
    then(jobs)
    jobs.start(claim)
    assert done.wait(60)
    return said


@pytest.mark.parametrize(("again_s", "num_tries"), [(60.0, 1), (0.01, 3)])
def test_a_file_that_no_name_is_free_for_is_said_once_and_waited_for(scans, settings, monkeypatch, again_s, num_tries):
    monkeypatch.setattr(jobs_module, "AGAIN_S", again_s)
    claim = make_claim(scans, "images")
    (claim.data / "a.jpg").write_bytes(b"x")
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


@pytest.mark.parametrize("kind", ["images", "folder"])
def test_what_is_changed_in_work_goes_back_also_after_a_restart(scans, settings, submitted, kind):
    claim = make_claim(scans, kind)
    inner = ["a.jpg", "b.jpg"] if kind == "images" else ["batch/0.jpg"]
    for name in inner:
        (claim.data / name).parent.mkdir(exist_ok=True)
        (claim.data / name).write_bytes(b"before")

    def stop_when_submitted(jobs):
        submitted.then = lambda job: jobs.stop()

    run_to_the_end(claim, settings, submitted, then=stop_when_submitted)
    (claim.data / inner[0]).write_bytes(b"after")
    [job] = submitted.jobs
    end(job, "failed", error="no model")
    run_to_the_end(Claim(claim.folder, claim.name), settings, submitted)

    assert submitted.jobs == [job]
    assert scans.names("in") == (["a.jpg"] if kind == "images" else ["batch", "batch/0.jpg"])
    assert scans.names("error") == (["b.jpg", "b.jpg.json"] if kind == "images" else [])


def test_a_snapshot_of_a_folder_is_the_same_in_every_process(tmp_path):
    (tmp_path / "batch").mkdir()
    for name in ("a.jpg", "ü\udcff.jpg"):
        (tmp_path / "batch" / name).write_bytes(b"x")
    command = (
        "import sys; from pathlib import Path; from orchestrator.hot_folder.watch import snapshot_of\n"
        "print(snapshot_of(Path(sys.argv[1])))"
    )

    found = {
        subprocess.run(
            [sys.executable, "-c", command, str(tmp_path / "batch")],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}, capture_output=True, check=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip

    assert len(found) == 1


def test_a_zip_is_on_the_disk_before_it_counts_as_unpacked_and_its_manifest_before_it_is_done(
    scans, settings, submitted, monkeypatch
):
    claim = make_claim(scans, "zip")
    with zipfile.ZipFile(claim.data / "a.zip", "w") as archive:
        archive.writestr("inner/0.jpg", b"x")
    fsync, rename, synced, renamed = os.fsync, os.rename, set(), []

    def note_sync(descriptor):
        synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def note_rename(source, target, **options):
        if Path(target).name == "unpacked":
            paths = [Path(source), *Path(source).rglob("*")]
            renamed.extend((path.name, path.stat().st_ino in synced) for path in paths[1:])
            synced.clear()
        rename(source, target, **options)

    submitted.then = submitted.publish
    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "rename", note_rename)
    said = run_to_the_end(claim, settings, submitted)

    assert said == []
    assert renamed == [("inner", True), ("0.jpg", True)]
    assert scans.names("done") == ["a.zip", "a.zip.json", "a.zip.manifest.csv"]
    assert (scans.path / "done" / "a.zip.manifest.csv").stat().st_ino in synced
