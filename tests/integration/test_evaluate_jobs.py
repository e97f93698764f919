"""Evaluations through a real server and worker: the figures, where they go, and what can go wrong."""

import contextlib
import json
from pathlib import Path

import psutil
import pytest

from modeling.registry.store import ModelStore
from orchestrator.contract.jobs.job_folder import JobFolder
from tests.support.published_models import make_pngs, publish_model
from tests.support.server import wait_until
from tests.support.workers import JOB_PATIENCE_S, Cluster, read_json

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

FILES = {"evaluation.json", "predictions.csv", "report.html", "plots"}


def make_digits(folder: Path, num_images: int = 40) -> Path:
    """A folder per class, two of those that `digits` knows; the images mean nothing."""
    make_pngs(folder, num_images)
    for index, path in enumerate(sorted(folder.rglob("*.png"))):
        (folder / str(index % 2)).mkdir(exist_ok=True)
        path.rename(folder / str(index % 2) / path.name)
    (folder / "00000").rmdir()
    return folder


def freeze_child(cluster: Cluster) -> psutil.Process:
    """The process that evaluates, frozen while it begins, so that it is at work whenever the test likes."""
    found: list[psutil.Process] = []

    def look() -> bool:
        for worker in cluster.workers:
            for process in psutil.Process(worker.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):  # it may have ended since
                    if "modeling.training.process" in process.cmdline():
                        process.suspend()
                        found.append(process)
        return bool(found)

    wait_until(look, what="the evaluation has a process", timeout_s=JOB_PATIENCE_S)
    return found[0]


def test_an_evaluation_leaves_figures_and_a_report_and_prints_them(running_cluster: Cluster, tmp_path: Path):
    data = make_digits(tmp_path / "in")

    done = running_cluster.run("models", "evaluate", "digits", str(data), "-o", str(tmp_path / "out"))

    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    figures = read_json(tmp_path / "out" / "evaluation.json")
    assert (figures["model"], figures["num_images"], figures["part"]) == ("digits@1", 40, "all")
    lines = done.stdout.splitlines()
    assert lines[0] == f"digits@1 on {data}: 40 images"
    assert lines[2].startswith(f"accuracy        {figures['accuracy']:.4f}")
    assert lines[-1] == f"report  {tmp_path / 'out' / 'report.html'}"
    assert "succeeded" in done.stderr


def test_without_an_output_the_job_keeps_it_and_json_is_the_document(running_cluster: Cluster, tmp_path: Path):
    data, before = make_digits(tmp_path / "in"), running_cluster.jobs()

    printed = json.loads(running_cluster.run_ok("models", "evaluate", "digits@1", str(data), "--json"))

    [job] = set(running_cluster.jobs()) - set(before)
    folder = JobFolder.open(running_cluster.settings, job)
    assert printed == read_json(folder.evaluation / "evaluation.json")
    assert {path.name for path in folder.evaluation.iterdir()} == FILES
    outcome = folder.outcome()
    assert outcome is not None
    assert (outcome.state, outcome.result, outcome.num_images) == ("succeeded", str(folder.evaluation), 40)
    kinds = [json.loads(line)["event"] for line in folder.events.read_text().splitlines()]
    assert kinds[-3:] == ["evaluate", "warning", "phase"]  # the model knows more digits than the data have
    record = json.loads(running_cluster.run_ok("status", job, "--json"))
    assert (record["kind"], record["model"], record["source"]) == ("evaluate", "digits@1", str(data))
    assert running_cluster.run("results", "show", job).returncode == 4


def test_an_invalid_evaluation_is_refused_immediately_and_leaves_nothing(running_cluster: Cluster, tmp_path: Path):
    data = make_digits(tmp_path / "in")
    (data / "0").rename(data / "eleven")
    (data / "1").rename(data / "ten")
    before = running_cluster.jobs()

    stranger = running_cluster.run("models", "evaluate", "digits", str(data))
    nowhere = running_cluster.run("models", "evaluate", "digits", str(tmp_path / "nowhere"))
    unknown = running_cluster.run("models", "evaluate", "digit", str(data))
    there = running_cluster.run("models", "evaluate", "digits", str(make_digits(tmp_path / "b")), "-o", str(tmp_path))

    assert [done.returncode for done in (stranger, nowhere, unknown, there)] == [2, 4, 4, 2]
    assert "'eleven', 'ten', which the model does not know" in stranger.stderr
    assert f"output {str(tmp_path)!r} exists; name a folder that does not" in there.stderr
    assert all(done.stderr.count("\n") == 1 for done in (stranger, nowhere, unknown, there))
    assert running_cluster.jobs() == before


