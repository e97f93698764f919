"""A hundred thousand images: flat memory, few doorbells, few bytes on the server."""

import os
import threading
from pathlib import Path

import psutil
import pytest

from orchestrator.contract.queues import ALL_QUEUES
from tests.integration.house import House
from tests.integration.models import make_pngs
from tests.integration.server import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

NUM_IMAGES = 100_000
SHARD_SIZE = 128
MAX_BYTES_A_SHARD = 200
MAX_GROWTH_BYTES = 40 << 20  # of the submitting process, between its first and its last thousands


class Watch(threading.Thread):
    """Notes the highest number of doorbells, and of bytes in the submitting process, while a job runs."""

    def __init__(self, house: House, pid: int) -> None:
        super().__init__(daemon=True)
        self._house = house
        self._process = psutil.Process(pid)
        self.most_bells = 0
        self.sizes: list[int] = []
        self.ended = threading.Event()

    def run(self) -> None:
        """Look twenty times a second."""
        ledger = self._house.ledger
        while not self.ended.wait(0.05):
            self.most_bells = max(self.most_bells, sum(ledger.queue_length(queue) for queue in ALL_QUEUES))
            try:
                self.sizes.append(self._process.memory_info().rss)
            except psutil.NoSuchProcess:
                return


def test_100_000_images_take_flat_memory_few_doorbells_and_few_bytes_a_shard_on_the_server(
    house: House, tmp_path: Path
):
    make_pngs(tmp_path / "in", NUM_IMAGES)
    paths = tmp_path / "paths.txt"
    paths.write_text("".join(f"{n // 1000:05d}/{n:08d}.png\n" for n in range(NUM_IMAGES)))
    house.hire()

    submitter = house.start(
        "classify", str(paths), "--root", str(tmp_path / "in"), "--model", "digits",
        "-o", str(tmp_path / "out.csv"), "--shard-size", str(SHARD_SIZE),
    )  # fmt: skip
    watch = Watch(house, submitter.pid)
    watch.start()
    wait_until(lambda: bool(house.jobs()), what="the job is there", timeout_s=30)
    [job] = house.jobs()
    wait_until(lambda: house.record(job).listed, what="all is listed", timeout_s=60)
    num_done_when_listed = house.record(job).num_done
    house.wait_for(job, NUM_IMAGES // 2)
    key_bytes = house.server.key_bytes()
    assert submitter.wait(300) == 0, house.logs()
    watch.ended.set()
    watch.join()

    num_shards = -(-NUM_IMAGES // SHARD_SIZE)
    started = [size for size in watch.sizes if size > 20 << 20]  # once the interpreter has its modules
    assert house.outcome(job).num_done == NUM_IMAGES
    assert num_done_when_listed < NUM_IMAGES
    assert watch.most_bells <= 4
    assert key_bytes / num_shards < MAX_BYTES_A_SHARD
    assert max(started) - started[len(started) // 4] < MAX_GROWTH_BYTES
    assert house.run_ok("results", "verify", str(tmp_path / "out.csv")).startswith(
        f"{tmp_path}/out.csv: {NUM_IMAGES} rows"
    )
    assert sum(1 for _ in os.scandir(tmp_path)) < 20
