"""`pigeonhole lines simulate` on a server, with a worker that needs no model."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from orchestrator.cli import main
from orchestrator.contract.lines.stats import read_stats
from orchestrator.contract.settings import get_settings
from tests.support.line_worker import enter_line, line_worker, make_line
from tests.support.server import Server

pytestmark = pytest.mark.integration


@pytest.fixture
def images(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with images, below a folder of each class; the server is that of the command."""
    monkeypatch.setenv("PIGEONHOLE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIGEONHOLE_SERVER_URL", server.url)
    for name in ("a/1.png", "a/2.png", "b/3.png"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 100).save(path)
    (tmp_path / "images" / "a" / "bad.jpg").write_bytes(b"bad")
    return tmp_path / "images"


def simulate(images: Path, *options: str) -> Result:
    get_settings.cache_clear()
    arguments = ["lines", "simulate", "post", "--images", str(images), *options]
    result = CliRunner().invoke(main, arguments, prog_name="pigeonhole")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_a_belt_is_reported_as_data_with_a_timeline_and_a_measured_capacity(
    images: Path, server: Server, tmp_path: Path
):
    store = enter_line(server.url, make_line(deadline_ms=30_000))
    load = ("--per-second", "40", "--minutes", "0.02", "--distance", "60")

    with line_worker(server.url):
        result = simulate(images, *load, "--plot", str(tmp_path / "l.png"), "--json")

    facts = json.loads(result.stdout)
    assert result.exit_code == 0
    figures = facts["figures"]
    assert (figures["num_items"], figures["num_unanswered"]) == (48, 0)
    assert figures["by_reason"]["unreadable"] == 12  # one of four images, each as often
    assert sum(figures["by_reason"].values()) == sum(figures["by_bin"].values()) == 48
    assert (facts["gate_ms"], facts["deadline_ms"], facts["interrupted"]) == (20_000, 20_000, False)
    assert facts["capacity"]["per_second"] > 0
    assert read_stats(store).answers > 48  # those of the burst, too
    assert store.record(f"1/{facts['items']}-48") is not None
    with Image.open(tmp_path / "l.png") as picture:
        assert picture.format == "PNG"


def test_a_belt_is_reported_for_people(images: Path, server: Server):
    enter_line(server.url, make_line(deadline_ms=10_000))
    load = ("--per-second", "50", "--poisson", "--minutes", "0.01", "--distance", "60", "--no-burst")

    with line_worker(server.url):
        result = simulate(images, *load)

    assert result.exit_code == 0
    assert "gate 20,000 ms after the trigger (60 m at 3 m/s); deadline: 10,000 ms, the line's own" in result.stdout
    for start in ("accept ", "unreadable ", "answers    p50 ", "missed ", "capacity   not measured", "generator "):
        assert any(line.startswith(start) for line in result.stdout.splitlines()), start


def test_a_line_that_cannot_be_simulated_is_refused_at_once(images: Path, server: Server, tmp_path: Path):
    unknown = simulate(images, "--per-second", "8")
    assert unknown.exit_code == 4
    assert "there is no line 'post'" in unknown.stderr

    enter_line(server.url, make_line())
    without_worker = simulate(images, "--per-second", "8")
    assert without_worker.exit_code == 69
    assert "no worker is alive that could open line 'post'; start `pigeonhole worker`" in without_worker.stderr

    no_folder = simulate(images, "--per-second", "8", "--plot", str(tmp_path / "nowhere" / "l.png"))
    assert (no_folder.exit_code, "there is no folder" in no_folder.stderr) == (2, True)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "holds no file with the extension of an image" in simulate(empty, "--per-second", "8").stderr
    assert "--per-second 0 must be above 0" in simulate(images, "--per-second", "0").stderr
    assert "--minutes 0 must be above 0" in simulate(images, "--per-second", "8", "--minutes", "0").stderr
    assert "--speed 0 must be above 0" in simulate(images, "--per-second", "8", "--speed", "0").stderr


def test_a_paused_line_is_refused_at_once(images: Path, server: Server):
    enter_line(server.url, replace(make_line(), paused=True))

    result = simulate(images, "--per-second", "8")

    assert result.exit_code == 2
    assert "is paused and would refuse every item; `pigeonhole lines resume post` opens it" in result.stderr
