"""`pigeonhole up --listen` where nothing may start."""

import socket
from pathlib import Path

import pytest

from orchestrator.cli.client import open_or_start_client
from orchestrator.contract.errors import UnavailableError
from orchestrator.contract.settings import get_settings
from orchestrator.contract.shared_server import SharedServer, write_shared_server
from tests.support.invoke import invoke


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A closed home."""
    monkeypatch.setenv("PIGEONHOLE_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir(mode=0o700)
    return tmp_path / "home"


def refused(*arguments: object) -> str:
    result = invoke("up", "--device", "cpu", *arguments)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    return result.stderr


def test_invalid_addresses_and_files_start_nothing(home: Path):
    assert "is not an address" in refused("--listen", "queue")
    assert "name both, or none" in refused("--listen", "127.0.0.2", "--tls-key", "key")
    assert "need --listen ADDRESS" in refused("--tls-key", "key")
    assert list(home.iterdir()) == []

    assert "this machine has no such address" in refused("--listen", "192.0.2.1")
    assert not list(home.glob("**/url"))
    assert not list(home.glob("server.*"))


def test_a_home_that_others_may_enter_gets_no_password(home: Path):
    home.chmod(0o755)

    said = refused("--listen", "127.0.0.2")

    assert "the home would keep the server's password, and others may enter it (mode 0755): `chmod 700" in said
    assert list(home.iterdir()) == []


def test_a_home_has_one_server(home: Path):
    write_shared_server(home, SharedServer("elsewhere", "10.0.0.1:6379", "redis://:secret@10.0.0.1:6379/0"), None)

    for arguments in ((), ("--listen", "127.0.0.2")):
        said = refused(*arguments)
        assert "the server of this home runs on elsewhere (10.0.0.1:6379): start `pigeonhole worker` here" in said
        assert f"remove {home}/server.json" in said
    assert [path.name for path in home.iterdir()] == ["server.json"]


def test_a_job_starts_no_stack_where_another_machine_runs_the_server(home: Path):
    with socket.socket() as unanswered:
        unanswered.bind(("127.0.0.1", 0))  # nothing listens
        place = f"127.0.0.1:{unanswered.getsockname()[1]}"
        write_shared_server(home, SharedServer("elsewhere", place, f"redis://:secret@{place}/0"), None)
        get_settings.cache_clear()

        with pytest.raises(UnavailableError, match=rf"no server answers at redis://\*\*\*@{place}/0"):
            open_or_start_client()

    assert [path.name for path in home.iterdir()] == ["server.json"]