def publish_two(cluster: Cluster, name: str) -> ModelStore:
    """Publish a model and a second version of it that answers otherwise."""
    publish_model(cluster.home / "models", name)
    store = ModelStore(cluster.settings.models)
    store.publish(publish_model(cluster.home / "others" / "models", name, seed=1).path, name)
    return store


def test_an_alias_that_moves_changes_no_job_that_was_submitted_with_it(running_cluster: Cluster, tmp_path: Path):
    store = publish_two(running_cluster, "moving")
    store.set_alias(store.resolve("moving@1"), "champion")
    data = make_digits(tmp_path / "in")

    with running_cluster.workers[0].frozen():
        job = running_cluster.submit("models", "evaluate", "moving@champion", str(data), "-o", str(tmp_path / "out"))
        store.set_alias(store.resolve("moving@2"), "champion")
        kept = running_cluster.run("models", "remove", "moving@1", "--yes")

    assert running_cluster.outcome(job).state == "succeeded", running_cluster.logs()
    assert read_json(tmp_path / "out" / "evaluation.json")["model"] == "moving@1"
    assert (kept.returncode, f"moving@1 is used by job {job}" in kept.stderr) == (1, True)
    running_cluster.run_ok("models", "remove", "moving@1", "--yes")
    assert [version.ref for version in store.list() if version.name == "moving"] == ["moving@2"]


def test_a_job_whose_model_is_gone_fails_and_says_so(running_cluster: Cluster, tmp_path: Path):
    store = publish_two(running_cluster, "gone")

    with running_cluster.workers[0].frozen():
        job = running_cluster.submit("models", "evaluate", "gone@1", str(make_digits(tmp_path / "in")))
        store.remove(store.resolve("gone@1"))  # as the command does not, while the job has not ended

    outcome = running_cluster.outcome(job)
    assert outcome.state == "failed"
    assert outcome.error == "evaluation failed: model 'gone@1' was removed; versions of 'gone': 2"


def test_an_output_that_appears_meanwhile_is_left_alone_and_the_job_fails(running_cluster: Cluster, tmp_path: Path):
    command = ("models", "evaluate", "digits", str(make_digits(tmp_path / "in")), "-o", str(tmp_path / "out"))

    with running_cluster.workers[0].frozen():
        job = running_cluster.submit(*command)
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine.txt").touch()
        taken = running_cluster.run(*command, "--detach")

    outcome = running_cluster.outcome(job)
    assert outcome.state == "failed"
    assert "appeared while the job ran" in (outcome.error or "")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
    assert taken.returncode == 2


def test_an_evaluation_whose_worker_is_killed_dies_with_it_and_is_done_by_another(
    running_cluster: Cluster, tmp_path: Path
):
    data = make_digits(tmp_path / "in")
    [first] = running_cluster.workers
    job = running_cluster.submit("models", "evaluate", "digits", str(data), "-o", str(tmp_path / "out"))
    child = freeze_child(running_cluster)

    first.kill()
    child.resume()
    wait_until(lambda: not child.is_running(), what="the evaluation's process is gone")
    assert not (tmp_path / "out").exists()
    running_cluster.start_worker()

    assert running_cluster.outcome(job).state == "succeeded", running_cluster.logs()
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    assert read_json(tmp_path / "out" / "evaluation.json")["num_images"] == 40


def test_a_cancelled_evaluation_ends_its_process_and_publishes_nothing(running_cluster: Cluster, tmp_path: Path):
    data = make_digits(tmp_path / "in")
    job = running_cluster.submit("models", "evaluate", "digits", str(data), "-o", str(tmp_path / "out"))
    child = freeze_child(running_cluster)

    running_cluster.run_ok("cancel", job)

    assert running_cluster.outcome(job).state == "cancelled"
    wait_until(lambda: not child.is_running(), what="the evaluation's process is gone")
    assert not (tmp_path / "out").exists()
    assert not JobFolder.open(running_cluster.settings, job).evaluation.exists()


def test_an_evaluation_that_is_killed_is_done_again(running_cluster: Cluster, tmp_path: Path):
    job = running_cluster.submit("models", "evaluate", "digits", str(make_digits(tmp_path / "in")))

    freeze_child(running_cluster).kill()

    assert running_cluster.outcome(job).state == "succeeded"
    assert (
        "the evaluation was killed by signal 9; trying again"
        in JobFolder.open(running_cluster.settings, job).events.read_text()
    )
