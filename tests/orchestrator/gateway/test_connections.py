"""Clients that are slow, endless or hostile, at the socket: they are cut off, and cost nobody anything."""

import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
import time
from dataclasses import replace
from unittest import mock

import pytest

from orchestrator.contract.lines.answers import Answer
from orchestrator.gateway.guard.connection import ConnectionLimits
from orchestrator.gateway.guard.joined_writes import JoinedWrites
from tests.support.gateway import bearer, make_context, served, write_tokens
from tests.support.raw_http import HEAD, POST, PUSH, add_silent_line, connected, read_all, read_answer, status
from tests.support.server import wait_until

QUICK = ConnectionLimits(
    most_connections=20, header_s=1, body_s=1, body_bytes_per_s=1 << 20, write_s=0.3, most_header_bytes=8192,
    most_headers=50, most_body_bytes=1 << 20, check_s=0.05,
)  # fmt: skip


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    """With a line `post`, which answers nothing."""
    with served(make_context(tmp_path_factory.mktemp("home"), port=0), QUICK) as gateway:
        add_silent_line(gateway)
        yield gateway


def drip(connection, data, stop):
    """Send a byte at a time until the gateway has enough of it."""
    with contextlib.suppress(OSError):
        for byte in data:
            if stop.wait(0.02):
                return
            connection.sendall(bytes([byte]))


@pytest.mark.parametrize("sent", [b"", b"GET /health/live HT", HEAD + b"X: y\r\n"])
def test_headers_that_do_not_arrive_in_time_are_cut_off(gateway, sent):
    with connected(gateway) as connection:
        connection.sendall(sent)

        assert status(read_all(connection)) == 408


@pytest.mark.parametrize(
    "head",
    [HEAD + b"X: ", POST + b"Content-Length: 100000\r\n\r\n", POST + b"Transfer-Encoding: chunked\r\n\r\n1000\r\n"],
)
def test_what_drips_is_cut_off_too(gateway, head):
    with connected(gateway) as connection:
        connection.sendall(head)
        stop = threading.Event()
        dripping = threading.Thread(target=drip, args=(connection, b"x" * 4000, stop))
        dripping.start()
        answer = read_all(connection)
        stop.set()
        dripping.join()

    assert status(answer) in (None, 408)  # None: reset, since more was on its way


def test_a_body_that_stalls_is_cut_off(gateway):
    with connected(gateway) as connection:
        connection.sendall(POST + b"Content-Length: 1000\r\n\r\n{")

        assert status(read_all(connection)) == 408


def test_an_answer_is_written_at_once_and_the_head_of_a_silent_stream_too():
    transport = mock.Mock()

    async def write():
        loop = asyncio.get_running_loop()
        whole, silent, closed = (JoinedWrites(transport, loop) for _ in range(3))
        for data in (b"head ", b"body ", b"more "):
            whole.write(data)
        silent.write(b"silent ")
        await asyncio.sleep(0)
        closed.write(b"closed ")
        closed.close()

    asyncio.run(write())

    assert transport.mock_calls == [
        mock.call.writelines([b"head ", b"body "]),
        mock.call.write(b"more "),
        mock.call.write(b"silent "),
        mock.call.write(b"closed "),
        mock.call.close(),
    ]


def test_a_client_that_asks_whether_to_continue_is_told_so(gateway):
    with connected(gateway) as connection:
        connection.sendall(
            POST + b"Content-Length: 2\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n\r\n"
        )
        told = connection.recv(65536)

    assert told.startswith(b"HTTP/1.1 100")


def test_an_idle_connection_is_kept_after_an_answer(gateway):
    with connected(gateway) as connection:
        connection.sendall(HEAD + b"\r\n")
        assert status(read_answer(connection)) == 200
        seen = time.monotonic()
        wait_until(lambda: time.monotonic() - seen > 2 * QUICK.header_s, what="the time for headers has passed")
        connection.sendall(HEAD + b"Connection: close\r\n\r\n")

        assert status(read_all(connection)) == 200


@pytest.fixture
def early(tmp_path):
    """A gateway that answers requests without a token before their bodies come; none is idle for long."""
    with served(make_context(tmp_path, port=0, token_file=write_tokens(tmp_path)), QUICK) as gateway:
        gateway.server.config.timeout_keep_alive = 0.5
        yield gateway


def answered_before_its_body(connection):
    """Send a request but for its body, read the refusal, then send the body."""
    connection.sendall(POST + b"Content-Length: 1\r\n\r\n")
    assert status(read_answer(connection)) == 401
    connection.sendall(b"1")


def test_a_connection_whose_body_came_after_the_answer_is_closed_as_any_that_is_idle(early):
    with connected(early) as connection:
        answered_before_its_body(connection)

        assert read_all(connection) == b""


def test_connections_whose_bodies_came_after_the_answers_do_not_keep_others_out(tmp_path):
    with served(make_context(tmp_path, port=0, token_file=write_tokens(tmp_path)), QUICK) as gateway:

        def another():
            with connected(gateway) as connection:
                connection.sendall(HEAD + b"Connection: close\r\n\r\n")
                return status(read_all(connection))

        with contextlib.ExitStack() as stack:
            for _ in range(QUICK.most_connections):
                answered_before_its_body(stack.enter_context(connected(gateway)))

            wait_until(lambda: another() == 200, what="one of them is closed for another")


