"""The requests for the child processes of trainings and evaluations."""

import sys
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pytest

from modeling.errors import ModelFormatError, ModelNotFoundError
from modeling.networks.pretrained.store import WeightsStore
from modeling.registry.store import ModelStore, ModelVersion
from modeling.training.request import TrainOptions, WeightsPin
from orchestrator.contract.errors import IntegrityError
from orchestrator.contract.jobs.end import remove_temporaries
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.requests import EvaluateJobRequest, TrainJobRequest
from orchestrator.contract.ledger.ledger import Claim
from orchestrator.jobs.pinned import pin_model
from tests.support.fakes import Bells, make_job
from tests.support.pretrained import store_weights
from tests.support.published_models import publish_model
from workers.context import ModelCache, WorkerContext
from workers.training import process
from workers.training.process import launcher
from workers.training.run import ProcessJob
from workers.training.specs import process_spec

NOW = datetime.now(UTC)


@pytest.fixture
def version(settings) -> ModelVersion:
    """A published model."""
    return publish_model(settings.models, "digits")


@pytest.fixture
def context(settings) -> WorkerContext:
    """A worker's context on its second GPU."""
    return WorkerContext(
        settings, ledger=None, models=ModelCache(ModelStore(settings.models), "cuda:1"), worker="w1", device="cuda:1",
        ring=Bells(),
    )  # fmt: skip


@pytest.fixture
def evaluation(settings, version) -> JobFolder:
    """A job that evaluates `digits@1`."""
    pin = pin_model(settings, "digits").pin
    request = EvaluateJobRequest(
        job="e261123-143355-7f3a2b", created=NOW, source="in", model=pin, data="/data/in", part="test", output="/out"
    )
    return JobFolder.create(settings, request)


def test_an_evaluation_request_has_the_pinned_models_folder_and_the_workers_device(context, evaluation, version):
    spec = process_spec(evaluation.request(), evaluation, context)

    assert spec is not None
    assert (spec.name, spec.result) == ("evaluation", evaluation.path / "evaluation")
    assert spec.request(Path("/jobs/attempts/3.json"), Path("/jobs/e/evaluation.7")) == {
        "task": "evaluate",
        "model": str(version.path),
        "model_ref": "digits@1",
        "data": "/data/in",
        "part": "test",
        "output": "/jobs/e/evaluation.7",
        "device": "cuda:1",
        "precision": "auto",
        "layout": None,
    }


def test_an_evaluation_of_another_model_than_the_pinned_one_is_refused(context, evaluation, version, settings):
    spec = process_spec(evaluation.request(), evaluation, context)
    assert spec is not None

    (version.path / "model.json").write_bytes((version.path / "model.json").read_bytes() + b" ")
    with pytest.raises(ModelFormatError, match=r"digits@1 was .* when the job was submitted, and is another now"):
        spec.request(Path("/jobs/attempts/3.json"), Path("/out"))
    store = ModelStore(settings.models)
    store.remove(store.find("digits@1"))
    with pytest.raises(ModelNotFoundError, match="all its versions were removed"):
        spec.request(Path("/jobs/attempts/3.json"), Path("/out"))


def test_a_training_request_has_the_operators_options_and_the_workers_device(settings, context):
    train = TrainOptions(Path("/data/in"), "cnn", epochs=3)
    job = TrainJobRequest(job="t261123-143355-7f3a2b", created=NOW, source="in", name="digits", train=train.to_json())
    folder = JobFolder.create(settings, job)

    spec = process_spec(job, folder, context)

    assert spec is not None
    assert (spec.name, spec.result) == ("training", folder.model)
    asked = spec.request(Path("/jobs/attempts/3.json"), Path("/jobs/t/model.7"))
    assert (asked["task"], asked["output"], asked["device"]) == ("train", "/jobs/t/model.7", "cuda:1")
    assert (asked["data"], asked["architecture"], asked["epochs"]) == ("/data/in", "cnn", 3)


def test_a_training_takes_the_jobs_own_copy_of_its_weights(settings, context, tmp_path):
    weights = store_weights(settings.imported_weights, "ours")
    pin = WeightsPin("ours", sha256(b"ours").hexdigest())
    train = TrainOptions(Path("/data/in"), "mobilenet_v2", weights=str(weights), weights_pin=pin)
    job = TrainJobRequest(job="t261123-143355-7f3a2b", created=NOW, source="in", name="digits", train=train.to_json())

    folder = JobFolder.create(settings, job, weights)
    WeightsStore(settings.imported_weights).remove("ours")
    spec = process_spec(job, folder, context)

    assert spec is not None
    asked = spec.request(Path("/jobs/attempts/3.json"), Path("/jobs/t/model.7"))
    assert (asked["weights"], asked["weights_pin"]["name"]) == (str(folder.weights), "ours")
    assert folder.weights.read_bytes() == b"ours"
    remove_temporaries(folder, keep_checkpoints=False)
    assert not folder.weights.exists()


def test_an_interrupt_while_weights_are_copied_leaves_no_job(settings, monkeypatch):
    weights = store_weights(settings.imported_weights, "ours")
    job = TrainJobRequest(job="t261123-143355-7f3a2b", created=NOW, source="in", name="digits", train={})

    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("orchestrator.contract.jobs.job_folder.sync_file", interrupt)

    with pytest.raises(KeyboardInterrupt):
        JobFolder.create(settings, job, weights)

    assert list(settings.jobs.iterdir()) == []


def test_a_job_with_other_weights_than_were_chosen_is_not_made(settings, tmp_path):
    weights = store_weights(settings.imported_weights, "ours")
    pin = WeightsPin("ours", sha256(b"others").hexdigest())
    train = TrainOptions(Path("/data/in"), "mobilenet_v2", weights=str(weights), weights_pin=pin)
    job = TrainJobRequest(job="t261123-143355-7f3a2b", created=NOW, source="in", name="digits", train=train.to_json())

    with pytest.raises(IntegrityError, match="was changed since it was imported or first read"):
        JobFolder.create(settings, job, weights)

    assert list(settings.jobs.iterdir()) == []


def test_the_process_stands_in_the_jobs_folder_where_no_settings_of_a_data_set_lie(context, evaluation, monkeypatch):
    code = (
        "import json, os, pathlib, sys\n"
        "output = pathlib.Path(json.loads(pathlib.Path(sys.argv[-1]).read_text())['output'])\n"
        "output.mkdir()\n"
        "(output / 'folder').write_text(os.getcwd())\n"
    )
    monkeypatch.setattr(process, "launcher", lambda **_: [sys.executable, "-c", code])
    context.ledger = SimpleNamespace(renew=lambda *_: ("running", set()))
    spec = process_spec(evaluation.request(), evaluation, context)
    assert spec is not None

    assert ProcessJob(context, evaluation, spec, Claim(evaluation.job, 0, 7, 1)).run()

    assert (evaluation.evaluation / "folder").read_text() == str(evaluation.path)


def test_a_classification_needs_no_child_process(settings, context, tmp_path):
    folder = make_job(settings, ["a.png"], root=tmp_path, output=tmp_path / "out.csv")

    assert process_spec(folder.request(), folder, context) is None


def test_a_training_on_several_gpus_is_launched_by_torchrun_and_everything_else_is_not(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    distributed, alone = launcher(distributed=True), launcher(distributed=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    assert distributed[2:] == ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    assert alone == launcher(distributed=True) == [sys.executable, "-P"]
