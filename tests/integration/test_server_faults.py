"""Servers that are killed, come back empty, or freeze: jobs go on by themselves, and no worker goes deaf."""

import time
from pathlib import Path

import pytest

from orchestrator.contract.jobs.rows import FORMATS
from tests.support.published_models import make_photographs, make_pngs
from tests.support.server import wait_until
from tests.support.stalling_proxy import StallingProxy
from tests.support.workers import House

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

FREEZE_S = 20.0  # longer than the sockets' timeout, which is when a worker's calls fail


@pytest.mark.parametrize("memory", ["with its append-only file", "with its last second lost", "empty"])
def test_a_job_goes_on_by_itself_when_the_server_was_killed_and_comes_back(house: House, tmp_path: Path, memory: str):
    house.hire()
    make_photographs(tmp_path / "in", 240)
    command = ("classify", str(tmp_path / "in"), "--model", "digits", "--shard-size", "16", "-o")
    undisturbed = house.submit(*command, str(tmp_path / "undisturbed.csv"))
    assert house.outcome(undisturbed).state == "succeeded"
    job = house.submit(*command, str(tmp_path / "out.csv"))
    house.wait_for(job, 48)

    house.server.kill()
    if memory == "empty":
        house.server.lose_files()
    elif memory == "with its last second lost":
        house.server.lose_last_second()
    house.server.start()

    assert house.outcome(job).state == "succeeded"
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "undisturbed.csv").read_bytes()
    assert len(list(FORMATS["csv"].read(tmp_path / "out.csv"))) == 240
    house.run_ok("results", "verify", str(tmp_path / "out.csv"))


def test_a_worker_outlives_a_server_that_is_killed_while_doorbells_come_and_go(house: House, tmp_path: Path):
    house.hire(PIGEONHOLE_SLICE_S="0.05")
    make_photographs(tmp_path / "in", 200)

    for attempt in range(3):
        job = house.submit(
            "classify", str(tmp_path / "in"), "--model", "digits", "--shard-size", "4",
            "-o", str(tmp_path / f"{attempt}.csv"),
        )  # fmt: skip
        house.wait_for(job, 20 + 40 * attempt)
        house.server.kill()
        house.server.start()

        assert house.outcome(job).state == "succeeded", house.logs()


def test_a_worker_outlives_a_server_that_freezes_while_it_acknowledges(house: House, tmp_path: Path):
    """Without `ack_patch` the worker is alive and deaf after this, for good."""
    proxy = StallingProxy(
        house.server.folder / "proxy.sock", f"{house.server.folder}/s.sock", b"ZREM\r\n$13\r\nunacked_index"
    )
    worker = house.hire(PIGEONHOLE_SERVER_URL=proxy.url)
    make_pngs(tmp_path / "in", 10)
    command = ("classify", str(tmp_path / "in"), "--model", "digits", "-o")

    proxy.arm()
    first = house.submit(*command, str(tmp_path / "first.csv"))
    wait_until(proxy.stalled.is_set, what="an acknowledgement is stalled")
    second = house.submit(*command, str(tmp_path / "second.csv"))

    assert house.outcome(first).state == "succeeded", house.logs()
    assert house.outcome(second).state == "succeeded", house.logs()
    assert worker.process.poll() is None
    proxy.close()


def test_a_worker_outlives_a_server_that_is_frozen_while_doorbells_come_and_go(house: House, tmp_path: Path):
    worker = house.hire(PIGEONHOLE_SLICE_S="0.05")
    make_photographs(tmp_path / "in", 200)
    make_pngs(tmp_path / "after", 10)
    job = house.submit(
        "classify", str(tmp_path / "in"), "--model", "digits", "--shard-size", "4", "-o", str(tmp_path / "out.csv")
    )
    house.wait_for(job, 20)

    house.server.freeze()
    frozen_at = time.monotonic()
    wait_until(lambda: time.monotonic() - frozen_at > FREEZE_S, what="the freeze is over", timeout_s=2 * FREEZE_S)
    house.server.thaw()

    assert house.outcome(job).state == "succeeded", house.logs()
    after = house.submit("classify", str(tmp_path / "after"), "--model", "digits", "-o", str(tmp_path / "after.csv"))
    assert house.outcome(after).state == "succeeded", house.logs()
    assert worker.process.poll() is None
