"""Schedules of kills: they follow from their seed, and a job under one ends with the same bytes."""

import itertools
import os
import subprocess
from unittest.mock import Mock

import pytest

from benchmarks.chaos_schedule import Strike, schedule
from benchmarks.schedules import (
    Result,
    done_again,
    is_good,
    judge,
    make_work,
    open_supervisor,
    strike_until_end,
    submit,
)
from tests.support.server import find_server
from tests.support.workers import Worker


def test_a_schedule_follows_from_its_seed_alone():
    first, again, other = (list(itertools.islice(schedule(seed), 300)) for seed in (7, 7, 8))

    assert first == again
    assert first != other
    assert [strike.at_s for strike in first[:3]] == [2.0, 4.0, 6.0]
    assert {strike.victim for strike in first} == {"server", "worker 0", "worker 1"}
    assert {strike.how for strike in first} == {"kill", "kill child", "kill parent", "freeze"}


def test_a_shard_may_be_begun_again_only_after_a_kill_or_a_freeze_of_who_had_begun_it():
    starts = ["j 0 11 100.0", "j 0 12 106.0", "j 1 12 101.0"]

    assert done_again(starts, {11: [103.0]}) == (1, [])
    assert done_again(starts, {}, orphans={11}) == (1, [])
    assert done_again(starts, {11: [99.0], 12: [103.0]}) == (1, ["shard 0 was begun by 11, and 6.0 s later by 12"])
    assert done_again(["j 0 11 100.0", "j 1 12 101.0"], {}) == (0, [])


def test_a_worker_is_at_work_once_the_child_that_it_has_now_is_ready(tmp_path, monkeypatch):
    worker = Worker(Mock(spec=subprocess.Popen, pid=1), tmp_path / "log")
    steps = [
        (None, "INFO MainProcess w@host ready.\n", False),
        (10, "INFO/SpawnPoolWorker-1] child process 10 calling self.run()\n", False),
        (None, "", False),  # it was killed before it was ready
        (12, "INFO/SpawnPoolWorker-2] child process 12 calling self.run()\n", False),
        (12, "INFO SpawnPoolWorker-2 ready\n", True),
        (13, "", False),  # another one, that has said nothing yet
        (13, "INFO/SpawnPoolWorker-3] child process 13 calling self.run()\n", False),
    ]

    for pid, said, at_work in steps:
        monkeypatch.setattr(worker, "pool_child", lambda pid=pid: pid and Mock(pid=pid))
        with worker.log.open("a") as log:
            log.write(said)

        assert worker.at_work() == at_work, (pid, said)


@pytest.mark.integration
@pytest.mark.timeout(600)
@pytest.mark.skipif(find_server() is None and not os.environ.get("CI"), reason="no server program here")
def test_a_job_ends_with_the_same_bytes_whatever_is_killed(tmp_path):
    work = make_work(tmp_path, seconds=2, every_s=1, batch_s=0.1)
    strikes = [
        Strike(0.5, "worker 0", "kill", waits=True),
        Strike(1.0, "server", "kill", 0.2),
        Strike(1.5, "worker 1", "kill child", waits=True),
    ]
    result = Result(0, 0.0, 0, identical=False)

    with open_supervisor(tmp_path / "cluster", work.batch_s) as supervisor:
        undisturbed = submit(supervisor.cluster, work, tmp_path / "undisturbed.csv")
        strike_until_end(supervisor, undisturbed, iter([]))
        disturbed = submit(supervisor.cluster, work, tmp_path / "disturbed.csv")
        carried_out = strike_until_end(supervisor, disturbed, iter(strikes))
        judge(supervisor, disturbed, tmp_path / "undisturbed.csv", result)

    assert carried_out == strikes
    assert is_good(result), result
    assert (result.identical, result.rows_missing, result.rows_doubled, result.rows_failed) == (True, 0, 0, 0)
