"""What a retry is refused for before it writes anything, and what it asks workers for."""

import shutil

import pytest

from modeling.registry.store import ModelStore
from orchestrator.contract.errors import NotFoundError, UsageError
from orchestrator.contract.jobs.job_folder import Outcome, new_job_id
from orchestrator.contract.jobs.requests import ModelPin
from orchestrator.jobs.retry import prepare_retry
from tests.support.merges import Merges
from tests.support.published_models import publish_model


@pytest.fixture
def merges(settings, tmp_path):
    """Two images of four have failed, by a model that is in the store."""
    model = publish_model(settings.models, "digits")
    preprocessing = ModelStore(settings.models).card(model.ref).preprocessing.digest
    pin = ModelPin(name="digits", number=1, digest=model.digest, preprocessing_digest=preprocessing)
    merges = Merges(settings, tmp_path / "in", tmp_path / "outbox", model=pin, checksum=True)
    merges.write(a="cat", b="bad", c="bad", d="dog")
    return merges


def test_a_retry_asks_for_the_failed_images_as_the_job_did(merges):
    job = merges.full().job

    prepared = prepare_retry(merges.settings, job, (), need_worker=True)

    request = prepared.request(new_job_id("classify"))
    assert list(prepared.source.paths) == ["b.jpg", "c.jpg"]
    was = merges.request(merges.output)
    same = {"model", "top_k", "precision", "root", "output", "output_format", "checksum", "follow_symlinks", "source"}
    assert request.model_dump(include=same) == was.model_dump(include=same)
    assert (request.base.kind, request.base.job, request.base.replaced) == ("retry", job, True)
    assert request.reading is None


def test_a_job_that_never_was_is_not_found(merges):
    with pytest.raises(NotFoundError, match="there is no job c000000-000000-000000"):
        prepare_retry(merges.settings, "c000000-000000-000000", (), need_worker=True)


def test_a_job_that_still_runs_is_refused(merges):
    job = merges.begin(merges.request(merges.output)).job

    with pytest.raises(UsageError, match=f"job {job} has not ended; `pigeonhole wait {job}` waits for it"):
        prepare_retry(merges.settings, job, (), need_worker=True)


def test_a_job_without_a_manifest_is_to_be_resumed(merges):
    folder = merges.begin(merges.request(merges.output))
    folder.write_outcome(Outcome(state="cancelled", ended=folder.request().created))

    with pytest.raises(UsageError, match=r"is cancelled and has no manifest; `pigeonhole jobs resume .*` goes on"):
        prepare_retry(merges.settings, folder.job, (), need_worker=True)


def test_a_job_whose_source_is_gone_is_refused(merges):
    job = merges.full().job
    shutil.rmtree(merges.root)

    with pytest.raises(NotFoundError, match=r"'.*/in', the folder of the job's images, is not there; mount it"):
        prepare_retry(merges.settings, job, (), need_worker=True)


def test_a_job_whose_model_is_gone_or_another_is_refused(merges):
    job = merges.full().job
    ModelStore(merges.settings.models).remove(ModelStore(merges.settings.models).find("digits@1"))

    with pytest.raises(NotFoundError, match=f"the model of job {job}, digits@1, is gone: no model 'digits'"):
        prepare_retry(merges.settings, job, (), need_worker=True)


def test_a_manifest_that_was_removed_is_refused(merges):
    job = merges.full().job
    merges.output.unlink()

    with pytest.raises(NotFoundError, match="there is no manifest"):
        prepare_retry(merges.settings, job, (), need_worker=True)


def test_a_training_cannot_be_retried(merges):
    with pytest.raises(NotFoundError):
        prepare_retry(merges.settings, "t000000-000000-000000", (), need_worker=True)
