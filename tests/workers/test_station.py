from dataclasses import replace

import pytest
import redis

from modeling.errors import ModelFormatError, ModelNotFoundError
from modeling.store import ModelStore, ModelVersion
from orchestrator.contract.requests import ModelPin
from tests.integration.models import publish_model
from workers.station import MODELS_KEPT, Sessions, patiently


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

    answer = patiently(server, give_up=lambda: False)

    assert (answer, server.calls) == ("answer", 3)


def test_a_worker_told_to_stop_waits_no_longer():
    server = Server([redis.ConnectionError("gone")])

    with pytest.raises(redis.ConnectionError, match="gone"):
        patiently(server, give_up=lambda: True)


def test_patience_ends():
    server = Server([redis.ConnectionError("gone")] * 100)

    with pytest.raises(redis.ConnectionError, match="gone"):
        patiently(server, give_up=lambda: False, patience_s=0.2)

    assert 1 < server.calls < 10


def test_an_error_of_our_own_is_not_repeated():
    server = Server([redis.ResponseError("wrong arguments")])

    with pytest.raises(redis.ResponseError):
        patiently(server, give_up=lambda: False)

    assert server.calls == 1


@pytest.fixture
def sessions(tmp_path):
    """Sessions on the CPU, with an empty store in `tmp_path / "models"`."""
    return Sessions(ModelStore(tmp_path / "models"), "cpu")


def pin_of(version: ModelVersion) -> ModelPin:
    return ModelPin(name=version.name, number=version.version, digest=version.digest, preprocessing_digest="p" * 64)


def test_a_model_is_loaded_once_and_kept(sessions, tmp_path):
    version = publish_model(tmp_path / "models", "digits")

    first = sessions.get(pin_of(version))
    (version.path / "model.safetensors").unlink()

    assert sessions.get(pin_of(version)) is first
    assert first.labels == tuple("0123456789")


def test_one_model_of_two_names_is_loaded_once(sessions, tmp_path):
    digits, numbers = (publish_model(tmp_path / "models", name) for name in ("digits", "numbers"))

    assert digits.digest == numbers.digest
    assert sessions.get(pin_of(digits)) is sessions.get(pin_of(numbers))


def test_the_least_recently_used_model_goes_when_there_are_too_many(sessions, tmp_path):
    names = [f"model-{index}" for index in range(MODELS_KEPT + 1)]
    pins = [pin_of(publish_model(tmp_path / "models", name, seed)) for seed, name in enumerate(names)]
    loaded = [sessions.get(pin) for pin in pins[:MODELS_KEPT]]

    assert sessions.get(pins[0]) is loaded[0]
    newest = sessions.get(pins[-1])

    assert sessions.get(pins[-1]) is newest
    assert [sessions.get(pins[index]) is loaded[index] for index in (0, *range(2, MODELS_KEPT))] == [True] * (
        MODELS_KEPT - 1
    )
    assert sessions.get(pins[1]) is not loaded[1]


def test_a_model_that_is_not_the_one_pinned_is_refused(sessions, tmp_path):
    pin = pin_of(publish_model(tmp_path / "models", "digits"))

    with pytest.raises(ModelFormatError, match="digits@1 was dddddddddddd when the job was submitted"):
        sessions.get(pin.model_copy(update={"digest": "d" * 64}))

    assert sessions.get(pin).labels == tuple("0123456789")


def test_a_model_that_is_not_there_is_told(sessions, tmp_path):
    version = publish_model(tmp_path / "models", "digits")

    with pytest.raises(ModelNotFoundError, match="digits@2"):
        sessions.get(pin_of(replace(version, version=2, digest="d" * 64)))
