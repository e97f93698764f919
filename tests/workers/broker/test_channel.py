"""What kombu's channel does beside handing out doorbells."""

from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import redis

from orchestrator.contract.server import CannotServeError
from workers.broker.channel import DoorbellChannel, DoorbellQoS


def restore(err: Exception) -> int:
    """Let the record of messages meet an error; how often the server was asked."""
    asked = 0

    def conn_or_acquire() -> None:
        nonlocal asked
        asked += 1
        raise err

    record = object.__new__(DoorbellQoS)
    record.channel, record._vrestore_count = SimpleNamespace(conn_or_acquire=conn_or_acquire), 0
    record.restore_visible(num=10, interval=10)
    return asked


@pytest.mark.parametrize("err", [redis.ReadOnlyError(), CannotServeError(), redis.ConnectionError()])
def test_messages_are_put_back_later_where_the_server_is_away_or_takes_no_writes(err: Exception):
    assert restore(err) == 1


def test_a_fault_that_no_server_explains_is_not_hidden():
    with pytest.raises(TypeError):
        restore(TypeError())


@pytest.mark.parametrize("err", [redis.ReadOnlyError(), CannotServeError(), redis.ConnectionError()])
def test_bindings_are_refreshed_later_where_the_server_is_away_or_takes_no_writes(
    err: Exception, monkeypatch: pytest.MonkeyPatch
):
    refresh = Mock(side_effect=err)
    monkeypatch.setattr("kombu.transport.redis.Channel.maybe_refresh_binding_expiry", refresh)

    object.__new__(DoorbellChannel).maybe_refresh_binding_expiry()

    assert refresh.call_count == 1


def test_a_fault_of_refreshing_that_no_server_explains_is_not_hidden(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("kombu.transport.redis.Channel.maybe_refresh_binding_expiry", Mock(side_effect=TypeError))

    with pytest.raises(TypeError):
        object.__new__(DoorbellChannel).maybe_refresh_binding_expiry()


def test_the_channel_of_doorbells_keeps_such_a_record():
    assert DoorbellChannel.QoS is DoorbellQoS
