"""Pool children that use too much memory are replaced between two tasks."""

import logging
import threading

import pytest
from billiard import pool

from orchestrator.contract.settings import Settings
from workers.memory import OF_A_MACHINE, OF_A_QUOTA, MemoryWatch, memory_limit

LIMIT = 2 * 10**9


class Child:
    """A pool child that uses some memory; notes why it leaves, and how often it was ended."""

    def __init__(self, used: int) -> None:
        self.used = used
        self.leaves: list[str] = []
        self.num_ended = 0
        self.watch = MemoryWatch(LIMIT, self.leaves.append, self._end, lambda: self.used)

    def _end(self) -> None:
        self.num_ended += 1


def test_below_the_limit_nothing_happens():
    child = Child(LIMIT)

    child.watch.look()

    assert (child.watch.used_kb(), child.leaves, child.num_ended) == (LIMIT // 1024, [], 0)


def test_after_a_task_billiard_learns_that_the_limit_is_passed_and_the_reason_is_said_once(caplog):
    child = Child(3 * 10**9)

    with caplog.at_level(logging.WARNING):
        used = [child.watch.used_kb() for _ in range(2)]

    assert used == [3 * 10**9 // 1024] * 2
    assert child.leaves == ["it uses 3.00 GB, more than the limit of 2.00 GB"]
    assert [record.getMessage() for record in caplog.records] == [
        "this process is replaced: it uses 3.00 GB, more than the limit of 2.00 GB"
    ]


def test_a_child_ends_by_itself_only_while_it_is_idle():
    child = Child(3 * 10**9)

    with child.watch.at_work():
        child.watch.look()
    assert (child.num_ended, child.leaves) == (0, [])

    child.watch.look()
    assert (child.num_ended, len(child.leaves)) == (1, 1)


def test_no_task_begins_in_a_child_that_ends(monkeypatch):
    child = Child(3 * 10**9)
    order: list[str] = []

    def work() -> None:
        with child.watch.at_work():
            order.append("began")

    task = threading.Thread(target=work)

    def end() -> None:
        task.start()
        task.join(0.1)
        order.append("ended")

    monkeypatch.setattr(child.watch, "_end_idle", end)

    child.watch.look()
    task.join()

    assert order == ["ended", "began"]


def test_billiard_asks_the_watch_after_each_task(monkeypatch):
    monkeypatch.setattr(pool, "mem_rss", None)
    child = Child(10**9)

    child.watch.start()

    assert pool.mem_rss() == 10**9 // 1024
    assert "used_kb = mem_rss()" in open(pool.__file__, encoding="utf-8").read()  # noqa: SIM115


@pytest.mark.parametrize(("quota", "limit"), [(None, 100 * OF_A_MACHINE), (100, 100 * OF_A_QUOTA)])
def test_the_limit_is_the_setting_or_a_share_of_what_machine_or_container_have(monkeypatch, tmp_path, quota, limit):
    monkeypatch.setattr("workers.memory.memory_quota", lambda: quota)
    monkeypatch.setattr("workers.memory.memory_total", lambda: 100)

    assert memory_limit(Settings(home=tmp_path)) == limit
    assert memory_limit(Settings(home=tmp_path, memory_limit_bytes=7)) == 7
