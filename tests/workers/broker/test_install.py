"""What ends a consumer of doorbells, and what lets it begin again."""

from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import WorkerLostError

from workers.broker import install
from workers.broker.install import ConsumerError, RestartingConsumer

CONSUMER: Any = SimpleNamespace(connection_errors=(OSError,), channel_errors=(LookupError,))


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
