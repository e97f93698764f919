"""`classify --plan`: its estimates, and that it leaves nothing behind."""

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner, Result

from modeling.metrics.calibration import Calibration
from modeling.registry.card import WEIGHTS_FILE
from modeling.registry.store import ModelStore
from orchestrator.cli import main
from orchestrator.contract.jobs.measuring import MeasureAnswer, MeasureRequest
from orchestrator.jobs.early_check import draw_sample
from orchestrator.jobs.forecast import Share, decision_shares, describe_end, expected_s
from tests.support.images import grey_png
from tests.support.published_models import make_photographs, make_pngs, publish_model
from tests.support.server import wait_until
from tests.support.small_models import make_model
from tests.support.workers import enable_interrupts
from workers.classify.measure import measure_sample

PEAK_BYTES = 9 * 10**8


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a model and no server, and the current folder has a folder `in` of 20 images and a damaged one."""
    publish_model(tmp_path / "home" / "models", "digits")
    make_pngs(tmp_path / "in", 20)
    (tmp_path / "in" / "bad.png").write_bytes(b"no image")
    (tmp_path / "in" / "note.txt").write_bytes(b"")
    monkeypatch.setenv("PIGEONHOLE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


@pytest.fixture
def _measured_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measures in this process: another one imports torch first. Tests of the process itself do without this."""

    def measure(request: MeasureRequest, _: Mapping[str, str]) -> MeasureAnswer:
        received = MeasureRequest.parse_json(request.model_dump_json().encode(), what="the request")
        return MeasureAnswer(**asdict(measure_sample(received)), peak_bytes=PEAK_BYTES)

    monkeypatch.setattr("orchestrator.jobs.forecast._measure", measure)


def plan(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["classify", *arguments, "--model", "digits", "--plan"])


def files(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*"))


def test_a_sample_is_drawn_from_the_whole_listing_and_the_same_each_time():
    paths = [f"{number}.jpg" for number in range(10_000)]

    sample, num_paths = draw_sample(iter(paths), 400)

    assert (num_paths, len(set(sample)), draw_sample(paths, 400)[0]) == (10_000, 400, sample)
    quarters = Counter(int(path.removesuffix(".jpg")) // 2500 for path in sample)
    assert all(60 < quarters[quarter] < 140 for quarter in range(4))  # 100 each, give or take 4.6 deviations
    assert sample != sorted(sample)


def test_a_short_listing_is_its_own_sample():
    sample, num_paths = draw_sample(["a", "b", "c"], 400)

    assert (sorted(sample), num_paths) == (["a", "b", "c"], 3)


@pytest.mark.parametrize(
    ("num_images", "num_workers", "seconds"),
    [(1000, 1, 10.0), (1000, 2, 5.0), (1000, 4, 3.0), (1000, 20, 1.0), (950, 1, 9.5), (30, 8, 0.3)],
)
def test_the_time_is_that_of_the_busiest_worker_since_shards_are_not_divided(num_images, num_workers, seconds):
    assert expected_s(num_images, 100, 100.0, num_workers) == seconds


def test_images_that_cannot_be_answered_count_as_rejected():
    answer = MeasureAnswer(num_images=100, errors={"empty": 2, "missing": 3}, decisions={"accept": 85, "reject": 5})

    assert decision_shares(answer, 1000) == {
        "accept": Share(0.85, 0.7672, 0.9069),
        "review": Share(0.0, 0.0, 0.037),
        "reject": Share(0.1, 0.0552, 0.1744),
    }
    assert decision_shares(answer, 100)["reject"] == Share(0.1, 0.1, 0.1)  # nothing is left to chance


def _of_engines(path) -> bool:
    return ".engines" in str(path)


@pytest.mark.usefixtures("_measured_here")
def test_a_plan_goes_by_the_shards_that_a_job_would_have(home, monkeypatch):
    monkeypatch.setattr("orchestrator.jobs.prepare.SMALLEST", 4)
    monkeypatch.setattr("orchestrator.jobs.prepare.choose_shard_size", lambda *_: 6)

    assert json.loads(plan("in", "--json").stdout)["num_shards"] == 4  # of 21 images


def test_a_plan_estimates_a_job_and_stores_only_the_choice_of_an_engine(home):
    before = files(home.parent)

    result = plan("in", "--shard-size", "8", "--json")

    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert [path for path in files(home.parent) if not _of_engines(path)] == before
    assert {
        name: told[name] for name in ("source", "model", "num_images", "num_shards", "skipped", "num_measured")
    } == {
        "source": "in",
        "model": "digits@1",
        "num_images": 21,
        "num_shards": 3,
        "skipped": {".txt": 1},
        "num_measured": 21,
    }
    assert (told["unreadable"]["share"], told["error_codes"], told["decisions"]) == (0.0476, {"not_an_image": 1}, {})
    assert set(told["stage_seconds"]) == {"read", "decode", "wait", "predict"}
    assert told["engine"].startswith(("torch", "onnxruntime", "openvino"))  # whichever measured fastest
    assert told["bound"] in ("storage", "decode", "device")
    assert told["batch_size"] >= 1
    assert list(told["expected_s"]) == ["1", "2", "4", "8"]
    assert told["expected_s"]["1"] >= told["expected_s"]["2"] >= told["expected_s"]["4"] == told["expected_s"]["8"]


@pytest.mark.usefixtures("_measured_here")
def test_a_plan_for_people_names_the_bound_the_time_and_what_fails(home):
    result = plan("in")

    lines = dict(line.split(maxsplit=1) for line in result.stdout.replace("limited by", "bound").splitlines())
    assert result.stderr == "measuring a sample on this machine; nothing is submitted\n"
    assert lines["source"] == "in: 21 images in 1 shard"
    assert re.fullmatch(r"digits@1 by \w+ \w+, \d+ images in a batch", lines["model"])  # whichever engine is fastest
    assert lines["bound"].partition(" ")[0] in ("storage", "decode", "device")
    assert lines["time"].startswith("1 worker ")
    assert re.fullmatch(r"\d+ cores?( within a quota of [\d.]+)?, \d+\.\d GB of \d+\.\d GB memory", lines["machine"])
    assert lines["unreadable"] == "4.8%: 1 not_an_image in the sample"


@pytest.mark.usefixtures("_measured_here")
def test_a_plan_within_quotas_names_them_and_warns_where_memory_hardly_suffices(home, monkeypatch):
    monkeypatch.setattr("orchestrator.jobs.forecast.num_cores", lambda: 1)
    monkeypatch.setattr("orchestrator.jobs.forecast.cpu_quota", lambda: 0.5)
    monkeypatch.setattr("orchestrator.jobs.forecast.memory_total", lambda: 10**9)

    lines = dict(line.split(maxsplit=1) for line in plan("in").stdout.replace("limited by", "bound").splitlines())

    assert lines["machine"] == (
        "1 core within a quota of 0.5, 0.9 GB of 1.0 GB memory; a worker may be killed here: give it more memory"
    )


def test_measuring_that_is_killed_says_that_memory_may_have_run_out():
    assert "this process may use" in describe_end(-9, "")
    assert describe_end(1, "a line") == "measuring ended with exit code 1: a line"


@pytest.mark.usefixtures("_measured_here")
def test_a_list_on_standard_input_can_be_planned(home):
    result = CliRunner().invoke(main, ["classify", "-", "--model", "digits", "--plan", "--json"], input="gone.png\n")

    told = json.loads(result.stdout)
    assert (told["num_images"], told["error_codes"]) == (1, {"missing": 1})


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["nowhere"], 4, "there is no 'nowhere'"),
        (["in", "-o", "no/out.csv"], 2, "there is no folder"),
        (["links"], 2, "the only path would fail with outside_root: they are links that lead out"),
    ],
)
def test_a_plan_refuses_what_a_job_would_refuse(home, arguments, code, error):
    (home.parent / "links").mkdir()
    (home.parent / "links" / "a.png").symlink_to("../in/bad.png")

    result = plan(*arguments)

    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith("error: ")
    assert error in result.stderr


