"""Workers that die, are stopped, read an image that kills them, run out of files, or lose sight of their images."""

import json
import os
import resource
import shutil
import signal
from pathlib import Path

import psutil
import pytest

from orchestrator.contract.errors import ExitCode
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.rows import FORMATS, summary_path
from orchestrator.contract.queues import CLASSIFY, FINALIZE, queue_key
from orchestrator.jobs.submit import JobClient
from tests.support.published_models import make_pngs, make_slow_images
from tests.support.server import wait_until
from tests.support.workers import Cluster, read_json
from workers.child_watch import MAX_DEATHS

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

NUM_IMAGES = 400


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images that keep a worker busy for some seconds."""
    folder = tmp_path_factory.mktemp("photographs") / "in"
    make_slow_images(folder, NUM_IMAGES)
    return folder


@pytest.fixture(scope="module")
def undisturbed(session_cluster: Cluster, photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of a job over the photographs that nothing happened to."""
    session_cluster.one_worker()
    manifest = tmp_path_factory.mktemp("undisturbed") / "out.csv"
    job = submit_slow_job(session_cluster, photographs, manifest)
    assert session_cluster.outcome(job).state == "succeeded", session_cluster.logs()
    return manifest


def submit_slow_job(cluster: Cluster, source: Path, output: Path, *, shard_size: int = 16) -> str:
    options = ("--model", "digits", "-o", str(output), "--shard-size", str(shard_size))
    return cluster.submit("classify", str(source), *options)


def workers_of(manifest: Path) -> set[str]:
    """The workers that wrote the parts of a manifest, as its summary names them."""
    return set(read_json(summary_path(manifest))["workers"])


def published_files(manifest: Path) -> tuple[bytes, bytes]:
    """The results of a job."""
    return manifest.read_bytes(), summary_path(manifest).read_bytes()


def is_idle(cluster: Cluster, num_workers: int) -> bool:
    """Whether this number of workers is alive and idle."""
    living = [worker for worker in cluster.ledger.live_workers.workers() if worker.alive]
    return len(living) == num_workers and all(worker.doing == "idle" for worker in living)


def test_a_job_whose_worker_is_killed_goes_on_with_another_and_ends_byte_for_byte_the_same(
    running_cluster: Cluster, tmp_path: Path, photographs: Path, undisturbed: Path
):
    [first] = running_cluster.workers

    disturbed = submit_slow_job(running_cluster, photographs, tmp_path / "disturbed.csv")
    running_cluster.wait_for(disturbed, 32)
    first.kill()
    running_cluster.start_worker()

    assert running_cluster.outcome(disturbed).state == "succeeded"
    assert (tmp_path / "disturbed.csv").read_bytes() == undisturbed.read_bytes()
    assert len(list(FORMATS["csv"].read(tmp_path / "disturbed.csv"))) == NUM_IMAGES
    assert len(workers_of(tmp_path / "disturbed.csv") - workers_of(undisturbed)) == 1
    assert len(workers_of(tmp_path / "disturbed.csv")) == 2
    running_cluster.run_ok("results", "verify", str(tmp_path / "disturbed.csv"))


def test_a_worker_that_was_frozen_for_longer_than_its_lease_spoils_nothing_and_works_on(
    running_cluster: Cluster, tmp_path: Path, photographs: Path, undisturbed: Path
):
    [worker] = running_cluster.workers
    disturbed = submit_slow_job(running_cluster, photographs, tmp_path / "disturbed.csv")
    running_cluster.wait_for(disturbed, 32)

    with worker.frozen():
        assert running_cluster.ledger.client.zcard(f"{{pigeonhole}}:job:{disturbed}:leases") > 0
        assert running_cluster.record(disturbed).num_done < NUM_IMAGES
        running_cluster.start_worker()
        outcome = running_cluster.outcome(disturbed)
        published = published_files(tmp_path / "disturbed.csv")
    wait_until(lambda: is_idle(running_cluster, num_workers=2), what="both are idle")

    assert outcome.state == "succeeded"
    assert (tmp_path / "disturbed.csv").read_bytes() == undisturbed.read_bytes()
    assert len(workers_of(tmp_path / "disturbed.csv")) == 2
    both = submit_slow_job(running_cluster, photographs, tmp_path / "both.csv")
    assert running_cluster.outcome(both).state == "succeeded", running_cluster.logs()
    assert workers_of(tmp_path / "both.csv") == workers_of(tmp_path / "disturbed.csv")
    assert (tmp_path / "both.csv").read_bytes() == undisturbed.read_bytes()
    assert published_files(tmp_path / "disturbed.csv") == published
    assert JobFolder.open(running_cluster.settings, disturbed).outcome() == outcome


