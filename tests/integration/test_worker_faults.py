"""Workers that die, are told to stop, or meet an image that kills them."""

import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.rows import FORMATS, summary_path
from orchestrator.contract.queues import CLASSIFY, FINALIZE
from orchestrator.jobs.submit import JobClient
from tests.support.published_models import make_photographs, make_pngs
from tests.support.server import wait_until
from tests.support.workers import House, read_json

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def submit_slow_job(house: House, folder: Path, output: Path, num_images: int = 240) -> str:
    """A job that lasts some seconds, in shards of 16."""
    if not folder.exists():
        make_photographs(folder, num_images)
    return house.submit("classify", str(folder), "--model", "digits", "-o", str(output), "--shard-size", "16")


def workers_of(manifest: Path) -> set[str]:
    """The workers that wrote the parts of a manifest, as its summary names them."""
    return set(read_json(summary_path(manifest))["workers"])


def published_files(manifest: Path) -> tuple[bytes, bytes]:
    """All that a job gave its operator."""
    return manifest.read_bytes(), summary_path(manifest).read_bytes()


def is_idle(house: House, num_workers: int) -> bool:
    """Whether so many workers live, listen, and have nothing in hand."""
    living = [worker for worker in house.ledger.live_workers.workers() if worker.alive]
    return len(living) == num_workers and all(worker.doing == "idle" for worker in living)


def test_a_job_whose_worker_is_killed_goes_on_with_another_and_ends_byte_for_byte_the_same(
    house: House, tmp_path: Path
):
    first = house.hire()
    undisturbed = submit_slow_job(house, tmp_path / "in", tmp_path / "undisturbed.csv")
    assert house.outcome(undisturbed).state == "succeeded"

    disturbed = submit_slow_job(house, tmp_path / "in", tmp_path / "disturbed.csv")
    house.wait_for(disturbed, 32)
    first.kill()
    house.hire()

    assert house.outcome(disturbed).state == "succeeded"
    assert (tmp_path / "disturbed.csv").read_bytes() == (tmp_path / "undisturbed.csv").read_bytes()
    assert len(list(FORMATS["csv"].read(tmp_path / "disturbed.csv"))) == 240
    assert len(workers_of(tmp_path / "disturbed.csv") - workers_of(tmp_path / "undisturbed.csv")) == 1
    assert len(workers_of(tmp_path / "disturbed.csv")) == 2
    house.run_ok("results", "verify", str(tmp_path / "disturbed.csv"))


def test_a_worker_that_was_frozen_for_longer_than_its_lease_spoils_nothing_and_works_on(house: House, tmp_path: Path):
    frozen = house.hire()
    undisturbed = submit_slow_job(house, tmp_path / "in", tmp_path / "undisturbed.csv")
    assert house.outcome(undisturbed).state == "succeeded"
    disturbed = submit_slow_job(house, tmp_path / "in", tmp_path / "disturbed.csv")
    house.wait_for(disturbed, 32)

    parent = psutil.Process(frozen.process.pid)
    processes = [parent, *parent.children(recursive=True)]
    for process in processes:
        process.suspend()
    assert house.ledger.client.zcard(f"{{pigeonhole}}:job:{disturbed}:leases") > 0
    assert house.record(disturbed).num_done < 240
    house.hire()
    outcome = house.outcome(disturbed)
    published = published_files(tmp_path / "disturbed.csv")
    for process in processes:
        process.resume()
    wait_until(lambda: is_idle(house, num_workers=2), what="both are idle", timeout_s=60)

    assert outcome.state == "succeeded"
    assert (tmp_path / "disturbed.csv").read_bytes() == (tmp_path / "undisturbed.csv").read_bytes()
    assert len(workers_of(tmp_path / "disturbed.csv")) == 2
    both = submit_slow_job(house, tmp_path / "in", tmp_path / "both.csv")
    assert house.outcome(both).state == "succeeded", house.logs()
    assert workers_of(tmp_path / "both.csv") == workers_of(tmp_path / "disturbed.csv")
    assert (tmp_path / "both.csv").read_bytes() == (tmp_path / "undisturbed.csv").read_bytes()
    assert published_files(tmp_path / "disturbed.csv") == published
    assert JobFolder.open(house.settings, disturbed).outcome() == outcome


def test_a_child_that_is_killed_is_replaced_and_the_job_goes_on(house: House, tmp_path: Path):
    worker = house.hire()
    job = submit_slow_job(house, tmp_path / "in", tmp_path / "out.csv")
    house.wait_for(job, 16)

    [child] = [
        child for child in psutil.Process(worker.process.pid).children() if "spawn_main" in " ".join(child.cmdline())
    ]
    child.kill()

    assert house.outcome(job).state == "succeeded"
    assert worker.process.poll() is None


def test_a_worker_told_to_stop_hands_back_its_shards_at_once_and_ends_well(house: House, tmp_path: Path):
    worker = house.hire()
    job = submit_slow_job(house, tmp_path / "in", tmp_path / "out.csv")
    house.wait_for(job, 16)

    worker.terminate()

    assert worker.process.wait(60) == 0, house.logs()
    record = house.record(job)
    assert record.state == "running"
    assert house.ledger.client.zcard(f"{{pigeonhole}}:job:{job}:leases") == 0
    assert house.ledger.live_workers.workers() == []
    house.hire()
    assert house.outcome(job).state == "succeeded"
    assert json.loads(house.run_ok("status", job, "--json"))["num_done"] == 240


