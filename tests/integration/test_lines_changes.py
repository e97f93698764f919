"""`pigeonhole lines` beside another change of the same line, and removals that are interrupted."""

import shutil
import threading

import pytest

from orchestrator.contract.errors import NotFoundError, UnavailableError
from orchestrator.contract.lines.registry import LineRegistry, read_line
from orchestrator.contract.lines.settings import LineSettings
from orchestrator.contract.lines.store import LineStore
from orchestrator.contract.server import connect_raw
from orchestrator.contract.settings import Settings
from tests.support.line_commands import create, run, shown
from tests.support.line_worker import make_line

pytestmark = pytest.mark.integration


@pytest.fixture
def home(operators_home):
    return operators_home


@pytest.fixture
def client(raw_client):
    return raw_client


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


class Stopping:
    """A client of the server that one of the calls of a removal stops at."""

    def __init__(self, client, call, stop):
        self._client, self._call, self._stop = client, call, stop

    def __getattr__(self, name):
        if name == self._call:
            self._stop()
        return getattr(self._client, name)


def interrupt(*_, **__):
    raise KeyboardInterrupt


def fill(home, client):
    """A line `post` with a kept image, and an answer on the server."""
    create()
    (home / "lines" / "post" / "images").mkdir()
    (home / "lines" / "post" / "images" / "1.image").write_bytes(b"an image")
    client.hset(LineStore(client, "post").key("answers"), "1/a", b"{}")


@pytest.mark.parametrize("stop", ["hdel", "incr", "rmtree", "scan_iter", "unlink"])
def test_a_removal_that_was_interrupted_is_finished_before_a_line_of_that_name_is_made(home, client, monkeypatch, stop):
    fill(home, client)
    registry = LineRegistry(Settings(home=home), Stopping(client, stop, interrupt))
    with monkeypatch.context() as patched:
        if stop == "rmtree":
            patched.setattr(shutil, "rmtree", interrupt)
        with pytest.raises(KeyboardInterrupt):
            registry.remove("post")

    assert "there is no line 'post'" in run("pause", "post", code=4).stderr
    refused = run("create", "post", "--model", "digits", "--fallback", "F", "--review", "R", code=2).stderr
    assert "the removal of line 'post' was interrupted; finish it: `pigeonhole lines remove post`" in refused
    assert shown("remove", "post", "--yes")["removed"] == "post"
    assert "there is no line 'post'" in run("remove", "post", "--yes", code=4).stderr

    assert (list(home.glob("lines/*/*")), client.keys("*:line:post*"), read_line(client, "post")) == ([], [], None)
    create()
    assert [path.name for path in (home / "lines" / "post").iterdir()] == ["line.json"]


def test_a_removal_whose_server_went_away_is_finished_when_it_is_back(home, client, own_server):
    registry = LineRegistry(Settings(home=home), client)
    registry.create(make_line(server=own_server.url).settings)
    own = connect_raw(own_server.url)
    own_server.kill()

    assert "start it, or remove the line with --server-is-gone" in run("remove", "post", "--yes", code=69).stderr
    with pytest.raises(UnavailableError, match="the removal of line post has begun, and a server does not answer: "):
        registry.remove("post")
    assert (registry.names(), read_line(client, "post")) == ([], None)
    own_server.start()
    LineStore(own, "post").enter(make_line())
    run("remove", "post", "--yes")

    assert (own.keys(), list(home.glob("lines/*/*"))) == ([], [])


def test_a_line_that_is_removed_while_a_worker_fills_the_server_is_not_entered_again(home, client):
    class Filling(LineRegistry):
        def store(self, line):
            if self.has("post"):
                LineRegistry(Settings(home=home), client).remove("post")
            return super().store(line)

    create()

    assert Filling(Settings(home=home), client).refill().lines == {}
    assert client.keys("*:line:post*") == []


def test_the_line_of_a_model_finishes_a_removal_itself(home, client):
    settings = LineSettings.from_json(make_line("@m").settings.to_json())
    registry = LineRegistry(Settings(home=home), client)
    registry.ensure(settings)
    client.hset(LineStore(client, "@m").key("answers"), "1/a", b"{}")
    with pytest.raises(KeyboardInterrupt):
        LineRegistry(Settings(home=home), Stopping(client, "scan_iter", interrupt)).remove("@m")

    registry.ensure(settings)

    assert (registry.names(), client.exists(LineStore(client, "@m").key("answers"))) == (["@m"], 0)


def test_a_line_that_is_made_or_removed_beside_its_removal_waits_for_that(home, client):
    fill(home, client)
    begun, go_on, told = threading.Event(), threading.Event(), []

    def wait():
        begun.set()
        go_on.wait(60)

    def remove_again():
        with pytest.raises(NotFoundError):
            LineRegistry(Settings(home=home), client).remove("post")
        told.append("removed already")

    first = LineRegistry(Settings(home=home), Stopping(client, "scan_iter", wait))
    threads = [threading.Thread(target=first.remove, args=("post",)), threading.Thread(target=remove_again)]
    threads[0].start()
    begun.wait(60)
    threads[1].start()
    go_on.set()
    for thread in threads:
        thread.join(60)

    assert told == ["removed already"]
    create()
    assert not client.exists(LineStore(client, "post").key("answers"))