def test_a_child_that_is_killed_is_replaced_and_the_job_goes_on(
    running_cluster: Cluster, tmp_path: Path, photographs: Path
):
    [worker] = running_cluster.workers
    job = submit_slow_job(running_cluster, photographs, tmp_path / "out.csv")
    running_cluster.wait_for(job, 16)

    child = worker.pool_child()
    assert child is not None
    child.kill()

    assert running_cluster.outcome(job).state == "succeeded"
    assert worker.process.poll() is None


@pytest.mark.parametrize("moment", ["at once", "while it imports torch"])
def test_a_worker_whose_child_dies_before_it_was_ever_ready_ends_with_a_sentence(
    running_cluster: Cluster, tmp_path: Path, moment: str
):
    if moment == "at once":
        (tmp_path / "sitecustomize.py").write_text(
            "import os, sys\nif 'spawn_main' in str(sys.orig_argv): os._exit(7)\n"
        )
    else:
        (tmp_path / "torch.py").write_text("import os\nos.kill(os.getpid(), 9)\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])

    worker = running_cluster.start_worker(wait=False, PYTHONPATH=path)

    assert worker.process.wait(timeout=60) == ExitCode.UNAVAILABLE
    log = worker.log.read_text()
    # Of a child that dies at once Celery itself ends, or starts more of them until the worker gives up, which is first.
    assert log.count("exited with") >= (1 if moment == "at once" else MAX_DEATHS)
    assert log.splitlines()[-1].startswith("error: the process that computes dies before it is ready")


def test_a_worker_told_to_stop_hands_back_its_shards_at_once_and_ends_well(
    running_cluster: Cluster, tmp_path: Path, photographs: Path
):
    [worker] = running_cluster.workers
    job = submit_slow_job(running_cluster, photographs, tmp_path / "out.csv")
    running_cluster.wait_for(job, 16)

    worker.terminate()

    assert worker.process.wait(60) == 0, running_cluster.logs()
    record = running_cluster.record(job)
    assert record.state == "running"
    assert running_cluster.ledger.client.zcard(f"{{pigeonhole}}:job:{job}:leases") == 0
    assert running_cluster.ledger.live_workers.workers() == []
    running_cluster.start_worker()
    assert running_cluster.outcome(job).state == "succeeded"
    assert json.loads(running_cluster.run_ok("status", job, "--json"))["num_done"] == NUM_IMAGES


def test_a_second_signal_stops_a_worker_at_once(running_cluster: Cluster, tmp_path: Path):
    [worker] = running_cluster.workers
    make_slow_images(tmp_path / "in", 3000)
    job = submit_slow_job(running_cluster, tmp_path / "in", tmp_path / "out.csv", shard_size=3000)
    wait_until(lambda: running_cluster.record(job).state == "running", what="the job runs")
    children = psutil.Process(worker.process.pid).children(recursive=True)

    worker.terminate()
    wait_until(lambda: "stopping: " in worker.log.read_text(), what="the worker heard")
    worker.terminate()

    assert worker.process.wait(60) == 128 + signal.SIGTERM
    wait_until(lambda: not any(child.is_running() for child in children), what="its children are gone")


def poison(images: Path) -> Path:
    """Make one of the images one at which a worker whose decoder is poisoned ends."""
    path = images / "00000" / "00000021.png"
    path.unlink()
    path.write_bytes(b"POISON")
    return path


def poisoned_at(folder: Path, statement: str) -> str:
    """The module path of a worker whose decoder runs a statement at such an image."""
    patches = folder / "patches"
    patches.mkdir()
    (patches / "sitecustomize.py").write_text(
        "import ctypes\n"
        "try:\n"
        "    import modeling.images.decode as decode, modeling.inference.decoders as decoders\n"
        "    whole = decode.decode_image\n"
        "    def decode_image(data, *args, **options):\n"
        "        if data == b'POISON':\n"
        f"            {statement}\n"
        "        return whole(data, *args, **options)\n"
        "    decoders.decode_image = decode_image\n"
        "except ImportError:\n"
        "    pass\n"
    )
    return f"{patches}{os.pathsep}{Path(__file__).resolve().parents[2]}"


def test_an_image_that_crashes_its_worker_is_found_and_answered_and_its_mates_keep_their_answers(
    shared_cluster: Cluster, tmp_path: Path
):
    make_pngs(tmp_path / "in", 40)
    poison(tmp_path / "in")
    shared_cluster.one_worker(PYTHONPATH=poisoned_at(tmp_path, "ctypes.string_at(0)"), PIGEONHOLE_LEASE_S="0.5")

    job = shared_cluster.submit(
        "classify", str(tmp_path / "in"), "--model", "digits", "-o", str(tmp_path / "out.jsonl")
    )
    outcome = shared_cluster.outcome(job)

    assert (outcome.state, outcome.num_done, outcome.num_failed) == ("partial", 40, 1)
    rows = list(FORMATS["jsonl"].read(tmp_path / "out.jsonl"))
    assert [(row.path, row.prediction.error_code) for row in rows if not row.prediction.ok] == [
        ("00000/00000021.png", "crashed_worker")
    ]


def test_a_decoder_that_keeps_pythons_lock_for_ever_costs_a_worker_its_pool_child_and_no_more(
    shared_cluster: Cluster, tmp_path: Path
):
    make_pngs(tmp_path / "in", 40)
    poisonous = poison(tmp_path / "in")
    patched = poisoned_at(tmp_path, "ctypes.PyDLL(None).pause()")
    worker = shared_cluster.one_worker(PYTHONPATH=patched, PIGEONHOLE_LEASE_S="0.5", PIGEONHOLE_STALL_S="3")

    job = shared_cluster.submit("classify", str(tmp_path / "in"), "--model", "digits", "-o", str(tmp_path / "out.csv"))
    wait_until(lambda: "Timeout (0:00:03)!" in worker.log.read_text(), what="the pool child ends itself")
    poisonous.unlink()
    outcome = shared_cluster.outcome(job)

    assert (outcome.state, outcome.num_done, outcome.num_failed) == ("partial", 40, 1)


def test_a_job_whose_source_is_away_is_paused_and_ends_byte_for_byte_the_same_once_it_is_back(
    running_cluster: Cluster, tmp_path: Path, photographs: Path, undisturbed: Path
):
    source, away = tmp_path / "in", tmp_path / "away"
    shutil.copytree(photographs, source, copy_function=os.link)
    job = submit_slow_job(running_cluster, source, tmp_path / "out.csv")
    running_cluster.wait_for(job, 16)

    source.rename(away)
    wait_until(lambda: running_cluster.record(job).state == "paused", what="the job is paused")
    source.mkdir()  # as a share leaves it that is not mounted
    wait_until(lambda: "is empty" in running_cluster.record(job).paused_reason, what="the empty folder is noticed")

    waited = running_cluster.run("wait", job, "--timeout", "0.1")
    make_pngs(tmp_path / "other", 20)
    other = running_cluster.submit("classify", str(tmp_path / "other"), "--model", "digits")
    assert running_cluster.outcome(other).state == "succeeded"
    facts = json.loads(running_cluster.run_ok("status", job, "--json"))
    assert (facts["state"], facts["paused_by"], facts["num_failed"]) == ("paused", "storage", 0)
    assert facts["paused_reason"] in running_cluster.run_ok("status", job)
    assert f"{source} is empty; is its share mounted?" in waited.stderr
    assert (waited.returncode, "paused" in running_cluster.run_ok("jobs", "--active")) == (124, True)
    assert running_cluster.ledger.client.zcard(f"{{pigeonhole}}:job:{job}:leases") == 0

    source.rmdir()
    away.rename(source)

    assert running_cluster.outcome(job).state == "succeeded"
    assert (tmp_path / "out.csv").read_bytes() == undisturbed.read_bytes()


def test_a_worker_without_file_descriptors_says_so_and_costs_its_job_nothing(
    running_cluster: Cluster, tmp_path: Path, photographs: Path, undisturbed: Path
):
    [worker] = running_cluster.workers
    child = worker.pool_child()
    assert child is not None
    job = submit_slow_job(running_cluster, photographs, tmp_path / "out.csv")
    running_cluster.wait_for(job, 16)

    before = resource.prlimit(child.pid, resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    wait_until(lambda: "Too many open files" in running_cluster.record(job).trouble, what="the worker says so")
    resource.prlimit(child.pid, resource.RLIMIT_NOFILE, before)

    assert running_cluster.outcome(job).state == "succeeded"
    assert (tmp_path / "out.csv").read_bytes() == undisturbed.read_bytes()
    assert child.is_running()


def test_lost_and_doubled_doorbells_and_a_second_finalize_change_nothing(shared_cluster: Cluster, tmp_path: Path):
    make_pngs(tmp_path / "in", 100)
    shared_cluster.dismiss()
    lost = shared_cluster.submit(
        "classify", str(tmp_path / "in"), "--model", "digits", "-o", str(tmp_path / "lost.csv")
    )
    shared_cluster.ledger.client.delete(queue_key(CLASSIFY))
    shared_cluster.one_worker()

    assert shared_cluster.outcome(lost).state == "succeeded"

    doubled = shared_cluster.submit(
        "classify", str(tmp_path / "in"), "--model", "digits", "-o", str(tmp_path / "doubled.csv")
    )
    client = JobClient(shared_cluster.settings)
    for _ in range(10):
        client.ring(CLASSIFY, doubled)
        client.ring(FINALIZE, doubled)
    assert shared_cluster.outcome(doubled).state == "succeeded"
    summary = read_json(tmp_path / "doubled.csv.summary.json")
    manifest = (tmp_path / "doubled.csv").read_bytes()
    outcome = JobFolder.open(shared_cluster.settings, doubled).outcome()
    client.ring(FINALIZE, doubled)
    wait_until(lambda: shared_cluster.ledger.queue_length(FINALIZE) == 0, what="the bell was heard")

    assert manifest == (tmp_path / "lost.csv").read_bytes()
    assert read_json(tmp_path / "doubled.csv.summary.json") == summary
    assert JobFolder.open(shared_cluster.settings, doubled).outcome() == outcome


def test_a_submitter_that_dies_while_listing_ends_its_job_with_a_reason(running_cluster: Cluster, tmp_path: Path):
    make_pngs(tmp_path / "in", 10)
    options = ("--model", "digits", "-o", str(tmp_path / "out.csv"), "--shard-size", "4", "--detach")
    reading, writing = os.pipe()
    submitter = running_cluster.start("classify", "-", "--root", str(tmp_path / "in"), *options, stdin=reading)
    with open(writing, "w") as pipe:
        pipe.write("".join(f"00000/{number:08d}.png\n" for number in range(10)) + "x" * (1 << 20))
        pipe.flush()
        wait_until(lambda: bool(running_cluster.ledger.active()), what="the job is there")
        [job] = running_cluster.ledger.active()
        submitter.kill()
        submitter.wait()
    running_cluster.ledger.client.hset(f"{{pigeonhole}}:job:{job}", "lister_until", 0)

    outcome = running_cluster.outcome(job)

    assert outcome.state == "failed"
    assert "ended before it had listed all images" in (outcome.error or "")
    assert not (tmp_path / "out.csv").exists()
