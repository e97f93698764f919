"""`jobs show` and what `jobs resume` says, without a server."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from orchestrator.cli.jobs.resume import describe_resumed
from orchestrator.contract.jobs.history import note, note_trouble
from orchestrator.contract.jobs.incomplete import incomplete_path
from orchestrator.contract.jobs.job_folder import JobFolder, Outcome, Resume
from orchestrator.contract.jobs.requests import MaxFailures
from orchestrator.contract.jobs.rows import summary_path
from orchestrator.contract.settings import Settings
from orchestrator.jobs.resume import Resumed
from tests.support.fakes import make_job, write_fake_parts
from tests.support.invoke import invoke
from tests.support.merges import Merges

AT = datetime(2026, 11, 29, 8, 30, tzinfo=UTC)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("PIGEONHOLE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def folder(home, tmp_path):
    """A job of ten images in three shards: cancelled, resumed with another limit, and failed; two shards are done."""
    settings = Settings(home=home)
    names = [f"{number}.jpg" for number in range(10)]
    folder = make_job(settings, names, root=tmp_path / "in", output=tmp_path / "out.csv")
    note(folder, "submitted", by="ada@office")
    write_fake_parts(folder, [0, 1])
    folder.write_outcome(Outcome(state="cancelled", ended=AT, num_images=10, num_done=8, num_failed=2))
    note(folder, "cancelled", by="ada@office")
    folder.begin_run(Resume(run=1, at=AT, by="bo@night", max_failures=MaxFailures(count=7)))
    folder = JobFolder.open(settings, folder.job)
    note_trouble(folder, "worker w1: no space left on device", by="w1")
    folder.write_outcome(Outcome(state="failed", run=1, ended=AT, num_images=10, num_done=8, error="the disk broke"))
    return folder


def test_a_job_that_has_ended_tells_its_whole_story_without_a_server(folder):
    shown = json.loads(invoke("jobs", "show", folder.job, "--json").stdout)

    assert (shown["job"], shown["state"], shown["run"], shown["error"]) == (folder.job, "failed", 1, "the disk broke")
    runs = [(run["run"], run["by"], run["max_failures"], run["outcome"]["state"]) for run in shown["runs"]]
    assert runs == [(0, "ada@office", None, "cancelled"), (1, "bo@night", {"count": 7}, "failed")]
    assert [(w["worker"], w["num_shards"], w["num_rows"], w["num_failed"]) for w in shown["workers"]] == [
        ("w1", 2, 8, 2)
    ]
    assert [(event["event"], event["by"]) for event in shown["history"]] == [
        ("submitted", "ada@office"), ("cancelled", "ada@office"), ("trouble", "w1"),
    ]  # fmt: skip
    assert (shown["files"], shown["summary"]) == ({"folder": str(folder.path)}, None)


def test_the_story_is_shown_in_words(folder):
    lines = invoke("jobs", "show", folder.job).stdout.splitlines()

    assert "images     8 of 10 done, 0 failed" in lines
    assert any(
        line.startswith("run 0      submitted ") and " by ada@office, cancelled 2026-11-29" in line for line in lines
    )
    last = "run 1      resumed 2026-11-29 08:30:00 UTC by bo@night, failed 2026-11-29 08:30:00 UTC, 8 done, 0 failed"
    assert f"{last}: the disk broke" in lines
    assert lines[-1].endswith("  w1: trouble: worker w1: no space left on device")


def test_each_job_shows_its_own_manifest_after_a_retry_took_its_place(home, tmp_path):
    merges = Merges(Settings(home=home), tmp_path / "in", tmp_path / "outbox")
    merges.write(a="cat", b="bad")
    first = merges.full()
    merges.write(b="fixed")
    second = merges.retry(first.job)

    assert files_of(first) == manifest_files(f"{merges.output}.1")
    assert files_of(second) == manifest_files(merges.output)

    for path in merges.outbox.glob(f"{merges.output.name}.1*"):
        path.unlink()
    assert files_of(first) == {}


def test_a_job_without_a_manifest_shows_none_of_the_job_whose_output_it_has(home, tmp_path):
    merges = Merges(Settings(home=home), tmp_path / "in", tmp_path / "outbox")
    merges.write(a="cat")
    merges.full()
    write_incomplete(incomplete_path(merges.output), job="another")
    merges.write(b="dog")
    running = merges.begin_since()

    assert files_of(running) == {}

    write_incomplete(incomplete_path(merges.output), job=running.job)
    assert files_of(running) == {"incomplete": str(incomplete_path(merges.output))}


def files_of(folder: JobFolder) -> dict[str, str]:
    """The files that `jobs show` names beside the folder."""
    files = json.loads(invoke("jobs", "show", folder.job, "--json").stdout)["files"]
    assert files.pop("folder") == str(folder.path)
    return files


def manifest_files(manifest: str | Path) -> dict[str, str]:
    return {"manifest": f"{manifest}", "summary": f"{manifest}.summary.json", "sidecar": f"{manifest}.sources"}


def write_incomplete(path: Path, *, job: str) -> None:
    path.write_text("rows")
    summary_path(path).write_text(json.dumps({"job": job, "incomplete": {"reason": "too many failures"}}))


@pytest.mark.parametrize("command", ["show", "resume"])
def test_a_job_that_never_was_is_not_found(home, command):
    result = invoke("jobs", command, "c261123-143355-7f3a2b")

    assert result.exit_code == 4
    assert "there is no job c261123-143355-7f3a2b" in result.stderr.splitlines()[-1]


def test_a_job_that_cannot_be_resumed_starts_no_server(folder, home):
    result = invoke("jobs", "resume", folder.job)

    assert (result.exit_code, (home / "stack").exists()) == (4, False)
    assert f"error: the source of job {folder.job}, " in result.stderr
    assert "is not there: bring it back, and resume again" in result.stderr


COUNTS = {"run": 1, "num_images": 1200, "num_done": 1000, "num_failed": 3, "num_shards": 12, "shards_done": 10}


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({}, ["job c1: resumed; 1,000 of 1,200 images are done, 200 are missing, in 2 shards"]),
        (
            {"entered": True, "relisted": True, "shards_done": 11},
            [
                "job c1: its images were listed again",
                "job c1: the server had forgotten it; it goes on; 1,000 of 1,200 images are done, 200 are missing, "
                "in 1 shard",
            ],
        ),
        (
            {"kind": "train", "goes_on": "it goes on from its last checkpoint"},
            ["job c1: resumed; it goes on from its last checkpoint"],
        ),
        (
            {"ends_again": "3 images have failed already"},
            [
                "job c1: resumed; 1,000 of 1,200 images are done, 200 are missing, in 2 shards",
                "it will end again: 3 images have failed already; resume it with another limit",
            ],
        ),
    ],
)
def test_a_resume_says_what_goes_on(changes, lines):
    facts = {"job": "c1", "kind": "classify", "entered": False, "relisted": False, "goes_on": None, "ends_again": None}

    assert describe_resumed(Resumed(**(facts | COUNTS | changes))) == lines