def test_a_second_signal_stops_a_worker_at_once(house: House, tmp_path: Path):
    worker = house.hire()
    make_photographs(tmp_path / "in", 240)
    job = house.submit(
        "classify", str(tmp_path / "in"), "--model", "digits", "-o", str(tmp_path / "out.csv"), "--shard-size", "240"
    )
    wait_until(lambda: house.record(job).state == "running", what="the job runs")
    children = psutil.Process(worker.process.pid).children(recursive=True)

    worker.terminate()
    wait_until(lambda: "stopping: " in worker.log.read_text(), what="the worker heard")
    worker.terminate()

    assert worker.process.wait(5) == 128 + signal.SIGTERM
    wait_until(lambda: not any(child.is_running() for child in children), what="its children are gone")


def test_an_image_that_kills_its_worker_is_found_and_answered_and_its_mates_keep_their_answers(
    house: House, tmp_path: Path
):
    make_pngs(tmp_path / "in", 40)
    killer = tmp_path / "in" / "00000" / "00000021.png"
    killer.unlink()
    killer.write_bytes(b"KILL THE WORKER")
    patches = tmp_path / "patches"
    patches.mkdir()
    (patches / "sitecustomize.py").write_text(
        "import os, signal\n"
        "try:\n"
        "    import modeling.images.decode as decode, modeling.inference.decoders as decoders\n"
        "    whole = decode.decode_image\n"
        "    def decode_image(data, *args, **options):\n"
        "        if data.startswith(b'KILL'):\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "        return whole(data, *args, **options)\n"
        "    decoders.decode_image = decode_image\n"
        "except ImportError:\n"
        "    pass\n"
    )
    house.hire(PYTHONPATH=f"{patches}{os.pathsep}{Path(__file__).resolve().parents[2]}", PIGEONHOLE_LEASE_S="0.5")

    job = house.submit("classify", str(tmp_path / "in"), "--model", "digits", "-o", str(tmp_path / "out.jsonl"))
    outcome = house.outcome(job)

    assert (outcome.state, outcome.num_done, outcome.num_failed) == ("partial", 40, 1)
    rows = list(FORMATS["jsonl"].read(tmp_path / "out.jsonl"))
    assert [(row.path, row.prediction.error_code) for row in rows if not row.prediction.ok] == [
        ("00000/00000021.png", "crashed_worker")
    ]


def test_lost_and_doubled_doorbells_and_a_second_finalize_change_nothing(house: House, tmp_path: Path):
    make_pngs(tmp_path / "in", 100)
    lost = house.submit("classify", str(tmp_path / "in"), "--model", "digits", "-o", str(tmp_path / "lost.csv"))
    house.ledger.client.delete(CLASSIFY)
    house.hire()

    assert house.outcome(lost).state == "succeeded"

    doubled = house.submit("classify", str(tmp_path / "in"), "--model", "digits", "-o", str(tmp_path / "doubled.csv"))
    client = JobClient(house.settings)
    for _ in range(10):
        client.ring(CLASSIFY, doubled)
        client.ring(FINALIZE, doubled)
    assert house.outcome(doubled).state == "succeeded"
    summary = read_json(tmp_path / "doubled.csv.summary.json")
    manifest = (tmp_path / "doubled.csv").read_bytes()
    outcome = JobFolder.open(house.settings, doubled).outcome()
    client.ring(FINALIZE, doubled)
    wait_until(lambda: house.ledger.queue_length(FINALIZE) == 0, what="the bell was heard")

    assert manifest == (tmp_path / "lost.csv").read_bytes()
    assert read_json(tmp_path / "doubled.csv.summary.json") == summary
    assert JobFolder.open(house.settings, doubled).outcome() == outcome


def test_a_submitter_that_dies_while_listing_ends_its_job_with_a_reason(house: House, tmp_path: Path):
    make_pngs(tmp_path / "in", 10)
    house.hire()
    options = ("--model", "digits", "-o", str(tmp_path / "out.csv"), "--shard-size", "4", "--detach")
    reading, writing = os.pipe()
    submitter = house.start("classify", "-", "--root", str(tmp_path / "in"), *options, stdin=reading)
    with open(writing, "w") as pipe:
        pipe.write("".join(f"00000/{number:08d}.png\n" for number in range(10)) + "x" * (1 << 20))
        pipe.flush()
        wait_until(lambda: bool(house.ledger.active()), what="the job is there", timeout_s=30)
        [job] = house.ledger.active()
        submitter.kill()
        submitter.wait()
    house.ledger.client.hset(f"{{pigeonhole}}:job:{job}", "lister_until", 0)

    outcome = house.outcome(job)

    assert outcome.state == "failed"
    assert "ended before it had listed all images" in (outcome.error or "")
    assert not (tmp_path / "out.csv").exists()
