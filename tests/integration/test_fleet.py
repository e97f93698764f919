"""Workers that are drained while they work, and checked on their machine."""

import json
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from orchestrator.contract.ledger.live_workers import WorkerRecord
from orchestrator.contract.release import own_release
from tests.support.published_models import make_photographs, make_pngs
from tests.support.pushes import digit_png, open_line, wait_until_open, workers_of
from tests.support.server import wait_until
from tests.support.workers import COMMAND, Cluster, Worker

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


def record_of(cluster: Cluster, worker: Worker) -> WorkerRecord:
    """What the server has of a worker, once it has it."""

    def found() -> list[WorkerRecord]:
        return [record for record in cluster.ledger.live_workers.workers() if record.pid == worker.process.pid]

    wait_until(lambda: bool(found()), what="its heartbeat")
    return found()[0]


def check(cluster: Cluster, worker: str, *options: str) -> tuple[int, str]:
    done = cluster.run("workers", "healthcheck", worker, *options)
    return done.returncode, done.stdout


def test_a_worker_drained_in_the_middle_of_a_job_ends_with_0_and_the_others_end_the_job(
    running_cluster: Cluster, tmp_path: Path
):
    make_photographs(tmp_path / "in", 120)
    [first] = running_cluster.workers
    name = record_of(running_cluster, first).worker
    submit = ("classify", str(tmp_path / "in"), "--model", "digits", "--shard-size", "8", "-o")
    running_cluster.outcome(running_cluster.submit(*submit, str(tmp_path / "1.csv")))
    second = running_cluster.start_worker()
    record_of(running_cluster, second)

    ambiguous = running_cluster.run("workers", "drain", name.rpartition("-")[0])
    job = running_cluster.submit(*submit, str(tmp_path / "2.csv"))
    running_cluster.wait_for(job, 8)
    done = running_cluster.run("workers", "drain", name, "--json")

    assert (ambiguous.returncode, "ambiguous" in ambiguous.stderr) == (2, True)
    assert (done.returncode, json.loads(done.stdout)) == (0, [{"worker": name, "state": "drained", "doing": ""}])
    assert first.process.wait(timeout=60) == 0
    assert running_cluster.outcome(job).state == "succeeded", running_cluster.logs()
    assert (tmp_path / "2.csv").read_bytes() == (tmp_path / "1.csv").read_bytes()
    attempts = running_cluster.ledger.client.hgetall(f"{{pigeonhole}}:job:{job}:attempts")
    assert attempts == {}
    assert record_of(running_cluster, second).version == own_release().version


def test_a_drained_worker_keeps_its_line_until_another_serves_it_and_drain_all_closes_it_and_leaves_jobs_waiting(
    running_cluster: Cluster, tmp_path: Path
):
    cluster, [first] = running_cluster, running_cluster.workers
    pusher, name = open_line(cluster, "drained"), record_of(cluster, first).worker

    waited = cluster.run("workers", "drain", name, "--timeout", "0")
    wait_until(lambda: record_of(cluster, first).draining, what="it drains")
    alone = pusher.ask("a", digit_png(1))
    still = first.process.poll()
    second = cluster.start_worker()
    code = first.process.wait(timeout=120)
    handed_over = pusher.ask("b", digit_png(2))

    assert (waited.returncode, still, code) == (124, None, 0), waited.stderr
    assert (alone.reason, handed_over.reason) == (None, None)
    wait_until_open(pusher.store)

    make_pngs(tmp_path / "in", 4000)  # more shards than any worker does before it notices
    job = cluster.submit(
        "classify", str(tmp_path / "in"), "--model", "digits", "--shard-size", "1", "-o", str(tmp_path / "1.csv")
    )
    done = cluster.run("workers", "drain", "--all")

    assert (done.returncode, second.process.wait(timeout=60)) == (0, 0), done.stderr
    assert "no worker is left for these jobs, which wait for one: 1 classify" in done.stderr
    assert workers_of(pusher.store) == {}
    assert cluster.run("workers", "drain", "--all").returncode == 4  # none is alive
    assert job in cluster.ledger.active()
    cluster.run_ok("cancel", job)


def test_a_health_check_tells_a_worker_that_is_ready_from_one_that_is_frozen(running_cluster: Cluster):
    [worker] = running_cluster.workers
    name = record_of(running_cluster, worker).worker

    wait_until(lambda: check(running_cluster, name, "--ready")[0] == 0, what="it is ready")
    [child] = [process for process in psutil.Process(worker.process.pid).children() if is_child(process)]
    child.suspend()
    try:
        hanging = check(running_cluster, name)
    finally:
        child.resume()
    worker.process.send_signal(signal.SIGSTOP)
    try:
        frozen = check(running_cluster, name)
    finally:
        worker.process.send_signal(signal.SIGCONT)

    assert (hanging[0], f"its pool child {child.pid} is stopped" in hanging[1]) == (1, True)
    assert (frozen[0], f"its parent process {worker.process.pid} is stopped" in frozen[1]) == (1, True)
    wait_until(lambda: check(running_cluster, name, "--ready")[0] == 0, what="it is ready again")


def is_child(process: psutil.Process) -> bool:
    return "spawn_main" in " ".join(process.cmdline()) or "import_and_spawn_main" in " ".join(process.cmdline())


def test_a_worker_above_its_memory_limit_is_replaced_time_after_time_says_so_and_ends_its_job(
    shared_cluster: Cluster, tmp_path: Path
):
    worker = shared_cluster.one_worker(PIGEONHOLE_MEMORY_LIMIT_BYTES="1")
    make_pngs(tmp_path / "in", 8)

    job = shared_cluster.submit("classify", str(tmp_path / "in"), "--model", "digits", "-o", str(tmp_path / "out.csv"))

    assert shared_cluster.outcome(job).state == "succeeded"
    wait_until(lambda: record_of(shared_cluster, worker).trouble, what="the worker says what troubles it")
    assert "GB, more than the limit of 0.00 GB" in shared_cluster.run_ok("workers", "list")
    assert shared_cluster.ledger.client.hgetall(f"{{pigeonhole}}:job:{job}:attempts") == {}


def test_a_health_check_imports_little(tmp_path: Path):
    code = (
        "import sys\n"
        "from orchestrator.cli import main\n"
        "try: main(['workers', 'healthcheck'], prog_name='pigeonhole')\n"
        "except SystemExit as end: assert end.code == 69, end.code\n"
        "heavy = {'torch', 'celery', 'redis', 'pydantic', 'numpy', 'rich', 'PIL', 'psutil'} & set(sys.modules)\n"
        "sys.exit(f'imported {sorted(heavy)}' if heavy else 0)\n"
    )

    done = subprocess.run([COMMAND[0], "-c", code], capture_output=True, text=True, env={"TMPDIR": str(tmp_path)})

    assert (done.returncode, "no worker runs here" in done.stderr) == (0, True), done.stderr
