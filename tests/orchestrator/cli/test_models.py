"""`pigeonhole models ...` without a server: list, show, alias and remove."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from modeling.inference.bench import bench_engines
from modeling.metrics.calibration import Calibration
from modeling.registry.card import ModelCard
from modeling.registry.store import ModelStore, ModelVersion
from orchestrator.cli import main
from orchestrator.cli.models import COMMANDS, models
from orchestrator.cli.models.evaluate import print_figures
from orchestrator.cli.output import size_text
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.requests import EvaluateJobRequest, TrainJobRequest
from orchestrator.contract.settings import get_settings
from orchestrator.jobs.pinned import pin_model
from tests.support.fakes import make_job
from tests.support.invoke import invoke
from tests.support.published_models import make_pngs, publish_model

OURS = ("list", "show", "evaluate", "alias", "remove")
CALIBRATION = Calibration(1.25, 0.005, (0.9,) * 8 + (0.75, 2.0), 0.5, 400, 0.041, 0.0125, 0.004)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home, and an empty current folder."""
    monkeypatch.setenv("PIGEONHOLE_HOME", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    get_settings.cache_clear()
    return tmp_path / "home"


@pytest.fixture
def store(home: Path, tmp_path: Path) -> ModelStore:
    """A store with `digits@1`, and `digits@2` which is calibrated and has a report."""
    store = ModelStore(home / "models")
    first = publish_model(store.root, "digits")
    staged = tmp_path / "staged"
    staged.mkdir()
    card = replace(
        store.card("digits"), calibration=CALIBRATION, metrics={"test_accuracy": 0.98765}, training={"seed": 7}
    )
    (staged / "model.json").write_bytes(card.to_bytes())
    (staged / "model.safetensors").write_bytes((first.path / "model.safetensors").read_bytes())
    (staged / "plots").mkdir()
    (staged / "plots" / "curves.png").write_bytes(b"png")
    (staged / "report.html").write_text("report")
    store.publish(staged, "digits")
    return store


def run(*arguments: str) -> Result:
    return invoke("models", *arguments)


def refs(store: ModelStore) -> list[str]:
    return [version.ref for version in store.list()]


@pytest.mark.parametrize("name", OURS)
def test_every_command_has_help_an_example_and_says_what_its_options_do(name):
    command = models.get_command(click.Context(models), name)

    assert command is not None
    assert command.name == name
    assert f"pigeonhole models {name}" in (command.help or "").partition("Example")[2]
    assert [param.name for param in command.params if isinstance(param, click.Option) and not param.help] == []
    assert "as_json" in {param.name for param in command.params}
    assert COMMANDS[name].line


# list and show


def test_the_list_shows_aliases_figures_size_and_age(store):
    store.set_alias(store.resolve("digits@2"), "champion")
    store.set_alias(store.resolve("digits@2"), "best")

    listed = json.loads(run("list", "--json").stdout)
    table = run("list").stdout.splitlines()

    version = store.resolve("digits@2")
    assert listed[1] == {
        "model": "digits@2",
        "aliases": ["best", "champion"],
        "digest": version.digest,
        "architecture": "perceptron",
        "num_labels": 10,
        "metrics": {"test_accuracy": 0.98765},
        "max_error": 0.005,
        "review_rate": 0.041,
        "reject_rate": 0.0125,
        "size_bytes": version.size_bytes(),
        "created": version.created().isoformat(timespec="seconds"),
    }
    assert (listed[0]["aliases"], listed[0]["review_rate"], listed[0]["metrics"]) == ([], None, {})
    assert [line.split()[:6] for line in table[1:]] == [
        ["digits@1", "-", "perceptron", "10", "-", "-"],
        ["digits@2", "@best", "@champion", "perceptron", "10", "0.9877"],
    ]
    assert "TO LOOK AT" in table[0]
    assert "5.4%" in table[2]  # 4.1 % to review and 1.25 % rejected


def test_damaged_aliases_are_reported_and_hide_no_other_model(store):
    publish_model(store.root, "other", seed=1)
    (store.root / "digits" / "aliases.json").write_text("{")

    result = run("list", "--json")

    assert (result.exit_code, [facts["model"] for facts in json.loads(result.stdout)]) == (0, ["other@1"])
    assert result.stderr.count("aliases.json: not JSON") == 2
    assert run("show", "digits").exit_code == 1


def test_a_model_is_shown_with_its_figures_decisions_and_files(store):
    store.set_alias(store.resolve("digits@2"), "champion")
    version = store.resolve("digits@2")

    facts = json.loads(run("show", "digits@champion", "--json").stdout)
    lines = [" ".join(line.split()) for line in run("show", "digits@2").stdout.splitlines()]

    assert facts["metrics"]["test_accuracy"] == 0.98765
    assert facts["calibration"] == CALIBRATION.to_json()
    assert (facts["model"], facts["aliases"]) == ("digits@2", ["champion"])
    assert facts["files"] == ["model.json", "model.safetensors", "plots/curves.png", "report.html"]
    assert facts["report"] == str(version.path / "report.html")
    assert ModelCard.from_json({key: facts[key] for key in store.card("digits").to_json()}) == store.card("digits")
    assert {
        "model digits@2",
        "aliases champion",
        f"report {version.path / 'report.html'}",
        "labels 10: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9",
        "temperature 1.250",
        "accept score 0.750 to 0.900, by label; never for 1 labels",
        "reject score below 0.500",
        "max_error 0.50% of the accepted images may be wrong, on average over models, not for each one",
        "accepted_error 0.40% were, of 400 validation images",
        "accept_rate 94.65%",
        "review_rate 4.10%",
        "reject_rate 1.25%",
    } <= set(lines)


def test_what_a_model_does_not_have_is_not_shown(store):
    shown = run("show", "digits@1").stdout

    assert "calibration                none: scores are the softmax, and there are no decisions" in shown
    assert not {"report", "aliases"} & {line.split()[0] for line in shown.splitlines()}
    assert json.loads(run("show", "digits@1", "--json").stdout)["report"] is None


# alias


def test_setting_and_moving_an_alias_shows_its_earlier_version(store):
    told = [run("alias", ref, "champion").stderr for ref in ("digits@1", "digits", "digits@champion")]
    moved = json.loads(run("alias", "digits@1", "champion", "--json").stdout)

    assert told == [
        "digits@champion is digits@1 now (new)\n",
        "digits@champion is digits@2 now (it was digits@1)\n",
        "digits@champion is digits@2 now (unchanged)\n",
    ]
    assert moved == {"alias": "champion", "model": "digits@1", "before": "digits@2"}
    assert store.aliases("digits") == {"champion": 1}


def test_aliases_are_listed_and_dropped(store):
    assert run("alias", "digits").stderr.startswith("digits has no aliases; `pigeonhole models alias digits@VERSION")
    run("alias", "digits@1", "stable")
    run("alias", "digits@2", "champion")

    assert json.loads(run("alias", "digits", "--json").stdout) == {"champion": "digits@2", "stable": "digits@1"}
    assert run("alias", "digits").stdout.split() == [
        "ALIAS", "MODEL", "digits@champion", "digits@2", "digits@stable", "digits@1",
    ]  # fmt: skip
    assert run("alias", "digits", "stable", "--remove").stderr == "digits@stable is removed; it was digits@1\n"
    dropped = json.loads(run("alias", "digits", "champion", "--remove", "--json").stdout)
    assert dropped == {"alias": "champion", "model": None, "before": "digits@2"}
    assert store.aliases("digits") == {}


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["digits@1", "latest"], 2, "alias 'latest' always means the newest version"),
        (["digits@1", "Best"], 2, "alias 'Best' must be 1 to 50 of a-z 0-9 _ -"),
        (["digits@1", "7"], 2, "alias '7' must be"),
        (["digits@9", "best"], 4, "no model 'digits@9'; versions of 'digits': 1, 2"),
        (["digits@best", "champion"], 4, "has no alias 'best'; aliases: none; versions: 1, 2"),
        (["digit", "best"], 4, "did you mean 'digits'?"),
        (["digits", "best", "--remove"], 4, "has no alias 'best'"),
        (["digits@1", "best", "--remove"], 2, "give 'digits', not 'digits@1'"),
        (["digits", "--remove"], 2, "name it after the model"),
    ],
)
def test_an_invalid_alias_is_an_error_of_one_line(store, arguments, code, told):
    result = run("alias", *arguments)

    assert (result.exit_code, result.stdout) == (code, "")
    assert told in result.stderr
    assert result.stderr.count("\n") == 1
    assert store.aliases("digits") == {}


