"""How long calls are repeated while the server is away; what is restored is in tests/integration."""

import pytest
import redis

from orchestrator.contract.jobs.recovering_ledger import NO_PATIENCE, Patience


class Server:
    """Refuses some calls, then answers."""

    def __init__(self, refusals: list[Exception]) -> None:
        self._refusals = refusals
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self._refusals:
            raise self._refusals.pop(0)
        return "answer"


def test_a_server_that_is_away_for_a_moment_is_waited_for():
    server = Server([redis.ConnectionError("gone"), redis.TimeoutError("slow")])

    answer = Patience(120).call(server)

    assert (answer, server.calls) == ("answer", 3)


def test_a_stopping_worker_does_not_wait():
    server = Server([redis.ConnectionError("gone")])

    with pytest.raises(redis.ConnectionError, match="gone"):
        Patience(120, give_up=lambda: True).call(server)

    assert server.calls == 1


def test_patience_ends():
    server = Server([redis.ConnectionError("gone")] * 100)

    with pytest.raises(redis.ConnectionError, match="gone"):
        Patience(0.2).call(server)

    assert 1 < server.calls < 10


def test_a_command_waits_for_no_server():
    server = Server([redis.ConnectionError("gone")])

    with pytest.raises(redis.ConnectionError, match="gone"):
        NO_PATIENCE.call(server)

    assert server.calls == 1


def test_other_errors_are_not_retried():
    server = Server([redis.ResponseError("wrong arguments")])

    with pytest.raises(redis.ResponseError):
        Patience(120).call(server)

    assert server.calls == 1
