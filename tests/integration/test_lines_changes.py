"""`pigeonhole lines` beside another change of the same line."""

import pytest

from orchestrator.contract.lines.registry import LineRegistry, read_line
from orchestrator.contract.server import connect_raw
from tests.support.line_commands import create, run
from tests.support.published_models import publish_model

pytestmark = pytest.mark.integration


@pytest.fixture
def home(tmp_path, monkeypatch, server):
    """A home with a model, and an empty server."""
    publish_model(tmp_path / "home" / "models", "digits")
    monkeypatch.setenv("PIGEONHOLE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIGEONHOLE_SERVER_URL", server.url)
    return tmp_path / "home"


@pytest.fixture
def client(server):
    client = connect_raw(server.url)
    yield client
    client.close()


@pytest.fixture
def beside(monkeypatch):
    """Makes a change of somebody else just before the next one: `beside(arguments of pigeonhole lines)`."""
    change = LineRegistry.change

    def let(*arguments):
        def change_after(registry, name, changed):
            monkeypatch.setattr(LineRegistry, "change", change)
            run(*arguments)
            return change(registry, name, changed)

        monkeypatch.setattr(LineRegistry, "change", change_after)

    return let


def test_of_two_changes_of_settings_at_once_none_is_lost(home, client, beside):
    create("--deadline", "300ms")
    beside("set", "post", "--bin", "0=x")

    told = run("set", "post", "--deadline", "200ms", "--bin", "1=y").stderr

    assert told.splitlines()[-1] == "line post: deadline_ms: 300 -> 200; 1: 1a,1b -> y"
    settings = read_line(client, "post").settings
    assert (settings.deadline_ms, settings.bins["0"], settings.bins["1"]) == (200, ("x",), ("y",))


def test_a_bin_that_the_map_loses_at_that_moment_is_not_marked(home, client, beside):
    create()
    beside("set", "post", "--bin", "0=x")

    told = run("bins", "post", "full", "0a", code=2).stderr

    assert "line 'post' has no bin '0a'" in told
    assert read_line(client, "post").full == ()
