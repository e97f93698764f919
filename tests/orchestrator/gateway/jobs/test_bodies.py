"""A body makes the very spec that the command line makes of the same options."""

from dataclasses import fields, replace
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from modeling.training.request import TrainOptions
from orchestrator.gateway.jobs.bodies import ClassifyBody, EvaluateBody, JobBody, TrainBody
from orchestrator.jobs.roots import Roots
from orchestrator.jobs.specs import ClassifySpec, EvaluateSpec, TrainSpec
from orchestrator.jobs.walk import SourceOptions
from tests.support.invoke import invoke

BODY = TypeAdapter(JobBody)
ROOTS = Roots(("/data",))


OTHER_NAMES = {"output_format": "format", "weights": "from_weights"}  # of the specs, and of the bodies
NOT_OF_A_BODY = {
    "idempotency_key": "a header",
    "need_worker": "a client of the gateway never waits for a worker",
    "roots": "the gateway's",
    "reading": "its members are compared",
    "options": "its members are compared",
    "on_read": "shows progress on a terminal",
    "follow_symlinks": "a link may lead out of the roots",
    "rerun_of": "of `jobs rerun`, which compares on the client's side",
    "joined": "further members of `data`",
    "weights_pin": "found when the weights are resolved",
    "chosen": "found when the network is chosen",
}


class CapturedError(Exception):
    """Carries the spec that a command was about to prepare."""


@pytest.fixture(autouse=True)
def _capture(monkeypatch):
    def prepare(settings, spec):
        raise CapturedError(spec)

    monkeypatch.setattr("orchestrator.jobs.prepare.prepare", prepare)


def spec_of(*command: str):
    with pytest.raises(CapturedError) as captured:
        invoke(*command, "--detach")
    spec = captured.value.args[0]
    return replace(spec, on_read=None) if isinstance(spec, TrainSpec) else spec


def spec_of_body(body: dict, key: str | None = None):
    spec = replace(BODY.validate_python(body).spec(ROOTS, key), roots=None)
    return replace(spec, on_read=None) if isinstance(spec, TrainSpec) else spec


@pytest.mark.parametrize(
    ("command", "body"),
    [
        (("classify", "/data/in", "--model", "birds"), {"source": "/data/in", "model": "birds"}),
        (
            (
                "classify", "/data/list.txt", "--model", "birds@2", "-o", "/data/out.csv", "--format", "jsonl",
                "--overwrite", "--top-k", "3", "--shard-size", "9", "--precision", "int8", "--max-failures", "0.5%",
                "--no-recursive", "--all-files", "--root", "/data/x", "--notify", "https://example.org/x",
                "--checksum", "--since", "c261129-143355-7f3a2b", "--priority", "high",
            ),
            {
                "source": "/data/list.txt", "model": "birds@2", "output": "/data/out.csv", "format": "jsonl",
                "overwrite": True, "top_k": 3, "shard_size": 9, "precision": "int8", "max_failures": {"share": 0.005},
                "recursive": False, "all_files": True, "root": "/data/x", "notify": "https://example.org/x",
                "checksum": True, "since": "c261129-143355-7f3a2b", "priority": "high",
            },
        ),
        (
            ("classify", "/data/in", "--model", "birds", "--max-failures", "20"),
            {"source": "/data/in", "model": "birds", "max_failures": {"count": 20}},
        ),
    ],
)  # fmt: skip
def test_of_classify(command, body):
    assert spec_of_body({"kind": "classify", **body}) == spec_of(*command)


