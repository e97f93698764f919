"""kombu's channel on Redis, reading messages from strangers.

`_brpop_read` and `_receive_one` of kombu decode whatever the server sends and raise what that leads to, which ends the
worker. Here its clients hand them only messages that `messages.py` has made; another message is logged and dropped.
"""

import contextlib
import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any

from kombu.transport import redis
from kombu.utils.limits import TokenBucket

from orchestrator.contract.errors import MessageError
from orchestrator.contract.queues import ALL_QUEUES
from orchestrator.contract.server import CONNECTION_OPTIONS, SERVER_ERRORS
from workers.broker.messages import read_doorbell, read_ping
from workers.log_limit import LogLimit

PINGS_PER_S = 10  # that are answered
_REPLY_EXPIRES_MS = 10_000  # of the list that pings are answered in, if nobody reads it
_EXCERPT_BYTES = 100

_queue_log = LogLimit(logging.getLogger(__name__))
_control_log = LogLimit(logging.getLogger(__name__))
_pings = TokenBucket(PINGS_PER_S, capacity=PINGS_PER_S)


class DoorbellClient(redis.PrefixedStrictRedis):
    """Takes nothing but doorbells off the queues."""

    def parse_response(self, connection: Any, command_name: str, **options: Any) -> Any:
        """The answer to a command; that of BRPOP without a doorbell is as if nothing had come."""
        answer = super().parse_response(connection, command_name, **options)
        if command_name != "BRPOP" or not answer:
            return answer
        key, data = answer
        queue = key.decode(errors="replace")
        message = _read_or_log(functools.partial(read_doorbell, queue), data, f"queue {queue}", _queue_log)
        return (key, message) if message else None

    def pubsub(self, **options: Any) -> "PingPubSub":
        """The connection of the remote control."""
        return PingPubSub(self.connection_pool, global_keyprefix=self.global_keyprefix, **options)


class PingPubSub(redis.PrefixedRedisPubSub):
    """Receives nothing but pings."""

    def parse_response(self, *arguments: Any, **options: Any) -> Any:
        """What the server sent; a published message that is no ping is empty, and kombu skips it."""
        answer = super().parse_response(*arguments, **options)
        if not isinstance(answer, Sequence) or answer[0] not in (b"message", b"pmessage"):
            return answer
        message = _read_or_log(read_ping, answer[-1], "the remote control", _control_log)
        if message and not _pings.can_consume():
            _control_log.warning("dropped a ping: there were more than %d in a second", PINGS_PER_S)
            message = b""
        return [*answer[:-1], message]


class DoorbellQoS(redis.QoS):
    """kombu's record of the messages that no worker has acknowledged."""

    def restore_visible(self, *arguments: Any, **options: Any) -> None:
        """Put back what a dead worker took long ago; later where the server is away, or takes no writes."""
        with contextlib.suppress(*SERVER_ERRORS):  # a timer calls it, and would log each with its traceback
            super().restore_visible(*arguments, **options)


class DoorbellChannel(redis.Channel):
    """kombu's channel with these clients."""

    QoS = DoorbellQoS
    do_restore = False  # a doorbell that this worker did not answer is rung again by a sweep

    def _get_client(self) -> Callable[..., DoorbellClient]:
        return functools.partial(DoorbellClient, global_keyprefix=self.global_keyprefix)

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        return {**super()._connparams(asynchronous), **CONNECTION_OPTIONS}

    def maybe_refresh_binding_expiry(self) -> None:
        """Keep bindings of queues that expire; later where the server is away, or takes no writes."""
        with contextlib.suppress(*SERVER_ERRORS):  # a timer calls it, and would log each with its traceback
            super().maybe_refresh_binding_expiry()

    def _put(self, queue: str, message: Any, **options: Any) -> None:
        """Put a message into a queue; an answer to a ping expires."""
        if queue in ALL_QUEUES:
            super()._put(queue, message, **options)
            return
        self._expires[queue] = _REPLY_EXPIRES_MS
        try:
            super()._put(queue, message, **options)
        finally:
            del self._expires[queue]


def _read_or_log(read: Callable[[bytes], bytes], data: bytes, where: str, log: LogLimit) -> bytes:
    """What `read` makes of a message; nothing, and a line in the log, where it refuses it."""
    try:
        return read(data)
    except MessageError as err:
        excerpt = bytes(data[:_EXCERPT_BYTES])
        log.warning("dropped a message on %s that is not ours: %s; it begins with %r", where, err, excerpt)
        return b""
