"""Messages from strangers: a worker logs a line, and works on."""

import itertools
from pathlib import Path

import psutil
import pytest
import redis

from orchestrator.contract.app import create_app
from orchestrator.contract.queues import ALL_QUEUES, CLASSIFY, KEY_PREFIX, queue_key
from tests.support.published_models import make_pngs
from tests.support.server import wait_until
from tests.support.strangers import forged, refused, remote_commands
from tests.support.workers import Cluster

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

MOST_MEMORY = 300 << 20  # that messages of 8 MB and an inflating one may cost


def classify(cluster: Cluster, folder: Path, output: Path) -> None:
    job = cluster.submit("classify", str(folder), "--model", "digits", "-o", str(output))
    assert cluster.outcome(job).state == "succeeded", cluster.logs()


def test_messages_from_strangers_end_no_worker_and_cost_a_log_line(running_cluster: Cluster, tmp_path: Path):
    [worker] = running_cluster.workers
    parent = psutil.Process(worker.process.pid)
    child = worker.pool_child()
    assert child is not None
    client = running_cluster.ledger.client
    make_pngs(tmp_path / "in", 10)
    before = parent.memory_info().rss
    log_before = worker.log.stat().st_size

    for name, command in remote_commands():
        assert client.publish(f"{KEY_PREFIX}/0.celery.pidbox", command) == 1, name
    for queue in ALL_QUEUES:
        messages = [data for _, data in itertools.chain(refused(queue), forged(queue))]
        client.lpush(queue_key(queue), *messages, *[b"[]"] * 300)
        client.rpush(f"{queue_key(queue)}\x06\x163", b"another priority")
    classify(running_cluster, tmp_path / "in", tmp_path / "out.csv")
    wait_until(lambda: not any(map(running_cluster.ledger.queue_length, ALL_QUEUES)), what="all messages are taken")

    assert worker.alive
    assert child.is_running()
    assert parent.memory_info().rss - before < MOST_MEMORY
    lines = worker.log.read_bytes()[log_before:].decode().splitlines()
    assert any("dropped a message on queue " in line for line in lines)  # whichever is read first fills its ten lines
    assert any("dropped a message on the remote control" in line for line in lines)
    assert any("further lines like this one are left out" in line for line in lines)
    assert len(lines) < 150, "\n".join(lines)


def test_a_worker_answers_pings_and_no_other_command(running_cluster: Cluster):
    [worker] = running_cluster.workers
    app = create_app(running_cluster.server.url)

    replies = app.control.ping(timeout=5, limit=1)
    shut_down = app.control.broadcast("shutdown", reply=True, timeout=0.2)

    assert [list(reply.values()) for reply in replies] == [[{"ok": "pong"}]]
    assert not shut_down
    assert worker.alive


def test_other_applications_on_the_server_share_no_key_with_us(running_cluster: Cluster, tmp_path: Path):
    make_pngs(tmp_path / "in", 10)
    client = running_cluster.ledger.client
    for queue in (*ALL_QUEUES, "celery", "unacked", "_kombu.binding.classify"):
        client.set(queue, "of another application")
    try:
        classify(running_cluster, tmp_path / "in", tmp_path / "out.csv")

        foreign = {key for key in client.scan_iter() if not key.startswith("{pigeonhole}")}
        assert foreign == {*ALL_QUEUES, "celery", "unacked", "_kombu.binding.classify"}
        assert client.pubsub_channels("/*") == []
    finally:
        client.delete(*ALL_QUEUES, "celery", "unacked", "_kombu.binding.classify")


def test_a_key_of_another_kind_in_the_place_of_a_queue_ends_no_worker(running_cluster: Cluster, tmp_path: Path):
    [worker] = running_cluster.workers
    make_pngs(tmp_path / "in", 10)
    client = running_cluster.ledger.client
    log_before = worker.log.stat().st_size

    client.delete(queue_key(CLASSIFY))
    client.set(queue_key(CLASSIFY), "not a list")
    wait_until(lambda: b"WRONGTYPE" in worker.log.read_bytes()[log_before:], what="the worker meets the key")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        client.llen(queue_key(CLASSIFY))
    client.delete(queue_key(CLASSIFY))

    classify(running_cluster, tmp_path / "in", tmp_path / "out.csv")
    assert worker.alive
