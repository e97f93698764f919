"""Training jobs through a real server and worker: the events, the model, and failures."""

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from benchmarks.training_kills import Network, digests, train_with_kills
from modeling.inference.classifier import Classifier
from modeling.registry.store import ModelStore
from orchestrator.contract.jobs.attempts import Attempt, read_attempts
from orchestrator.contract.jobs.job_folder import JobFolder
from tests.support.published_models import make_shapes
from tests.support.server import wait_until
from tests.support.workers import JOB_PATIENCE_S, Cluster, read_json

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


def training_child(cluster: Cluster) -> psutil.Process:
    """The training process, once it runs."""
    found: list[psutil.Process] = []

    def look() -> bool:
        for worker in cluster.workers:
            for process in psutil.Process(worker.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):  # it may have ended since
                    if "modeling.training.process" in process.cmdline():
                        found.append(process)
        return bool(found)

    wait_until(look, what="the training has a process", timeout_s=JOB_PATIENCE_S)
    return found[0]


def wait_for_epoch(cluster: Cluster, job: str) -> None:
    """Wait until a training is well on its way."""
    wait_until(lambda: '"epoch"' in cluster.record(job).progress, what="an epoch is over", timeout_s=JOB_PATIENCE_S)


@dataclass(frozen=True)
class Training:
    """A training that nothing happened to: its data, and what its command printed."""

    data: Path
    printed: str


OPTIONS = ("--arch", "mlp", "--epochs", "80")


@pytest.fixture(scope="module")
def undisturbed(session_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Training:
    """It publishes bars@1."""
    session_cluster.one_worker()
    data = make_shapes(tmp_path_factory.mktemp("undisturbed") / "shapes")
    return Training(data, session_cluster.run_ok("train", str(data), "--name", "bars", *OPTIONS, "--json"))


def test_a_training_publishes_a_model_that_classifies_and_reports_its_events(
    running_cluster: Cluster, undisturbed: Training, tmp_path: Path
):
    record = json.loads(undisturbed.printed)
    assert (record["state"], record["result"], record["num_images"]) == ("succeeded", "bars@1", 60)
    version = ModelStore(running_cluster.settings.models).resolve("bars")
    card = ModelStore(running_cluster.settings.models).card("bars")
    assert card.labels == ("lying", "standing")
    assert record["metrics"] == card.metrics
    assert record["network"] == {"architecture": "mlp", "chosen": None, "weights": None, "weights_sha256": None}
    assert card.metrics["test_accuracy"] >= 0.8
    assert Classifier.load(version.path).labels == card.labels
    events = [json.loads(line) for line in JobFolder.open(running_cluster.settings, record["job"]).events.open()]
    assert [event["epoch"] for event in events if event["event"] == "epoch"] == list(range(1, 81))
    assert all({"loss", "accuracy"} <= event.keys() for event in events if event["event"] == "epoch")
    assert json.loads(running_cluster.run_ok("models", "show", "bars", "--json"))["digest"] == version.digest
    running_cluster.run_ok("classify", str(undisturbed.data), "--model", "bars@1", "-o", str(tmp_path / "out.csv"))
    counts = read_json(tmp_path / "out.csv.summary.json")["counts"]["labels"]
    assert counts.keys() == {"lying", "standing"}


def test_unusable_training_data_is_refused_immediately_and_leaves_nothing(running_cluster: Cluster, tmp_path: Path):
    before = running_cluster.jobs()
    (tmp_path / "one" / "only").mkdir(parents=True)

    missing = running_cluster.run("train", str(tmp_path / "nowhere"), "--name", "x")
    lonely = running_cluster.run("train", str(tmp_path / "one"), "--name", "x")
    bad_name = running_cluster.run("train", str(make_shapes(tmp_path / "shapes")), "--name", "../x")

    assert [done.returncode for done in (missing, lonely, bad_name)] == [4, 2, 2]
    assert all(
        done.stderr.count("\n") == 1 and done.stderr.startswith("error: ") for done in (missing, lonely, bad_name)
    )
    assert running_cluster.jobs() == before


def test_a_cancelled_training_ends_its_process_and_publishes_nothing_and_goes_on_from_its_checkpoint(
    running_cluster: Cluster, tmp_path: Path
):
    job = running_cluster.submit(
        "train", str(make_shapes(tmp_path / "in")), "--name", "cancelled", "--arch", "mlp", "--epochs", "10000"
    )
    child = training_child(running_cluster)
    wait_for_epoch(running_cluster, job)

    running_cluster.run_ok("cancel", job)

    assert running_cluster.outcome(job).state == "cancelled"
    wait_until(lambda: not child.is_running(), what="the training's process is gone")
    assert running_cluster.run("wait", job).returncode == 1
    assert running_cluster.run("models", "show", "cancelled").returncode == 4

    resumed = running_cluster.run("jobs", "resume", job, "--detach")

    assert (resumed.returncode, resumed.stdout) == (0, f"{job}\n")
    assert resumed.stderr.splitlines()[-1] == f"job {job}: resumed; it goes on from its last checkpoint"
    wait_until(
        lambda: '"resumed"' in JobFolder.open(running_cluster.settings, job).events.read_text(), what="it goes on"
    )


def kill_training(cluster: Cluster, job: str) -> None:
    """Kill the process that trains, as a kernel short of memory does."""
    child = training_child(cluster)
    wait_for_epoch(cluster, job)
    child.kill()
    wait_until(lambda: not child.is_running(), what="the training's process is gone")


def events_of(cluster: Cluster, job: str) -> list[dict]:
    lines = JobFolder.open(cluster.settings, job).events.read_text().splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]


