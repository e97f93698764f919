import gc
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from modeling.errors import ModelFormatError, ModelNotFoundError
from modeling.inference import choose_engine
from modeling.inference.classifier import Classifier
from modeling.inference.pipeline import predict_units
from modeling.registry.store import ModelStore, ModelVersion
from orchestrator.contract.jobs.requests import ModelPin
from tests.support.images import grey_png
from tests.support.published_models import publish_model
from tests.support.server import wait_until
from workers.context import ModelCache


@pytest.fixture
def models(tmp_path):
    """ModelCache on the CPU, with an empty store in `tmp_path / "models"`."""
    return ModelCache(ModelStore(tmp_path / "models"), "cpu")


def pin_of(version: ModelVersion) -> ModelPin:
    return ModelPin(name=version.name, number=version.version, digest=version.digest, preprocessing_digest="p" * 64)


def test_a_model_is_loaded_once_and_kept(models, tmp_path):
    version = publish_model(tmp_path / "models", "digits")

    first = models.get(pin_of(version))
    (version.path / "model.safetensors").unlink()

    assert models.get(pin_of(version)) is first
    assert first.labels == tuple("0123456789")


def test_one_model_of_two_names_is_loaded_once(models, tmp_path):
    digits, numbers = (publish_model(tmp_path / "models", name) for name in ("digits", "numbers"))

    assert digits.digest == numbers.digest
    assert models.get(pin_of(digits)) is models.get(pin_of(numbers))


@pytest.fixture
def _two_are_kept(monkeypatch):
    monkeypatch.setattr("workers.context.MODELS_KEPT", 2)


@pytest.mark.usefixtures("_two_are_kept")
def test_the_least_recently_used_model_goes_when_there_are_too_many(models, tmp_path):
    pins = [pin_of(publish_model(tmp_path / "models", f"model-{seed}", seed)) for seed in range(3)]
    first, second = models.get(pins[0]), weakref.ref(models.get(pins[1]))

    assert models.get(pins[0]) is first
    newest = models.get(pins[2])

    assert models.get(pins[2]) is newest
    assert models.get(pins[0]) is first
    assert second() is None


def test_where_memory_is_short_the_model_that_was_used_last_is_kept(models, tmp_path):
    pins = [pin_of(publish_model(tmp_path / "models", f"model-{seed}", seed)) for seed in range(3)]
    others = [weakref.ref(models.get(pin)) for pin in pins[1:]]
    last = models.get(pins[0])

    models.drop_others()

    assert [other() for other in others] == [None, None]
    assert models.get(pins[0]) is last


@pytest.mark.usefixtures("_two_are_kept")
def test_a_model_that_a_line_still_uses_is_not_loaded_again_for_a_job(models, tmp_path):
    pins = [pin_of(publish_model(tmp_path / "models", f"model-{seed}", seed)) for seed in range(3)]
    used = models.get(pins[0])
    for pin in pins[1:]:
        models.get(pin)

    assert models.get(pins[0]) is used


@pytest.mark.usefixtures("_two_are_kept")
def test_a_model_that_is_being_loaded_is_not_loaded_twice_while_others_come(models, tmp_path, monkeypatch):
    slow, *others = (pin_of(publish_model(tmp_path / "models", f"model-{seed}", seed)) for seed in range(4))
    loading = Loading(monkeypatch, slow, lambda: None)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(models.get, slow)
        assert loading.begun.wait(timeout=10)
        for pin in others:
            models.get(pin)
        second = pool.submit(models.get, slow)
        loading.may_go_on.set()

        assert first.result(timeout=10) is second.result(timeout=10)
    assert loading.loads.count(slow.name) == 1


def test_a_model_that_is_not_the_one_pinned_is_refused(models, tmp_path):
    pin = pin_of(publish_model(tmp_path / "models", "digits"))

    with pytest.raises(ModelFormatError, match="digits@1 was dddddddddddd when the job was submitted"):
        models.get(pin.model_copy(update={"digest": "d" * 64}))

    assert models.get(pin).labels == tuple("0123456789")


def test_a_missing_model_is_an_error(models, tmp_path):
    version = publish_model(tmp_path / "models", "digits")

    with pytest.raises(ModelNotFoundError, match="digits@2"):
        models.get(pin_of(replace(version, version=2, digest="d" * 64)))


