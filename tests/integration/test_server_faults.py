"""Servers that are killed, come back empty, or freeze: jobs go on by themselves, and no worker goes deaf."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from orchestrator.contract.jobs.rows import FORMATS
from orchestrator.contract.server import SOCKET_TIMEOUT_S
from tests.support.published_models import make_pngs, make_slow_images, publish_model
from tests.support.server import running_server, wait_until
from tests.support.stalling_proxy import StallingProxy
from tests.support.steps.faults import Faults
from tests.support.workers import Cluster, open_cluster

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

NUM_IMAGES = 240


@pytest.fixture(scope="module")
def own_cluster(
    tmp_path_factory: pytest.TempPathFactory, engines: Path, session_faults: Faults, _server_program: None
) -> Iterator[Cluster]:
    """A cluster whose server may be killed and frozen; its workers outlive that, and serve the next test."""
    home = tmp_path_factory.mktemp("cluster") / "home"
    publish_model(home / "models", "digits")
    with running_server() as server:
        # Short slices: doorbells come and go all the time.
        environment = {"PIGEONHOLE_LEASE_S": "3", "PIGEONHOLE_SLICE_S": "0.05", **session_faults.environment()}
        yield from open_cluster(home, server, engines, **environment)


@pytest.fixture
def cluster(own_cluster: Cluster) -> Cluster:
    """The module's cluster; its server runs."""
    own_cluster.server.start()
    return own_cluster


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images that keep a worker busy for some seconds."""
    folder = tmp_path_factory.mktemp("photographs") / "in"
    make_slow_images(folder, NUM_IMAGES)
    return folder


@pytest.fixture(scope="module")
def few_photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For shards of four, each of which takes a doorbell of its own."""
    folder = tmp_path_factory.mktemp("few-photographs") / "in"
    make_slow_images(folder, 96)
    return folder


@pytest.fixture(scope="module")
def undisturbed(own_cluster: Cluster, photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The manifest of a job over the photographs that nothing happened to."""
    own_cluster.one_worker()
    manifest = tmp_path_factory.mktemp("undisturbed") / "out.csv"
    job = submit(own_cluster, photographs, manifest)
    assert own_cluster.outcome(job).state == "succeeded", own_cluster.logs()
    return manifest.read_bytes()


def submit(cluster: Cluster, source: Path, output: Path, *, shard_size: int = 16) -> str:
    options = ("--model", "digits", "-o", str(output), "--shard-size", str(shard_size))
    return cluster.submit("classify", str(source), *options)


@pytest.mark.parametrize("memory", ["with its append-only file", "with its last second lost", "empty"])
def test_a_job_goes_on_by_itself_when_the_server_was_killed_and_comes_back(
    cluster: Cluster, photographs: Path, undisturbed: bytes, tmp_path: Path, memory: str
):
    cluster.one_worker()
    job = submit(cluster, photographs, tmp_path / "out.csv")
    cluster.wait_for(job, 48)

    cluster.server.kill()
    if memory == "empty":
        cluster.server.lose_files()
    elif memory == "with its last second lost":
        cluster.server.lose_last_second()
    cluster.server.start()

    assert cluster.outcome(job).state == "succeeded"
    assert (tmp_path / "out.csv").read_bytes() == undisturbed
    assert len(list(FORMATS["csv"].read(tmp_path / "out.csv"))) == NUM_IMAGES
    cluster.run_ok("results", "verify", str(tmp_path / "out.csv"))


def test_a_worker_outlives_a_server_that_is_killed_while_doorbells_come_and_go(
    cluster: Cluster, few_photographs: Path, tmp_path: Path
):
    cluster.one_worker()

    for attempt in range(3):
        job = submit(cluster, few_photographs, tmp_path / f"{attempt}.csv", shard_size=4)
        cluster.wait_for(job, 12 + 24 * attempt)
        cluster.server.kill()
        cluster.server.start()

        assert cluster.outcome(job).state == "succeeded", cluster.logs()


def test_a_worker_outlives_a_server_that_is_frozen_while_doorbells_come_and_go(
    cluster: Cluster, few_photographs: Path, tmp_path: Path
):
    worker = cluster.one_worker()
    make_pngs(tmp_path / "after", 10)
    job = submit(cluster, few_photographs, tmp_path / "out.csv", shard_size=4)
    cluster.wait_for(job, 12)

    cluster.server.freeze()
    patient = redis.Redis.from_url(cluster.server.url, socket_timeout=SOCKET_TIMEOUT_S + 5, retry=None)
    with pytest.raises(redis.TimeoutError):  # by then the worker's calls have failed
        patient.ping()
    cluster.server.thaw()

    assert cluster.outcome(job).state == "succeeded", cluster.logs()
    after = submit(cluster, tmp_path / "after", tmp_path / "after.csv")
    assert cluster.outcome(after).state == "succeeded", cluster.logs()
    assert worker.process.poll() is None


def test_a_worker_outlives_a_server_that_freezes_while_it_asks_for_doorbells(cluster: Cluster, tmp_path: Path):
    proxy = StallingProxy(cluster.server.folder / "proxy.sock", f"{cluster.server.folder}/s.sock", b"BRPOP")
    worker = cluster.one_worker(PIGEONHOLE_SERVER_URL=proxy.url)
    make_pngs(tmp_path / "in", 10)

    proxy.arm()
    first = submit(cluster, tmp_path / "in", tmp_path / "first.csv")
    wait_until(proxy.stalled.is_set, what="the worker asks for a doorbell, and gets no answer")
    second = submit(cluster, tmp_path / "in", tmp_path / "second.csv")

    assert cluster.outcome(first).state == "succeeded", cluster.logs()
    assert cluster.outcome(second).state == "succeeded", cluster.logs()
    assert worker.process.poll() is None
    proxy.close()


def test_a_job_goes_on_by_itself_when_the_server_takes_writes_again(
    cluster: Cluster, few_photographs: Path, tmp_path: Path
):
    worker = cluster.one_worker()
    job = submit(cluster, few_photographs, tmp_path / "out.csv", shard_size=4)
    cluster.wait_for(job, 12)
    start = len(worker.log.read_text())

    for how in ("disk", "replica"):
        before = len(worker.log.read_text())
        with cluster.server.refusing(how):
            wait_until(lambda: "the server is away" in worker.log.read_text()[before:], what="the worker notices")  # noqa: B023

    assert cluster.outcome(job).state == "succeeded", cluster.logs()
    assert "Traceback" not in worker.log.read_text()[start:]
    assert worker.process.poll() is None