def attempts_of(cluster: Cluster, job: str) -> list[Attempt]:
    return read_attempts(JobFolder.open(cluster.settings, job))


def wait_for_attempt(cluster: Cluster, job: str, number: int) -> None:
    wait_until(
        lambda: len(attempts_of(cluster, job)) == number, what=f"attempt {number} begins", timeout_s=JOB_PATIENCE_S
    )


def wait_until_resumed(cluster: Cluster, job: str) -> None:
    wait_until(
        lambda: any(event["event"] == "resumed" for event in events_of(cluster, job)),
        what="the training goes on",
        timeout_s=JOB_PATIENCE_S,
    )


def test_a_training_that_dies_time_after_time_without_a_new_checkpoint_fails_with_its_last_lines(
    running_cluster: Cluster, tmp_path: Path
):
    job = running_cluster.submit(
        "train", str(make_shapes(tmp_path / "in")), "--name", "mortal", "--arch", "mlp", "--epochs", "10000"
    )
    folder = JobFolder.open(running_cluster.settings, job)
    kill_training(running_cluster, job)  # after a checkpoint: counts once
    wait_for_attempt(running_cluster, job, 2)
    child = training_child(running_cluster)  # torch is being imported: nothing is saved
    with (folder.path / "training.log").open("a") as log:
        log.write("the last thing it said\n")
    child.kill()
    wait_for_attempt(running_cluster, job, 3)
    training_child(running_cluster)

    running_cluster.ledger.client.delete(f"{{pigeonhole}}:job:{job}")  # what the server forgets is on the disk
    running_cluster.workers[0].kill()
    running_cluster.start_worker()

    outcome = running_cluster.outcome(job)
    assert outcome.state == "failed"
    assert "it died 3 times without a new checkpoint" in (outcome.error or "")
    assert "the last thing it said" in (outcome.error or "")
    ends = [attempt.end for attempt in attempts_of(running_cluster, job)]
    assert [end is not None and (end.died, end.progressed) for end in ends] == [
        (True, True), (True, False), (True, False),
    ]  # fmt: skip
    shown = running_cluster.run_ok("jobs", "show", job)
    assert "after a new checkpoint: the training was killed by signal 9" in shown
    assert "attempt 3" in shown


def test_a_training_that_hangs_is_ended_and_goes_on_from_its_checkpoint(shared_cluster: Cluster, tmp_path: Path):
    shared_cluster.one_worker(PIGEONHOLE_TRAINING_STALL_S="3")
    job = shared_cluster.submit(
        "train", str(make_shapes(tmp_path / "in")), "--name", "hanging", "--arch", "mlp", "--epochs", "10000"
    )
    child = training_child(shared_cluster)
    wait_for_epoch(shared_cluster, job)

    child.suspend()

    wait_until_resumed(shared_cluster, job)
    assert not child.is_running()
    [first, *_] = attempts_of(shared_cluster, job)
    assert first.end is not None
    assert (first.end.how, first.end.died) == ("the training showed no sign of life for 3 s and was ended", True)


def test_a_training_whose_process_is_killed_and_whose_worker_is_frozen_ends_with_the_same_weights_bit_for_bit(
    running_cluster: Cluster, undisturbed: Training
):
    """The short form of `benchmarks.training_kills`."""
    running_cluster.start_worker(wait=False)

    kills = [("process", 1), ("freeze", 1)]
    job = train_with_kills(Network(running_cluster), undisturbed.data, "inherited", kills, print, options=OPTIONS)

    assert digests(running_cluster, "inherited") == digests(running_cluster, "bars")
    killed, frozen, last = attempts_of(running_cluster, job)
    ends = [attempt.end.how for attempt in (killed, frozen, last) if attempt.end is not None]
    assert ends == [
        "the training was killed by signal 9", "its worker died, or was cut off", "it was finished",
    ]  # fmt: skip
    assert frozen.begin.worker != last.begin.worker
    resumed = [event for event in events_of(running_cluster, job) if event["event"] == "resumed"]
    assert [event["attempt"] for event in resumed] == [2, 3]
    assert all(event["epoch"] >= 1 for event in resumed)


def test_a_worker_told_to_stop_hands_its_training_back(running_cluster: Cluster, tmp_path: Path):
    [worker] = running_cluster.workers
    job = running_cluster.submit(
        "train", str(make_shapes(tmp_path / "in")), "--name", "handed-back", "--arch", "mlp", "--epochs", "10000"
    )
    wait_for_epoch(running_cluster, job)

    worker.terminate()

    assert worker.process.wait(60) == 0
    record = running_cluster.record(job)
    assert (record.state, record.error) == ("running", "")
    assert running_cluster.ledger.client.zcard(f"{{pigeonhole}}:job:{job}:returned") == 1


def test_a_training_that_is_paused_stops_and_goes_on_from_its_checkpoint(running_cluster: Cluster, tmp_path: Path):
    job = running_cluster.submit(
        "train", str(make_shapes(tmp_path / "in")), "--name", "paused", "--arch", "mlp", "--epochs", "10000"
    )
    child = training_child(running_cluster)
    wait_for_epoch(running_cluster, job)

    running_cluster.run_ok("jobs", "pause", job)
    wait_until(lambda: not child.is_running(), what="the training's process is gone")
    record = running_cluster.record(job)
    assert (record.state, record.paused_by) == ("paused", "operator")
    running_cluster.run_ok("jobs", "unpause", job)

    wait_until_resumed(running_cluster, job)
    assert running_cluster.ledger.client.exists(f"{{pigeonhole}}:job:{job}:attempts") == 0