class Loading:
    """A fake of loading: it signals its start, and continues when it is allowed to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, slow: ModelPin, outcome: Callable[[], None]) -> None:
        self.begun, self.may_go_on = threading.Event(), threading.Event()
        self.loads: list[str] = []
        load = choose_engine.load_fastest

        def wait_and_load(version: ModelVersion, *args: str, **kwargs: str) -> Classifier:
            self.loads.append(version.name)
            if version.name == slow.name:
                self.begun.set()
                assert self.may_go_on.wait(timeout=10)
                outcome()
            return load(version, *args, **kwargs)

        monkeypatch.setattr(choose_engine, "load_fastest", wait_and_load)


def test_threads_share_a_model_that_is_being_loaded_and_do_not_wait_for_others(models, tmp_path, monkeypatch):
    slow, quick = (pin_of(publish_model(tmp_path / "models", name, seed)) for seed, name in enumerate(("one", "two")))
    loading = Loading(monkeypatch, slow, lambda: None)

    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(models.get, slow) for _ in range(2)]
        assert loading.begun.wait(timeout=10)
        other = models.get(quick)
        loading.may_go_on.set()
        first, second = (future.result(timeout=10) for future in waiting)

    assert first is second is not other
    assert loading.loads == ["one", "two"]


def test_a_loading_error_is_raised_in_all_waiting_threads_and_the_next_call_loads_again(models, tmp_path, monkeypatch):
    pin = pin_of(publish_model(tmp_path / "models", "digits"))
    errors = [ModelFormatError("damaged")]

    def fail_once() -> None:
        if errors:
            raise errors.pop()

    loading = Loading(monkeypatch, pin, fail_once)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(models.get, pin)
        assert loading.begun.wait(timeout=10)
        (session,) = models._models.values()
        second = pool.submit(models.get, pin)
        wait_until(lambda: session._condition._waiters, what="the second waits for what the first loads")
        loading.may_go_on.set()
        found = [future.exception(timeout=10) for future in (first, second)]

    assert found[0] is found[1]
    assert str(found[0]) == "damaged"
    assert models.get(pin).labels == tuple("0123456789")


@pytest.mark.usefixtures("_two_are_kept")
def test_a_model_that_cannot_be_loaded_evicts_no_other(models, tmp_path):
    pins = [pin_of(publish_model(tmp_path / "models", f"model-{seed}", seed)) for seed in range(2)]
    loaded = [models.get(pin) for pin in pins]

    with pytest.raises(ModelNotFoundError):
        models.get(pins[0].model_copy(update={"name": "nobody", "digest": "d" * 64}))

    assert [models.get(pin) for pin in pins] == loaded


def test_the_configured_batch_size_is_used(tmp_path):
    version = publish_model(tmp_path / "models", "digits")

    assert ModelCache(ModelStore(tmp_path / "models"), "cpu", batch_size=3).get(pin_of(version)).batch_size == 3


@pytest.fixture
def _unfrozen():
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("_unfrozen")
def test_garbage_collection_visits_only_objects_made_since_a_model_was_loaded(models, tmp_path):
    gc.unfreeze()

    models.get(pin_of(publish_model(tmp_path / "models", "digits")))

    assert gc.get_freeze_count() > 10_000


def test_single_images_are_predicted_while_the_same_model_predicts_a_shard(models, tmp_path):
    pin = pin_of(publish_model(tmp_path / "models", "digits"))
    session = models.get(pin)
    image = np.random.default_rng(0).integers(0, 256, (1, 28, 28, 1), dtype=np.uint8)
    (expected,) = session.predict(image, 3)
    singles = []

    def ask_between_batches() -> None:
        with ThreadPoolExecutor(1) as line:
            singles.append(line.submit(lambda: models.get(pin).predict(image, 3)).result(timeout=10))

    shard = [[partial(grey_png, number, (28, 28)) for number in range(40)]]
    alone = [result.predictions for result in predict_units(shard, session, top_k=3, batch_size=8)]
    beside = [
        result.predictions
        for result in predict_units(shard, session, top_k=3, batch_size=8, between_batches=ask_between_batches)
    ]

    assert beside == alone
    assert len(singles) >= 5
    assert all(answers == [expected] for answers in singles)
