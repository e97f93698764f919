"""Lines that real worker processes serve."""

import os
import signal

import psutil
import pytest

from tests.support.pushes import digit_png, open_line, wait_until_open, workers_of
from tests.support.server import wait_until
from tests.support.workers import Cluster

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

NUM_IMAGES = 60


def pool_child(cluster: Cluster) -> int:
    """The process of the only worker that holds the device."""
    [worker] = cluster.workers
    child = worker.pool_child()
    assert child is not None
    return int(child.pid)


def freeze(pid: int) -> None:
    """Stop a process, and wait until it has stopped: the kernel stops it when its first thread runs next."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED, what=f"process {pid} has stopped")


def test_a_push_to_a_line_that_was_created_while_the_worker_ran_is_answered_by_its_model(running_cluster: Cluster):
    pusher = open_line(running_cluster, "late-born")

    answer = pusher.ask("a", digit_png(1))

    assert (answer.item, answer.pass_, answer.reason, answer.error) == ("a", 1, None, None)
    assert answer.bin == f"bin-{answer.label}"
    assert (len(answer.scores), answer.model, answer.map_version) == (5, "digits@1", 1)


def test_what_a_killed_process_held_is_answered_and_what_a_frozen_one_holds_is_late_in_time(running_cluster: Cluster):
    pusher = open_line(running_cluster, "killed")
    items = [f"item-{number}" for number in range(NUM_IMAGES)]
    for number, item in enumerate(items):
        pusher.push(item, digit_png(number))
        if number == NUM_IMAGES // 2:
            os.kill(pool_child(running_cluster), signal.SIGKILL)

    answers = pusher.wait_for(*items)

    assert {answer.reason for answer in answers} == {None}
    wait_until_open(pusher.store)
    frozen = pool_child(running_cluster)
    try:
        freeze(frozen)
        pusher.forget_capacity()  # a busy machine's worker may have taken longer
        pusher.push("frozen", digit_png(0), deadline_ms=400)
        [late] = pusher.wait_for("frozen")
    finally:
        os.kill(frozen, signal.SIGCONT)
    assert (late.bin, late.reason) in [("F", "late"), ("F", "no_worker")]
    assert pusher.ask("thawed", digit_png(1)).reason is None


def test_a_process_whose_parent_was_killed_leaves_its_lines(running_cluster: Cluster):
    pusher = open_line(running_cluster, "orphaned")
    [worker] = running_cluster.workers

    worker.kill()

    wait_until(lambda: workers_of(pusher.store) == {}, what=f"it serves no line any more\n{worker.log.read_text()}")