def test_a_pin_keeps_to_the_version_that_the_alias_stood_for(store):
    store.set_alias(store.resolve("digits@1"), "champion")

    pin = pin_model(get_settings(), "digits@champion").pin
    store.set_alias(store.resolve("digits@2"), "champion")

    assert pin.ref == "digits@1"
    assert store.resolve_pinned(pin.ref, pin.digest) == store.resolve("digits@1")


# remove


def test_a_removed_version_is_gone_and_its_number_stays_taken(store):
    version = store.resolve("digits@2")
    size_bytes = version.size_bytes()

    removed = json.loads(run("remove", "digits@2", "--yes", "--json").stdout)
    told = run("remove", "digits@1", "--yes").stderr

    assert removed == {"removed": "digits@2", "digest": version.digest, "size_bytes": size_bytes}
    assert told.startswith("removed digits@1, 3")
    assert refs(store) == []
    assert run("remove", "digits@2", "--yes").exit_code == 4


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["digits@2"], 2, "standard input is not a terminal, so nothing can be confirmed; remove with --yes"),
        (["digits", "--yes"], 2, "say which version of 'digits' to remove by its number; 'digits' is digits@2"),
        (["digits@latest", "--yes"], 2, "'digits@latest' is digits@2"),
        (["digits@champion", "--yes"], 2, "'digits@champion' is digits@1"),
        (["digits@1", "--yes"], 1, "digits@1 is @champion; move that first with `pigeonhole models alias digits@OTHER"),
        (["digits@3", "--yes"], 4, "no model 'digits@3'; versions of 'digits': 1, 2"),
    ],
)
def test_a_refused_removal_is_an_error_of_one_line(store, arguments, code, told):
    store.set_alias(store.resolve("digits@1"), "champion")

    result = run("remove", *arguments)

    assert (result.exit_code, result.stdout) == (code, "")
    assert told in result.stderr
    assert result.stderr.count("\n") == 1
    assert refs(store) == ["digits@1", "digits@2"]