def test_a_model_that_cannot_be_loaded_is_an_error_of_one_line(home):
    weights = home / "models" / "digits" / "1" / WEIGHTS_FILE
    weights.chmod(0o600)
    weights.write_bytes(b"damaged")

    result = plan("in")

    assert result.exit_code == 1
    assert "error: " in result.stderr
    assert "the card says" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_interrupt_ends_a_plan_and_the_process_that_measures(home, tmp_path):
    make_photographs(tmp_path / "photographs", 500)
    command = subprocess.Popen(
        [sys.executable, "-m", "orchestrator", "classify", "photographs", "--model", "digits", "--plan"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        stderr=subprocess.PIPE,
        preexec_fn=enable_interrupts,  # noqa: PLW1509 it sets one signal
    )
    with command:
        wait_until(psutil.Process(command.pid).children, what="a process measures")
        (measuring,) = psutil.Process(command.pid).children()

        command.send_signal(signal.SIGINT)

        assert command.stderr is not None
        assert b"interrupted" in command.stderr.read()
    assert command.returncode == 130
    wait_until(lambda: not measuring.is_running(), what="the process that measures is gone")


@pytest.mark.usefixtures("_measured_here")
def test_a_plan_estimates_how_many_images_need_a_review(home):
    calibration = Calibration(1.0, 0.01, (0.9, 0.9), 0.6, 100, 0.1, 0.0, 0.0)
    staged = make_model(home.parent / "staged", slope=0.05, calibration=calibration)
    ModelStore(home / "models").publish(staged, "lamps")
    (home.parent / "lamps").mkdir()
    for number, brightness in enumerate([0] * 10 + [100] * 6 + [126] * 4):  # scores of 1.00, 0.80 and 0.52
        (home.parent / "lamps" / f"{number}.png").write_bytes(grey_png(brightness))

    told = CliRunner().invoke(main, ["classify", "lamps", "--model", "lamps", "--plan", "--json"])
    said = CliRunner().invoke(main, ["classify", "lamps", "--model", "lamps", "--plan"])

    shares = {name: share["share"] for name, share in json.loads(told.stdout)["decisions"].items()}
    assert shares == {"accept": 0.5, "review": 0.3, "reject": 0.2}
    assert re.search(r"review\s.*30", said.stdout)
