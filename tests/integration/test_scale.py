"""Twenty thousand images: flat memory, few doorbells, few bytes on the server, and an early start of work."""

import fcntl
import os
import sys
import termios
import threading
from pathlib import Path
from typing import IO

import psutil
import pytest

from orchestrator.contract.queues import ALL_QUEUES
from tests.support.published_models import make_pngs
from tests.support.server import wait_until
from tests.support.workers import Cluster

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

NUM_IMAGES = 20_000
NUM_FIRST = 1_000  # paths in the list before its writer pauses
SHARD_SIZE = 128
MAX_BYTES_A_SHARD = 200
# Of the submitting process, from its first doorbell on:
MAX_LISTING_BYTES = 3 << 20  # while it lists: 2 MiB, and 50 bytes an image
MAX_FOLLOWING_BYTES = 8 << 20  # with what it imports to follow the job


class Watch(threading.Thread):
    """Records the highest number of doorbells, and of bytes in the submitting process, while a job runs."""

    def __init__(self, cluster: Cluster, pid: int) -> None:
        super().__init__(daemon=True)
        self._cluster = cluster
        self._process = psutil.Process(pid)
        self.most_bells = 0
        self.first_size = self.largest_size = self._process.memory_info().rss
        self.ended = threading.Event()

    def run(self) -> None:
        """Poll twenty times per second."""
        ledger = self._cluster.ledger
        while not self.ended.wait(0.05):
            self.most_bells = max(self.most_bells, sum(ledger.queue_length(queue) for queue in ALL_QUEUES))
            try:
                self.look()
            except psutil.NoSuchProcess:
                return

    def look(self) -> int:
        """The most bytes of the submitting process until now."""
        self.largest_size = max(self.largest_size, self._process.memory_info().rss)
        return self.largest_size


def is_read(pipe: IO[bytes]) -> bool:
    """Whether the other end of a pipe has taken everything that was written."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder) == 0


def list_lines(numbers: range) -> bytes:
    """Lines of a list with these images of `make_pngs`."""
    return "".join(f"{number // 1000:05d}/{number:08d}.png\n" for number in numbers).encode()


def test_20_000_images_take_flat_memory_few_doorbells_and_few_bytes_a_shard_on_the_server(
    running_cluster: Cluster, tmp_path: Path
):
    cluster = running_cluster
    make_pngs(tmp_path / "in", NUM_IMAGES)
    bytes_before = cluster.server.key_bytes()
    reading, writing = os.pipe()

    submitter = cluster.start(
        "classify", "-", "--root", str(tmp_path / "in"), "--model", "digits",
        "-o", str(tmp_path / "out.csv"), "--shard-size", str(SHARD_SIZE),
        stdin=reading,
    )  # fmt: skip
    os.close(reading)
    with open(writing, "wb") as pipe:
        pipe.write(list_lines(range(NUM_FIRST)))
        pipe.flush()
        wait_until(lambda: bool(cluster.ledger.active()), what="the job is there")
        [job] = cluster.ledger.active()
        cluster.wait_for(job, 1)
        early = cluster.record(job)
        num_given = NUM_FIRST

        def goes_on() -> bool:
            nonlocal num_given
            pipe.write(list_lines(range(num_given, num_given + SHARD_SIZE)))
            pipe.flush()
            num_given += SHARD_SIZE
            return cluster.record(job).num_images > early.num_images

        wait_until(goes_on, what="the first doorbell was rung")  # which brings kombu's transport in
        watch = Watch(cluster, submitter.pid)
        watch.start()
        pipe.write(list_lines(range(num_given, NUM_IMAGES)))
        pipe.flush()
        wait_until(lambda: is_read(pipe), what="the list is read")
        grown_listing = watch.look() - watch.first_size
    wait_until(lambda: cluster.record(job).listed, what="all is listed")
    cluster.wait_for(job, NUM_IMAGES // 2)
    key_bytes = cluster.server.key_bytes()
    assert submitter.wait(300) == 0, cluster.logs()
    watch.ended.set()
    watch.join()

    num_shards = -(-NUM_IMAGES // SHARD_SIZE)
    assert cluster.outcome(job).num_done == NUM_IMAGES
    assert early.num_done > 0
    assert not early.listed
    assert watch.most_bells <= 4
    assert (key_bytes - bytes_before) / num_shards < MAX_BYTES_A_SHARD
    assert grown_listing < MAX_LISTING_BYTES
    assert watch.largest_size - watch.first_size < MAX_FOLLOWING_BYTES
    assert cluster.run_ok("results", "verify", str(tmp_path / "out.csv")).startswith(
        f"{tmp_path}/out.csv: {NUM_IMAGES} rows"
    )
    assert sum(1 for _ in os.scandir(tmp_path)) < 20