@pytest.mark.parametrize(("answer", "code", "left"), [("y\n", 0, ["digits@1"]), ("n\n", 1, ["digits@1", "digits@2"])])
def test_on_a_terminal_the_operator_is_asked(store, answer, code, left):
    ours, theirs = os.openpty()

    with subprocess.Popen(
        [sys.executable, "-m", "orchestrator", "models", "remove", "digits@2"], stdin=theirs, stderr=subprocess.PIPE
    ) as process:
        os.write(ours, answer.encode())
        assert process.stderr is not None
        told = process.stderr.read().decode()
        assert process.wait(30) == code
    os.close(ours)
    os.close(theirs)

    assert f"remove digits@2 ({digest(store, 'digits@2', told)}, " in told  # a busy machine may say first that it works
    assert refs(store) == left


def digest(store: ModelStore, ref: str, told: str) -> str:
    """The size as the confirmation shows it, before and after the removal."""
    return store.resolve(ref).digest[:12] if ref in refs(store) else told.partition("(")[2][:12]


def classify_with(version: ModelVersion, tmp_path: Path) -> JobFolder:
    pin = pin_model(get_settings(), version.ref).pin
    return make_job(get_settings(), ["a.png"], root=tmp_path, output=tmp_path / "out.csv", model=pin)


def evaluate_with(version: ModelVersion, tmp_path: Path) -> JobFolder:
    pin = pin_model(get_settings(), version.ref).pin
    job, now = "e261123-143355-7f3a2b", datetime.now(UTC)
    request = EvaluateJobRequest(job=job, created=now, source="in", model=pin, data=str(tmp_path), part="all")
    return JobFolder.create(get_settings(), request)


