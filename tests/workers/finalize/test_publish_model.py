"""A trained model becomes a version only while its worker holds the finalize lease."""

from types import SimpleNamespace

import pytest

from modeling.registry.store import ModelStore
from orchestrator.contract.jobs.requests import TrainJobRequest
from tests.support.published_models import publish_model
from workers.finalize.finalize import _publish
from workers.finalize.lease import FinalizeLeaseLostError


def lost() -> None:
    raise FinalizeLeaseLostError


def test_a_worker_whose_lease_is_lost_publishes_no_version(tmp_path):
    trained = publish_model(tmp_path / "trained", "digits").path
    folder, store = SimpleNamespace(model=trained, run=1), ModelStore(tmp_path / "models")
    context = SimpleNamespace(settings=SimpleNamespace(models=store.root))
    request = TrainJobRequest.model_construct(name="birds")

    with pytest.raises(FinalizeLeaseLostError):
        _publish(folder, request, None, SimpleNamespace(confirm=lost), context)
    assert store.list() == []

    outcome = _publish(folder, request, None, SimpleNamespace(confirm=lambda: None), context)
    assert (outcome.state, outcome.result) == ("succeeded", "birds@1")
