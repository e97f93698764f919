"""The thread that commits shards."""

import errno
import threading
from typing import cast

import pytest

from workers.classify import open_shard
from workers.classify.open_shard import Commits, OpenShard

SHARD = cast(OpenShard, None)


def test_a_commit_that_timed_out_ends_the_slice_and_is_not_waited_for():
    def commit(shard: OpenShard) -> None:
        raise OSError(errno.ETIMEDOUT, "Connection timed out")  # Python makes it a TimeoutError

    polls = iter(range(100))

    def poll() -> None:
        next(polls)

    with Commits(commit, poll) as commits:
        commits.add(SHARD)
        with pytest.raises(TimeoutError, match="Connection timed out"):
            commits.wait()


def test_while_a_commit_is_waited_for_the_slice_is_alive(monkeypatch):
    monkeypatch.setattr(open_shard, "_POLL_S", 0.001)
    waited_for, done = threading.Event(), []

    def commit(shard: OpenShard) -> None:
        waited_for.wait()
        done.append(shard)

    with Commits(commit, waited_for.set) as commits:
        commits.add(SHARD)
        commits.wait()
        commits.check()

    assert done == [SHARD]
