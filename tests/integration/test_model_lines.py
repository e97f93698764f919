"""Lines of models, which nobody made: with a real server, and workers in this process with fake models."""

from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from modeling.inference.prediction import Prediction
from orchestrator.cli import main
from orchestrator.contract.errors import NotFoundError, UnavailableError, UsageError
from orchestrator.contract.lines import model_lines
from orchestrator.contract.lines.model_lines import ModelLines, model_line_name
from orchestrator.contract.lines.registry import line_names
from orchestrator.contract.settings import Settings
from tests.support import line_workers
from tests.support.images import grey_png
from tests.support.line_workers import LineHome
from tests.support.pushes import Pusher, wait_until_open
from tests.support.server import Server
from workers.lines import maintenance
from workers.lines.maintenance import LinesMaintenance

pytestmark = pytest.mark.integration

LIGHT = grey_png(250)


@pytest.fixture
def home(tmp_path, server) -> Iterator[LineHome]:
    home = LineHome(Settings(home=tmp_path / "home", server_url=server.url))
    home.publish("tones")
    yield home
    home.close()


@pytest.fixture
def lines(home: LineHome) -> ModelLines:
    return ModelLines(home.registry, home.client)


def pusher_of(home: LineHome, name: str) -> Pusher:
    return Pusher(home.registry.store(home.registry.get(name)))


def forget_use(home: LineHome, name: str) -> None:
    """As if nobody had used it for long."""
    home.client.delete(home.registry.store(home.registry.get(name)).key("used"))


def test_a_model_answers_without_bins_once_its_line_is_used(home, lines):
    home.start("w1")

    lines.use("tones")
    lines.use("tones")

    pusher = pusher_of(home, "@tones")
    wait_until_open(pusher.store)
    answer = pusher.ask("a", LIGHT)
    assert (answer.bin, answer.reason, answer.label, answer.model) == ("none", None, "light", "tones@1")
    assert home.registry.names() == ["@tones"]


def test_answers_of_a_model_name_many_labels_and_those_of_a_line_five(home, lines, monkeypatch):
    asked: list[int] = []

    def predict(self: object, images: list[object], top_k: int) -> list[Prediction]:
        asked.append(top_k)
        return [Prediction(("light",), (0.9,))] * len(images)

    monkeypatch.setattr(line_workers.FakePushPredictor, "predict", predict)
    home.start("w1")
    lines.use("tones@1")
    wait_until_open(pusher_of(home, "@tones@1").store)

    pusher_of(home, "@tones@1").ask("a", LIGHT)
    home.create("post").ask("a", LIGHT)

    assert asked == [100, 5]


@pytest.mark.parametrize(
    ("reference", "name"),
    [("tones", "@tones"), ("tones@latest", "@tones"), ("tones@2", "@tones@2"), ("tones@champion", "@tones@champion")],
)
def test_each_reference_has_a_line(reference, name):
    assert model_line_name(reference) == name


def test_a_line_that_nobody_uses_goes_and_comes_back_with_the_next_use(home, lines, monkeypatch):
    monkeypatch.setattr(maintenance, "USE_AGAIN_S", 0.0)
    keeper = LinesMaintenance(home.settings, "w1")
    lines.use("tones")
    keeper.run()
    assert home.registry.names() == ["@tones"]

    forget_use(home, "@tones")
    keeper.run()
    keeper.run()
    assert home.registry.names() == []
    assert line_names(home.client) == []

    lines.use("tones")
    assert home.registry.get("@tones").settings.model == "tones"


def test_a_use_and_the_end_of_a_line_are_never_mixed_up(home, lines):
    lines.use("tones")

    lines.close_unused("@tones")
    assert line_names(home.client) == ["@tones"]

    forget_use(home, "@tones")
    lines.close_unused("@tones")
    assert (line_names(home.client), home.registry.names()) == ([], [])
    with pytest.raises(NotFoundError):
        lines.close_unused("@tones")


def test_a_use_tells_an_emptied_server_of_the_line_again(home, lines, server: Server):
    lines.use("tones")
    server.empty()

    lines.use("tones")

    assert line_names(home.client) == ["@tones"]
    assert pusher_of(home, "@tones").push("a", LIGHT).verdict == "admitted"


def test_more_models_than_a_worker_should_hold_wait_until_another_is_idle(home, lines, monkeypatch):
    monkeypatch.setattr(model_lines, "MOST_OPEN", 2)
    lines.use("tones@1")
    lines.use("tones@2")

    with pytest.raises(UnavailableError, match=r"2 models are open \(tones@1, tones@2\)"):
        lines.use("tones@3")
    assert line_names(home.client) == ["@tones@1", "@tones@2"]

    monkeypatch.setattr(model_lines, "STAYS_OPEN_S", -1)
    forget_use(home, "@tones@1")
    lines.use("tones@3")
    assert line_names(home.client) == ["@tones@2", "@tones@3"]


def test_answers_of_models_are_dropped_when_a_minute_is_over_and_never_in_files(home, lines, monkeypatch):
    home.start("w1")
    lines.use("tones")
    pusher = pusher_of(home, "@tones")
    wait_until_open(pusher.store)
    pusher.ask("a", LIGHT)
    keeper = LinesMaintenance(home.settings, "w1")
    keeper.run()
    assert pusher.store.record("1/a") is not None

    monkeypatch.setattr(maintenance, "stay_keeper", lambda store, worker: 1 << 50)
    keeper.run()

    assert pusher.store.record("1/a") is None
    assert list(home.registry.folder("@tones").iterdir()) == [home.registry.folder("@tones") / "line.json"]


def test_operators_see_the_line_and_neither_make_nor_change_one(home, lines, monkeypatch):
    monkeypatch.setenv("PIGEONHOLE_HOME", str(home.settings.home))
    monkeypatch.setenv("PIGEONHOLE_SERVER_URL", home.settings.require_server_url())
    lines.use("tones")

    listed = CliRunner().invoke(main, ["lines", "list"])
    options = ["--model", "tones", "--fallback", "F", "--review", "R"]
    made = CliRunner().invoke(main, ["lines", "create", "@other", *options])

    assert "@tones" in listed.stdout
    assert made.exit_code == 2
    assert "names that begin with @ are those of models" in made.stderr
    with pytest.raises(UsageError, match="cannot be changed"):
        home.registry.change("@tones", lambda line: type(line)(model_lines.model_line_settings("tones@2")))
