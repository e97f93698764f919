"""A trained model becomes a version only while its worker holds the finalize lease."""

import errno
import os
from types import SimpleNamespace

import pytest

from modeling.registry.store import ModelStore
from orchestrator.contract.jobs.requests import TrainJobRequest
from tests.support.published_models import publish_model
from workers.finalize.errors import PublishError, TransientDiskError
from workers.finalize.finalize import _publish
from workers.finalize.lease import FinalizeLeaseLostError

REQUEST = TrainJobRequest.model_construct(name="birds")
LEASE = SimpleNamespace(confirm=lambda: None)


def lost() -> None:
    raise FinalizeLeaseLostError


@pytest.fixture
def folder(tmp_path):
    return SimpleNamespace(model=publish_model(tmp_path / "trained", "digits").path, run=1, job="t1")


@pytest.fixture
def store(tmp_path):
    return ModelStore(tmp_path / "models")


@pytest.fixture
def context(store):
    """Of a worker that trains nothing, beside those of `trainers`."""
    live = SimpleNamespace(listeners=lambda queue: {"train": []}[queue])
    return SimpleNamespace(
        settings=SimpleNamespace(models=store.root), worker="w1", ledger=SimpleNamespace(live_workers=live)
    )


def test_a_worker_whose_lease_is_lost_publishes_no_version(folder, store, context):
    with pytest.raises(FinalizeLeaseLostError):
        _publish(folder, REQUEST, None, SimpleNamespace(confirm=lost), context)
    assert store.list() == []

    outcome = _publish(folder, REQUEST, None, LEASE, context)
    assert (outcome.state, outcome.result) == ("succeeded", "birds@1")


@pytest.mark.parametrize(
    ("number", "trainers", "raised"),
    [
        (errno.EROFS, ["w2", "w3"], TransientDiskError),
        (errno.EACCES, ["w2"], TransientDiskError),
        (errno.EROFS, ["w1", "w2"], PublishError),
        (errno.EROFS, [], PublishError),
        (errno.ENAMETOOLONG, ["w2"], PublishError),
    ],
)
def test_a_worker_that_may_not_write_the_store_leaves_a_model_to_those_that_train(
    folder, context, monkeypatch, number, trainers, raised
):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(ModelStore, "publish", refuse)
    monkeypatch.setattr(context.ledger.live_workers, "listeners", lambda queue: {"train": trainers}[queue])

    with pytest.raises(raised, match="cannot write model birds"):
        _publish(folder, REQUEST, None, LEASE, context)