def test_a_request_that_follows_such_a_body_at_once_has_its_time(early):
    future = add_silent_line(early)
    headers = b"Connection: close\r\nAuthorization: " + bearer("push")["authorization"].encode() + b"\r\n"
    with connected(early) as connection:
        connection.sendall(POST + b"Content-Length: 1\r\n\r\n")
        assert status(read_answer(connection)) == 401
        connection.sendall(b"1" + POST + headers + b"Content-Length: 1\r\n\r\n1")
        wait_until(lambda: early.context.waiters._waiting, what="the push waits")
        seen = time.monotonic()
        wait_until(lambda: time.monotonic() - seen > 1, what="the time of an idle connection has passed")
        future.set_result(Answer("1", 1, "B"))

        assert status(read_all(connection)) == 200


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (HEAD + b"X: " + b"x" * 100_000, 431),
        (HEAD + b"".join(b"X-%d: 1\r\n" % number for number in range(100)) + b"\r\n", 431),
        (b"GET /" + b"x" * 100_000, 431),
        (b"GET http://localhost/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /health/live HTTP/1.1\r\nConnection: close\r\n\r\n", 421),
        (b"GET /health/live?label=caf\xe9 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 400),
        (HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nx", 400),
        (HEAD + b"Content-Length: -1\r\n\r\n", 400),
        (HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (HEAD + b"Bad Header\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"\xff" * 100, 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (POST + b"Content-Length: 99999999999999999999\r\n\r\n", 400),
        (POST + b"Content-Length: 99999999999\r\n\r\n", 413),
    ],
)
def test_requests_that_are_too_large_or_none_are_refused(gateway, sent, expected):
    with connected(gateway) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(sent)

        assert status(read_all(connection)) == expected


def test_an_endless_body_is_cut_off(gateway):
    with connected(gateway) as connection:
        connection.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < 100 << 20:
                connection.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                sent += 65536
        read_all(connection)

    assert sent < 100 << 20


def test_a_client_that_does_not_read_its_answers_is_cut_off(gateway):
    request = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with connected(gateway) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(0.2)
        with contextlib.suppress(OSError):
            for _ in range(500):
                connection.sendall(request)

        wait_until(lambda: not gateway.server.server_state.connections, what="the connection is closed")


def test_a_client_that_does_not_read_its_last_answer_is_cut_off_too(tmp_path):
    with served(make_context(tmp_path, port=0), QUICK) as gateway, socket.socket() as connection:
        gateway._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", gateway.port))
        connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        wait_until(lambda: "/openapi.json" in gateway.log, what="it is answered")

        wait_until(lambda: not gateway.server.server_state.connections, what="the connection is closed", timeout_s=10)


def test_what_follows_a_request_that_waits_does_not_answer_it(tmp_path):
    with served(make_context(tmp_path, port=0), QUICK) as gateway, connected(gateway) as connection:
        future = add_silent_line(gateway)
        connection.sendall(PUSH + b"junk\r\n\r\n")
        wait_until(lambda: gateway.context.waiters._waiting, what="the push waits")
        future.set_result(Answer("1", 1, "B"))

        answer = read_all(connection)

    assert (answer.count(b"HTTP/1.1 "), status(answer)) == (1, 200)


def test_a_client_that_hangs_up_makes_room_also_where_it_has_sent_more_requests(tmp_path):
    with served(make_context(tmp_path, port=0), QUICK) as gateway:
        add_silent_line(gateway)
        with connected(gateway) as connection:
            connection.sendall(2 * PUSH)
            wait_until(lambda: gateway.context.waiters._waiting, what="the push waits")

        guard = gateway.server.config.app
        wait_until(lambda: not guard.num_requests and not gateway.context.waiters._waiting, what="nothing waits for it")


def test_slow_and_idle_connections_do_not_keep_others_out(gateway):
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(connected(gateway)) for _ in range(QUICK.most_connections)]
        for connection in held:
            connection.sendall(HEAD + b"\r\n")
            read_answer(connection)  # idle from here on
        with connected(gateway) as another:
            another.sendall(HEAD + b"Connection: close\r\n\r\n")
            assert status(read_all(another)) == 200
    wait_until(lambda: not gateway.server.server_state.connections, what="all are closed")


def test_what_waits_when_the_gateway_stops_is_told_to_ask_again(tmp_path):
    with served(make_context(tmp_path, port=0), replace(QUICK, stop_s=1.0)) as gateway:
        waiters = gateway.context.waiters
        add_silent_line(gateway)
        with connected(gateway) as connection:
            connection.sendall(PUSH)
            wait_until(lambda: waiters._waiting, what="the push waits")
            gateway.stop()
            answer = read_all(connection)

    assert status(answer) == 503
    assert b"urn:pigeonhole:stopping" in answer


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_it_speaks_tls(tmp_path):
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    made += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate]
    subprocess.run(made, check=True, capture_output=True)
    trusting = ssl.create_default_context(cafile=certificate)

    with (
        served(make_context(tmp_path, port=0, certificate=certificate, key=key), QUICK) as gateway,
        connected(gateway) as connection,
        trusting.wrap_socket(connection, server_hostname="localhost") as encrypted,
    ):
        encrypted.sendall(HEAD + b"Connection: close\r\n\r\n")
        assert status(read_answer(encrypted)) == 200


def test_a_stop_ends_open_connections_and_refuses_new_ones(tmp_path):
    with served(make_context(tmp_path, port=0, token_file=write_tokens(tmp_path)), QUICK) as gateway:
        with connected(gateway) as idle, connected(gateway) as slow:
            token = bearer("view")["authorization"].encode()
            idle.sendall(HEAD + b"Authorization: " + token + b"\r\n\r\n")
            read_answer(idle)
            slow.sendall(HEAD)
            gateway.stop()

            assert (read_all(idle), read_all(slow)) == (b"", b"")
        with pytest.raises(OSError), connected(gateway):
            pass
