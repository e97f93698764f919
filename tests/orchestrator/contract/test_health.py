"""What the files of a worker's processes say of its health."""

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from orchestrator.contract.health import (
    CHILD_STALE_S,
    DEAF_S,
    PARENT_STALE_S,
    SERVER_STALE_S,
    START_S,
    ChildState,
    ParentState,
    health_of,
    own_processes,
    process_state,
    read_child,
    read_parent,
    workers_here,
    write_state,
)
from orchestrator.contract.run_folder import PREFIX, START_FILE
from tests.support.server import wait_until

NOW = 10_000.0
PARENT = ParentState("w1", os.getpid(), own_processes(), NOW - 900, NOW - 1, server_s=NOW - 1, listening_s=NOW - 1)
CHILD = ChildState(os.getpid(), NOW - 900, NOW - 1, ready_s=NOW - 890)


@pytest.fixture
def stopped() -> Iterator[int]:
    """The pid of a process that is stopped."""
    process = subprocess.Popen([sys.executable, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"])
    wait_until(lambda: process_state(process.pid) == "T", what="it is stopped")
    yield process.pid
    process.kill()
    process.wait()


@pytest.fixture
def ended() -> int:
    """The pid of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_worker_whose_processes_live_and_that_takes_doorbells_is_ready():
    health = health_of(PARENT, CHILD, NOW)

    assert (health.ready, health.problems, health.waits) == (True, (), ())


@pytest.mark.parametrize(
    ("parent", "child", "problem"),
    [
        (replace(PARENT, at_s=NOW - PARENT_STALE_S - 1), CHILD, "its parent process {pid} has shown no sign of life"),
        (replace(PARENT, listening_s=NOW - DEAF_S - 1), CHILD, "it has not asked for doorbells for 61 s"),
        (replace(PARENT, listening_s=None, started_s=NOW - START_S - 1), CHILD, "it has not begun to take doorbells"),
        (PARENT, replace(CHILD, at_s=NOW - CHILD_STALE_S - 1), "its pool child {pid} has shown no sign of life"),
        (PARENT, replace(CHILD, ready_s=None), "its pool child {pid} is not ready 900 s after its start"),
        (PARENT, None, "no pool child has started within 900 s"),
    ],
)
def test_a_worker_is_unhealthy_if_a_process_hangs_or_it_takes_no_doorbells(parent, child, problem):
    health = health_of(parent, child, NOW)

    assert (len(health.problems), health.healthy, health.ready) == (1, False, False)
    assert problem.format(pid=os.getpid()) in health.problems[0]


def test_a_process_that_is_stopped_or_has_ended_is_noticed_at_once(stopped, ended):
    assert health_of(replace(PARENT, pid=stopped), CHILD, NOW).problems == (f"its parent process {stopped} is stopped",)
    assert health_of(replace(PARENT, pid=ended), CHILD, NOW).problems == (f"its parent process {ended} has ended",)
    assert health_of(PARENT, replace(CHILD, pid=stopped), NOW).problems == (f"its pool child {stopped} is stopped",)


def test_a_pool_child_that_died_is_replaced_and_unhealthy_is_only_one_that_nothing_follows(ended):
    died = replace(CHILD, pid=ended, at_s=NOW - 3)

    replaced, alone = health_of(PARENT, died, NOW), health_of(PARENT, replace(died, at_s=NOW - START_S - 1), NOW)

    assert (replaced.problems, replaced.waits) == ((), (f"its pool child {ended} ended 3 s ago, another starts",))
    assert not alone.healthy


@pytest.mark.parametrize(
    ("parent", "child", "wait"),
    [
        (replace(PARENT, server_s=NOW - SERVER_STALE_S - 1), CHILD, "the server has not answered for 21 s"),
        (replace(PARENT, draining=True), CHILD, "it drains"),
        (replace(PARENT, started_s=NOW - 5, listening_s=None, server_s=None), CHILD, "it is starting"),
        (PARENT, replace(CHILD, ready_s=None, started_s=NOW - 5), "its pool child starts"),
        (PARENT, replace(CHILD, leaving="it uses 9 GB"), "its pool child leaves: it uses 9 GB"),
    ],
)
def test_a_worker_that_waits_is_healthy_and_not_ready(parent, child, wait):
    health = health_of(parent, child, NOW)

    assert (health.problems, health.waits, health.ready) == ((), (wait,), False)


def test_a_worker_whose_server_is_away_is_not_taken_for_deaf():
    away = replace(PARENT, server_s=NOW - DEAF_S - 10, listening_s=NOW - DEAF_S - 10)

    assert health_of(away, CHILD, NOW).healthy


def test_only_workers_that_live_and_are_of_this_container_count(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folders = {name: tmp_path / f"{PREFIX}{name}" for name in ("here", "elsewhere", "killed")}
    for name, folder in folders.items():
        folder.mkdir()
        processes = "pid:[1]" if name == "elsewhere" else own_processes()
        write_state(folder, replace(PARENT, worker=name, processes=processes))
    locks = [
        subprocess.Popen(
            ["flock", folders[name], "-c", "echo locked; read x"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for name in ("here", "elsewhere")
    ]
    for lock in locks:
        assert lock.stdout is not None
        assert lock.stdout.readline()

    found = workers_here()
    for lock in locks:
        lock.communicate(b"\n")

    assert [health.worker for health in found] == ["here"]


@pytest.mark.parametrize(
    ("start", "found"),
    [
        ([own_processes(), 10.0], [True]),
        ([own_processes(), -START_S], [False]),
        (["pid:[1]", -START_S], []),  # another container's
        (None, [True]),
    ],
)
def test_a_worker_whose_parent_has_written_nothing_is_judged_by_its_start(tmp_path, monkeypatch, start, found):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("time.monotonic", lambda: 20.0)
    folder = tmp_path / f"{PREFIX}it"
    folder.mkdir()
    if start is not None:
        (folder / START_FILE).write_text(json.dumps(start))
    os.utime(folder, (0, 0))  # an old date: the clock of dates may be set meanwhile
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)

    health = workers_here()
    os.close(descriptor)

    assert [(one.worker, one.healthy, one.ready) for one in health] == [(folder.name, each, False) for each in found]


def test_states_are_read_as_they_were_written_and_what_is_none_is_no_state(tmp_path):
    write_state(tmp_path, PARENT)
    write_state(tmp_path, CHILD)

    assert (read_parent(tmp_path), read_child(tmp_path)) == (PARENT, CHILD)
    for text in ("", "[]", '{"pid": 1}', "\xff"):
        (tmp_path / "parent.json").write_text(text, encoding="latin-1")
        assert read_parent(tmp_path) is None
