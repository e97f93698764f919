"""Makes Celery's worker withstand messages from strangers."""

import functools
import heapq
import logging
from collections.abc import Sequence, Set
from typing import Any

from celery import Celery
from celery.exceptions import WorkerLostError
from celery.worker import state
from celery.worker.consumer import Consumer
from celery.worker.control import Panel
from celery.worker.loops import asynloop
from kombu.asynchronous.timer import Timer
from kombu.transport import redis

from workers.broker.channel import DoorbellChannel
from workers.log_limit import LogLimit

FORGET_EVERY_S = 60.0
# Ids of doorbells that were answered. Celery keeps 1,000 for three hours, and asks for the last ones alone: was one
# answered that a lost connection did not acknowledge?
ANSWERED_KEPT = 16
# Pauses between two attempts to reach the server. Celery's grow from 2 to 30 s, in which workers stand still although
# the server is back.
PATIENCE = {"interval_start": 0.5, "interval_step": 0.5, "interval_max": 2.0}

_log = LogLimit(logging.getLogger(__name__))


class ConsumerError(ConnectionError):
    """The consumer has failed; it connects again."""


class RestartingConsumer(Consumer):  # type: ignore[misc]  # celery ships no types
    """Begins again after an error that would end Celery's worker, and soon after the server is back."""

    _callbacks: Set[Any] = frozenset()  # of the connection that is used now, in the event loop
    _timers: Sequence[Any] = ()

    def connect(self) -> Any:
        """A new connection; what kombu leaves of the one before in the event loop ends.

        Each enters a callback and five timers there, which would run for ever: more of them for each time
        the server was away.
        """
        hub = self.hub
        hub.on_tick.difference_update(self._callbacks)
        for entry in self._timers:
            entry.cancel()
        callbacks, timers = set(hub.on_tick), {id(each.entry) for each in hub.timer._queue}
        connection = super().connect()
        self._callbacks = hub.on_tick - callbacks
        self._timers = [each.entry for each in hub.timer._queue if id(each.entry) not in timers]
        return connection

    def ensure_connected(self, connection: Any) -> Any:
        """The connection, once the server answers."""
        connection.ensure_connection = functools.partial(connection.ensure_connection, **PATIENCE)
        return super().ensure_connected(connection)

    @staticmethod
    def loop(consumer: Consumer, connection: Any, *rest: Any) -> None:
        """Celery's event loop. Errors of the server are known to it, and that no pool child starts ends the worker."""
        hub = consumer.hub
        forget_cancelled(hub.timer)  # also where the server is lost so often that no loop lasts until the next time
        forgetting = hub.call_repeatedly(FORGET_EVERY_S, forget_cancelled, hub.timer)
        try:
            asynloop(consumer, connection, *rest)
        except (*consumer.connection_errors, *consumer.channel_errors, WorkerLostError, MemoryError):
            raise
        except Exception as err:
            _log.error("the consumer of doorbells failed, it starts again: %r", err, exc_info=err)
            raise ConsumerError(f"{type(err).__name__}: {err}") from err
        finally:
            forgetting.cancel()


def forget_cancelled(timer: Timer) -> None:
    """Remove what was cancelled from a timer's queue, where kombu leaves it until it would have been due.

    Each doorbell has a time limit of an hour, which is cancelled in a moment: they would take 10 MB and more.
    """
    queue = timer._queue
    queue[:] = [each for each in queue if not each.entry.canceled]
    heapq.heapify(queue)


def install(app: Celery) -> None:
    """Let this process, the parent of a worker, take doorbells and pings only, and go on after errors."""
    redis.Transport.Channel = DoorbellChannel
    state.successful_requests.maxlen = ANSWERED_KEPT
    app.conf.worker_consumer = f"{__name__}:{RestartingConsumer.__name__}"
    for command in set(Panel.data) - {"ping"}:
        del Panel.data[command]
