import contextlib
import socket
import time
from ipaddress import ip_network

import pytest

from orchestrator.contract.webhooks import post as module
from orchestrator.contract.webhooks.post import NoAnswerError, post
from orchestrator.contract.webhooks.target import DeliveryError, parse_target
from tests.support.receiver import answering_raw, receiving

LOOPBACK = [ip_network("127.0.0.0/8")]


def send(url, allowed=LOOPBACK):
    post(parse_target(url), b'{"a":1}', {"webhook-id": "x"}, allowed)


def test_success_is_a_status_of_the_two_hundreds():
    with receiving(204) as receiver:
        send(receiver.url)

    headers, body = receiver.got[0]
    assert (headers["webhook-id"], headers["host"], body) == ("x", receiver.url.split("/")[2], b'{"a":1}')


@pytest.mark.parametrize("status", [199, 400, 404, 410, 429, 500, 503])
def test_any_other_status_is_a_failure(status):
    with receiving(status) as receiver, pytest.raises(DeliveryError, match=f"HTTP {status}") as failed:
        send(receiver.url)

    assert "s3cret" not in str(failed.value)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(status):
    with (
        receiving() as other,
        receiving(status, headers={"Location": other.url}) as receiver,
        pytest.raises(DeliveryError, match="redirects are not followed"),
    ):
        send(receiver.url)

    assert other.got == []


def test_nothing_is_sent_to_an_address_that_is_not_allowed():
    with receiving() as receiver, pytest.raises(DeliveryError, match="is not a public address"):
        send(receiver.url, [])

    assert receiver.got == []


def test_a_name_that_resolves_to_another_address_later_reaches_nothing_else(monkeypatch):
    look_up, asked = socket.getaddrinfo, []
    with receiving() as receiver:
        port = parse_target(receiver.url).port

        def rebinding(host, *args, **options):
            if host == "rebinding.test":  # a public address for the check, and the local one for who asks again
                asked.append(host)
                return look_up("203.0.113.9" if len(asked) == 1 else "127.0.0.1", *args, **options)
            return look_up(host, *args, **options)

        monkeypatch.setattr(socket, "getaddrinfo", rebinding)
        monkeypatch.setattr(module, "POST_S", 0.3)
        with pytest.raises(DeliveryError):
            send(f"http://rebinding.test:{port}/", [ip_network("203.0.113.0/24")])

    assert asked == ["rebinding.test"]
    assert receiver.got == []


def drip(connection):
    """A status line, one byte at a time, that never ends."""
    connection.recv(65536)
    while True:
        connection.sendall(b"H")
        time.sleep(0.02)


def header_flood(connection):
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X-Flood: " + b"y" * 4000 + b"\r\n")


def hang(connection):
    while connection.recv(65536):  # head and body may come in two pieces
        pass


@pytest.mark.parametrize("answer", [hang, drip])
def test_a_receiver_that_hangs_or_drips_is_cut_off_in_time(monkeypatch, answer):
    monkeypatch.setattr(module, "POST_S", 0.3)
    begun = time.monotonic()

    with answering_raw(answer) as port, pytest.raises(NoAnswerError, match=r"no answer within 0\.3 s"):
        send(f"http://127.0.0.1:{port}/")

    assert time.monotonic() - begun < 20


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (header_flood, "not HTTP"),
        (lambda connection: connection.recv(65536) and connection.sendall(b"SSH-2.0-x\r\n\r\n"), "not HTTP"),
        (lambda connection: connection.recv(65536) and None, "was cut"),
    ],
)
def test_an_answer_that_is_none_is_a_failure(answer, error):
    with answering_raw(answer) as port, pytest.raises(DeliveryError, match=error):
        send(f"http://127.0.0.1:{port}/")


def test_nobody_listens():
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]

    with pytest.raises(DeliveryError, match="nobody listens there"):
        send(f"http://127.0.0.1:{port}/")


def test_a_certificate_that_nobody_vouches_for_is_refused():
    with receiving() as receiver, pytest.raises(DeliveryError):
        send(receiver.url.replace("http://", "https://"))

    assert receiver.got == []