@pytest.mark.parametrize(
    ("command", "body"),
    [
        (("train", "/data/in", "--name", "birds"), {"data": ["/data/in"], "name": "birds"}),
        (
            (
                "train", "/data/in", "/data/more", "--name", "birds", "--arch", "cnn", "--from-weights", "ours",
                "--weights-key", "k", "--epochs", "3", "--budget", "90s", "--batch-size", "7",
                "--learning-rate", "auto", "--image-size", "64", "--max-error", "0.5%", "--validation", "0.2",
                "--test", "0.3", "--seed", "4", "--deterministic", "--int8", "--layout", "parts", "--priority", "low",
            ),
            {
                "data": ["/data/in", "/data/more"], "name": "birds", "architecture": "cnn", "from_weights": "ours",
                "weights_key": "k", "epochs": 3, "budget_s": 90.0, "batch_size": 7, "learning_rate": "auto",
                "image_size": 64, "max_error": 0.005, "validation": 0.2, "test": 0.3, "seed": 4, "deterministic": True,
                "int8": True, "layout": "parts", "priority": "low",
            },
        ),
        (
            ("train", "/data/in", "--name", "birds", "--quality", "best", "--learning-rate", "0.5"),
            {"data": ["/data/in"], "name": "birds", "quality": "best", "learning_rate": 0.5},
        ),
    ],
)  # fmt: skip
def test_of_train(command, body):
    assert spec_of_body({"kind": "train", **body}) == spec_of(*command)


@pytest.mark.parametrize(
    ("command", "body"),
    [
        (("models", "evaluate", "birds", "/data/in"), {"model": "birds", "data": "/data/in"}),
        (
            (
                "models", "evaluate", "birds", "/data/in", "-o", "/data/new", "--part", "test", "--precision", "bf16",
                "--layout", "classes", "--priority", "low",
            ),
            {
                "model": "birds", "data": "/data/in", "output": "/data/new", "part": "test", "precision": "bf16",
                "layout": "classes", "priority": "low",
            },
        ),
    ],
)  # fmt: skip
def test_of_evaluate(command, body):
    assert spec_of_body({"kind": "evaluate", **body}) == spec_of(*command)


def test_the_key_is_the_headers():
    body = {"kind": "evaluate", "model": "birds", "data": "/data/in"}

    assert spec_of_body(body, "monday") == spec_of(
        "models", "evaluate", "birds", "/data/in", "--idempotency-key", "monday"
    )


@pytest.mark.parametrize(
    ("body", "specs"),
    [
        (ClassifyBody, (ClassifySpec, SourceOptions)),
        (TrainBody, (TrainSpec, TrainOptions)),
        (EvaluateBody, (EvaluateSpec,)),
    ],
)
def test_a_body_has_every_option_of_its_spec(body, specs):
    options = {field.name for spec in specs for field in fields(spec)} - set(NOT_OF_A_BODY)

    assert set(body.model_fields) - {"kind"} == {OTHER_NAMES.get(name, name) for name in options}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"kind": "classify"},
        {"kind": "classify", "source": "/data", "model": "m", "follow_symlinks": True},
        {"kind": "classify", "source": "/data", "model": "m", "top_k": "5"},
        {"kind": "classify", "source": "/data", "model": "m", "top_k": True},
        {"kind": "classify", "source": "/data", "model": "m", "max_failures": {}},
        {"kind": "classify", "source": "/data", "model": "m", "max_failures": {"count": 1, "share": 0.5}},
        {"kind": "classify", "source": "/data", "model": "m", "priority": "urgent"},
        {"kind": "classify", "source": "/data", "model": "m", "since": ""},
        {"kind": "train", "data": [], "name": "m"},
        {"kind": "train", "data": ["/data"], "name": "m", "budget_s": float("inf")},
        {"kind": "train", "data": "/data", "name": "m"},
        {"kind": "prune"},
        [],
        "classify",
    ],
)
def test_what_does_not_fit_the_description_is_refused(body):
    with pytest.raises(ValidationError):
        BODY.validate_python(body)


def test_paths_stay_as_they_are_given():
    spec = spec_of_body({"kind": "train", "data": ["/data/a b", "/data/é"], "name": "m"})

    assert (spec.data, spec.joined) == (Path("/data/a b"), (Path("/data/é"),))
