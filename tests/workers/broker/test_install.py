"""What ends a consumer of doorbells, and what lets it begin again."""

from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import WorkerLostError
from celery.utils.collections import LimitedSet
from celery.worker import state
from celery.worker.control import Panel
from kombu import Connection
from kombu.asynchronous import Hub
from kombu.asynchronous.timer import Timer
from kombu.transport import redis

from workers.broker import install
from workers.broker.install import ANSWERED_KEPT, ConsumerError, RestartingConsumer, forget_cancelled

CONSUMER: Any = SimpleNamespace(connection_errors=(OSError,), channel_errors=(LookupError,), hub=Hub())


def loop_that_meets(err: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def asynloop(*_: object) -> None:
        raise err

    monkeypatch.setattr(install, "asynloop", asynloop)
    RestartingConsumer.loop(CONSUMER, None)


@pytest.mark.parametrize("err", [TypeError("no"), RecursionError(), AttributeError("x")])
def test_an_error_that_celery_does_not_expect_becomes_one_after_which_it_connects_again(
    err: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    with pytest.raises(ConsumerError) as raised:
        loop_that_meets(err, monkeypatch)

    assert isinstance(raised.value, OSError)
    assert raised.value.__cause__ is err
    assert "the consumer of doorbells failed, it starts again" in caplog.text


@pytest.mark.parametrize("err", [OSError(), LookupError(), WorkerLostError(), MemoryError(), SystemExit()])
def test_errors_that_celery_knows_pass(err: BaseException, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(type(err)) as raised:
        loop_that_meets(err, monkeypatch)

    assert raised.value is err


def test_time_limits_of_doorbells_that_are_done_are_forgotten_and_others_come_in_their_order():
    timer, called = Timer(), list[int]()
    entries = [timer.call_after(number % 7 - 10, called.append, (number,)) for number in range(100)]
    for entry in entries[:90]:
        entry.cancel()

    forget_cancelled(timer)

    assert len(timer) == 10
    schedule = iter(timer)
    while (due := next(schedule)[1]) is not None:
        due()
    assert called == sorted(range(90, 100), key=lambda number: number % 7)


def test_while_doorbells_are_taken_they_are_forgotten_once_a_minute(monkeypatch: pytest.MonkeyPatch):
    timer, seen = CONSUMER.hub.timer, list[tuple[float, object]]()

    def asynloop(*_: object) -> None:
        seen.extend((each.eta - monotonic(), each.entry.args[0]) for each in timer.queue if not each.entry.canceled)

    monkeypatch.setattr(install, "asynloop", asynloop)
    for _ in range(2):
        RestartingConsumer.loop(CONSUMER, None)

    assert [subject for _, subject in seen] == [timer, timer]
    assert all(0 < wait_s <= install.FORGET_EVERY_S for wait_s, _ in seen)
    assert [each for each in timer.queue if not each.entry.canceled] == []


def test_a_worker_remembers_the_last_answered_doorbells_alone(monkeypatch: pytest.MonkeyPatch):
    answered = LimitedSet(maxlen=1000, expires=10_800)
    monkeypatch.setattr(state, "successful_requests", answered)
    monkeypatch.setattr(redis.Transport, "Channel", redis.Channel)
    monkeypatch.setattr(Panel, "data", dict(Panel.data))

    install.install(Celery())
    for number in range(3000):
        answered.add(f"doorbell {number}")

    assert len(answered) == len(answered.as_dict()) == ANSWERED_KEPT
    assert "doorbell 2999" in answered
    assert len(answered._heap) < 2 * ANSWERED_KEPT


def test_a_lost_connection_leaves_nothing_in_the_event_loop(monkeypatch: pytest.MonkeyPatch):
    consumer: Any = object.__new__(RestartingConsumer)
    consumer.hub, consumer.amqheartbeat = Hub(), None
    connected = SimpleNamespace(client=SimpleNamespace(transport_options={}))
    own = consumer.hub.call_repeatedly(60, print)
    consumer.hub.on_tick.add(print)

    def in_the_loop() -> tuple[int, int]:
        timers = [each for each in consumer.hub.timer.queue if not each.entry.canceled]
        return len(consumer.hub.on_tick), len(timers)

    seen = []
    for _ in range(3):
        transport = Connection("redis://localhost").transport
        consumer.connection_for_read = lambda heartbeat, transport=transport: SimpleNamespace(
            transport=transport, connection=connected
        )
        consumer.connect()
        seen.append(in_the_loop())

    assert seen[0] > (1, 1)
    assert seen == [seen[0]] * 3
    assert print in consumer.hub.on_tick
    assert not own.canceled


def test_a_worker_finds_a_server_that_was_away_for_long_within_two_seconds(monkeypatch: pytest.MonkeyPatch):
    pauses, attempts = list[float](), iter(range(20))

    def connect(connection: Connection) -> str:
        if next(attempts) < 19:
            raise ConnectionRefusedError("nobody listens")
        return "connected"

    monkeypatch.setattr(Connection, "_connection_factory", connect)
    monkeypatch.setattr("kombu.utils.functional.sleep", pauses.append)
    consumer = object.__new__(RestartingConsumer)
    consumer.app, consumer.first_connection_attempt, consumer.broker_connection_retry_attempt = Celery(), False, 0

    connection = consumer.ensure_connected(Connection("redis://127.0.0.1:1/0"))

    assert isinstance(connection, Connection)
    assert 0 < sum(pauses) <= 19 * 2.0  # each is slept in parts