def train_from(version: ModelVersion, tmp_path: Path) -> JobFolder:
    job, now = "t261123-143355-7f3a2b", datetime.now(UTC)
    train = {"data": str(tmp_path), "architecture": "perceptron", "weights": str(version.path)}
    return JobFolder.create(
        get_settings(), TrainJobRequest(job=job, created=now, source="in", name="digits", train=train)
    )


@pytest.mark.parametrize("make", [classify_with, evaluate_with, train_from])
def test_a_version_that_a_job_still_wants_is_kept_until_the_job_has_ended(store, tmp_path, make):
    folder = make(store.resolve("digits@1"), tmp_path)
    folder.activate()

    result = run("remove", "digits@1", "--yes")

    assert result.exit_code == 1
    assert f"digits@1 is used by job {folder.job}; wait with `pigeonhole wait`, or cancel" in result.stderr
    assert run("remove", "digits@2", "--yes").exit_code == 0
    folder.retire()
    assert run("remove", "digits@1", "--yes").exit_code == 0
    assert refs(store) == []


# evaluate


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["digit", "in"], 4, "did you mean 'digits'?"),
        (["digits@7", "in"], 4, "no model 'digits@7'"),
        (["digits", "nowhere"], 4, "there is no 'nowhere'"),
        (["digits", "empty"], 2, "empty"),
        (["digits", "in", "-o", "in"], 2, "exists; name a folder that does not"),
        (["digits", "in", "-o", "no/out"], 2, "there is no folder"),
        (["digits", "in", "--part", "some"], 2, "'some' is not one of 'all', 'train', 'validation', 'test'"),
        (["digits", "in", "--precision", "int8"], 2, "--precision int8: digits@1 "),
        (["digits", "animals"], 2, "'cat', 'dog', which the model does not know"),
        (["digits", os.fsdecode(b"caf\xe9")], 2, "is not UTF-8"),
    ],
)
def test_an_invalid_evaluation_fails_before_a_local_stack_is_started(home, arguments, code, told):
    publish_model(home / "models", "digits")
    for folder, labels in (("in", "01"), ("animals", ("cat", "dog"))):
        for label in labels:
            make_pngs(Path(folder, label), 1)
    Path("empty").mkdir()
    before = sorted([*home.rglob("*"), *Path.cwd().rglob("*")])

    result = run("evaluate", *arguments)

    assert result.exit_code == code, result.stderr
    assert told in result.stderr
    assert result.stderr.count("\n") == 1
    assert sorted([*home.rglob("*"), *Path.cwd().rglob("*")]) == before


def class_figures(label: str, num_images: int, num_right: int, precision: float | None) -> dict:
    recall = num_right / num_images if num_images else None
    return {"label": label, "num_images": num_images, "recall": recall, "precision": precision}


FIGURES = {
    "model": "birds@2",
    "data": "/photos",
    "part": "test",
    "engine": "openvino bf16",
    "precision": "bf16",
    "reference": {
        "engine": "torch fp32",
        "difference": {
            "num_images": 500,
            "same_label": 0.998,
            "max_score_difference": 0.01234,
            "mean_score_difference": 0.00042,
            "accuracy_change": -0.002,
        },
    },
    "num_images": 1200,
    "num_left_out": 0,
    "labels_left_out": [],
    "num_right": 1138,
    "labels": ["crow", "owl", "raven", "auk"],
    "accuracy": 0.9483,
    "accuracy_interval": [0.934, 0.96],
    "top_k": {"2": 0.99},
    "macro_f1": 0.9,
    "ece": 0.012,
    "raw_ece": 0.034,
    "decisions": {
        "max_error": 0.005,
        "num_accepted": 1110,
        "num_accepted_wrong": 4,
        "num_reviewed": 78,
        "num_rejected": 12,
        "accepted_error": 0.0036,
        "accepted_error_interval": [0.0014, 0.0092],
        "budget_p": 0.81,
    },
    "classes": [
        class_figures("crow", 400, 340, 0.95),
        class_figures("owl", 400, 400, 1.0),
        class_figures("raven", 400, 398, None),
        class_figures("auk", 0, 0, None),
    ],
    "classes_without_images": ["auk"],
    "confusion": [
        {"label": label, "predicted": predicted, "num_images": num_images}
        for label, predicted, num_images in (
            ("crow", "crow", 340),
            ("crow", "owl", 10),
            ("crow", "raven", 50),
            ("owl", "owl", 400),
            ("raven", "crow", 2),
            ("raven", "raven", 398),
        )
    ],
}


