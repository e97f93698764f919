"""The server that one machine runs for all that share its home."""

import socket
from pathlib import Path

import pytest

from orchestrator.contract.errors import MessageError
from orchestrator.contract.server_url import parse_url
from orchestrator.contract.settings import Settings
from orchestrator.contract.shared_server import (
    SHARED_FILE,
    SharedServer,
    forget_shared_server,
    read_shared_server,
    write_shared_server,
)

SERVER = SharedServer("one", "10.0.0.1:6379", "redis://:secret@10.0.0.1:6379/0")


@pytest.mark.parametrize(("mode", "expected"), [(0o700, 0o600), (0o2770, 0o660)])
def test_only_who_shares_the_home_can_read_it(tmp_path: Path, mode: int, expected: int):
    tmp_path.chmod(mode)

    write_shared_server(tmp_path, SERVER, None)

    assert (tmp_path / SHARED_FILE).stat().st_mode & 0o777 == expected
    assert read_shared_server(tmp_path) == SERVER
    forget_shared_server(tmp_path)
    assert read_shared_server(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_certificate_is_found_wherever_the_home_is_mounted(tmp_path: Path):
    encrypted = SharedServer("one", "10.0.0.1:6379", "rediss://:secret@10.0.0.1:6379/0")
    home = tmp_path / "a home?"
    home.mkdir()

    write_shared_server(home, encrypted, b"certificate")

    certificate = parse_url(encrypted.url_in(home)).options["ssl_ca_certs"]
    assert Path(certificate).read_bytes() == b"certificate"


def test_the_server_of_another_machine_counts_before_a_local_one_and_after_a_configured_one(settings: Settings):
    settings.stack.mkdir(parents=True)
    (settings.stack / "url").write_text("unix:///run/local.sock")

    write_shared_server(settings.home, SERVER, None)

    assert settings.find_server_url() == SERVER.url
    assert Settings(home=settings.home, server_url="redis://far").find_server_url() == "redis://far"


def test_the_machine_that_runs_it_uses_its_own_socket(settings: Settings):
    settings.stack.mkdir(parents=True)
    (settings.stack / "url").write_text("unix:///run/local.sock")

    write_shared_server(settings.home, SharedServer(socket.gethostname(), SERVER.listen, SERVER.url), None)

    assert settings.find_server_url() == "unix:///run/local.sock"
    assert settings.shared_elsewhere() is None


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"host": "one", "listen": 1, "url": "secret"}'])
def test_what_up_did_not_write_is_one_line_without_its_content(tmp_path: Path, content: str):
    (tmp_path / SHARED_FILE).write_text(content)

    with pytest.raises(MessageError, match="which `pigeonhole up --listen` writes") as refused:
        read_shared_server(tmp_path)
    assert "\n" not in str(refused.value)
    assert "secret" not in str(refused.value)
