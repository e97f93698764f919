"""What a training says at its end: the counts on the test part, in lines and in JSON; `watch` says the same."""

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import Result

from modeling.metrics.chance import exceeds_p, wilson_interval
from modeling.metrics.evaluation import DecisionFigures, NothingAccepted
from modeling.registry.store import ModelStore
from orchestrator.contract.jobs.job_folder import JobFolder, Outcome
from orchestrator.contract.jobs.requests import TrainJobRequest
from orchestrator.contract.settings import get_settings
from tests.support.invoke import invoke
from tests.support.published_models import publish_model

JOB = "t261123-143355-7f3a2b"
DECISIONS = DecisionFigures(0.01, 412, 3, 150, 38, 3 / 412, wilson_interval(3, 412), exceeds_p(3, 412, 0.01))
EVALUATION = {
    "part": "test",
    "engine": "openvino fp32",
    "labels": ["cat", "dog"],
    "num_images": 600,
    "num_right": 590,
    "accuracy": 590 / 600,
    "accuracy_interval": wilson_interval(590, 600),
    "classes_without_images": [],
    "decisions": asdict(DECISIONS),
    "nothing_accepted": None,
}
SENTENCES = [
    "590 of 600 test images right: accuracy 98.3 %, 95 %: 97.0 to 99.1 %",
    "accepted 412 of 600 test images; of these 3 wrong, 0.7 %, 95 %: 0.2 to 2.1 %; budget 1 %, kept on average over "
    "models, not by each one",
]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home where no server answers."""
    monkeypatch.setenv("PIGEONHOLE_HOME", str(tmp_path / "home"))
    get_settings.cache_clear()
    return tmp_path / "home"


def watch_training(home: Path, evaluation: dict | None, *options: str, keep: bool = True) -> Result:
    """`watch` of a training that has ended; evaluation: what it found on its held-out images."""
    version = publish_model(home / "models", "pets")
    if evaluation is not None:
        (version.path / "evaluation.json").write_text(json.dumps(evaluation))
    train = {"data": str(home), "architecture": "perceptron"}
    request = TrainJobRequest(job=JOB, created=datetime.now(UTC), source="in", name="pets", train=train)
    JobFolder.create(get_settings(), request).write_outcome(
        Outcome(state="succeeded", ended=datetime.now(UTC), result="pets@1")
    )
    if not keep:
        ModelStore(home / "models").remove(version)
    return invoke("watch", JOB, *options)


def test_the_last_lines_are_the_counts_on_the_test_part(home):
    result = watch_training(home, EVALUATION)

    assert result.exit_code == 0
    assert result.stdout == "pets@1\n"
    assert result.stderr.splitlines()[-4:] == [
        f"published pets@1; its report: {home / 'models' / 'pets' / '1' / 'report.html'}",
        "use it with `pigeonhole classify SOURCE --model pets@1`",
        *SENTENCES,
    ]


def test_the_json_has_the_counts_the_interval_the_test_and_the_sentences(home):
    printed = json.loads(watch_training(home, EVALUATION, "--json").stdout)

    assert printed["result"] == "pets@1"
    assert printed["metrics"] == ModelStore(home / "models").card("pets@1").metrics
    evaluation = json.loads(json.dumps(EVALUATION))
    del evaluation["labels"]
    assert printed["evaluation"] == evaluation | {"sentences": SENTENCES}


def test_where_nothing_is_accepted_the_last_line_says_what_it_takes(home):
    nothing = asdict(NothingAccepted(47, 0.01, 99, 0.03))
    refused = asdict(replace(DECISIONS, num_accepted=0, accepted_error=None, budget_p=None))

    result = watch_training(home, EVALUATION | {"decisions": refused, "nothing_accepted": nothing})

    assert result.stderr.splitlines()[-1] == (
        "nothing is accepted: 47 validation images; 1 % needs 99, all of them right: add images, or `--max-error 3%`"
    )


def test_a_training_that_held_out_nothing_says_so(home):
    assert "no test or validation images were held out" in watch_training(home, None).stderr.splitlines()[-1]


def test_an_evaluation_of_another_release_is_no_error(home):
    result = watch_training(home, {"part": "test", "decisions": {"max_error": 0.01}})

    assert (result.exit_code, result.stdout) == (0, "pets@1\n")
    assert "`pigeonhole models evaluate` computes them again" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_training_whose_model_was_removed_is_still_watched(home, options):
    result = watch_training(home, EVALUATION, *options, keep=False)

    assert result.exit_code == 0
    assert "pets@1 has been removed" in result.stderr
    assert "pets@1" in result.stdout


@pytest.mark.parametrize("budget", ["0", "0%", "100%", "1.5"])
def test_a_budget_of_nothing_or_all_is_refused_before_anything_is_submitted(home, budget):
    result = invoke("train", home, "--name", "pets", "--max-error", budget)

    assert result.exit_code == 2
    assert "is not a share between 0 and 1, such as 0.5% or 0.005" in result.stderr