def test_the_figures_are_a_short_table_with_the_worst_classes(capsys):
    print_figures(FIGURES)

    told = capsys.readouterr()
    assert [" ".join(line.split()) for line in told.out.splitlines()] == [
        "birds@2 on /photos, test part: 1,200 images",
        "",
        "accuracy 0.9483 (0.9340 to 0.9600 with 95 % confidence)",
        "top-2 0.9900",
        "macro F1 0.9000",
        "ECE 0.0120 (0.0340 before calibration)",
        "accepted 1,110 of 1,200 test images; of these 4 wrong, 0.36 %, 95 %: 0.14 to 0.92 %; budget 0.5 %, kept on "
        "average over models, not by each one",
        "to review 6.50%",
        "rejected 1.00%",
        "not measured no images of 'auk'",
        "engine openvino bf16: 99.80% of 500 labels as torch fp32; score differs by at most 0.012, on average "
        "0.00042; accuracy -0.0020",
        "",
        "WORST CLASSES IMAGES RECALL PRECISION MOST OFTEN TAKEN FOR",
        "crow 400 0.8500 0.9500 raven (50)",
        "raven 400 0.9950 - crow (2)",
    ]
    assert told.err == ""


def test_a_model_without_calibration_or_mistakes_has_a_shorter_table(capsys):
    flawless = [class_figures("crow", 10, 10, 1.0)]

    by_reference = {"engine": "torch fp32", "reference": {"engine": "torch fp32", "difference": None}}
    left_out = {"num_left_out": 45, "labels_left_out": ["fox", "owl"]}
    print_figures(FIGURES | {"part": "all", "decisions": None, "classes": flawless} | by_reference | left_out)

    told = capsys.readouterr()
    assert [" ".join(line.split()) for line in told.out.splitlines()] == [
        "birds@2 on /photos: 1,200 images; 45 more left out, of labels that the model does not know: fox, owl",
        "",
        "accuracy 0.9483 (0.9340 to 0.9600 with 95 % confidence)",
        "top-2 0.9900",
        "macro F1 0.9000",
        "ECE 0.0120 (the model is not calibrated)",
        "not measured no images of 'auk'",
        "engine torch fp32: the reference itself",
    ]


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_950, "1.0 MB"), (44_750_000, "44.8 MB"),
     (3 * 10**15, "3000.0 TB")],
)  # fmt: skip
def test_a_size_has_a_readable_unit(size_bytes, text):
    assert size_text(size_bytes) == text


def test_bench_marks_the_engine_of_jobs_in_table_and_json(home, monkeypatch):
    version = publish_model(home / "models", "fast")
    monkeypatch.setattr("modeling.inference.bench.BATCH_SIZES", (1, 8))
    measured = list(bench_engines(version))
    monkeypatch.setattr(
        "modeling.inference.bench.bench_engines", lambda *asked: {(version, "cpu"): measured}[asked[:2]]
    )

    said = CliRunner().invoke(main, ["models", "bench", "fast"])
    told = json.loads(CliRunner().invoke(main, ["models", "bench", "fast", "--json"]).stdout)

    assert (told["model"], told["device"]) == (version.ref, "cpu")
    assert {"engine", "batch_size", "images_per_sec", "latency_ms", "chosen", "refused"} == set(told["speeds"][0])
    assert sum(speed["chosen"] for speed in told["speeds"]) == 1
    header, *rows = said.stdout.splitlines()
    assert header.split() == ["ENGINE", "BATCH", "IMAGES/S", "LATENCY"]
    assert len(rows) == len(told["speeds"])
    assert sum("*" in row for row in rows) == 1
