"""What is answered before the application is asked: the same kind of problem, named and logged as all answers are."""

import contextlib
import json
from dataclasses import replace
from email.parser import BytesParser
from http import HTTPStatus

import pytest

from orchestrator.gateway.guard.connection import ConnectionLimits
from tests.support.gateway import make_context, served
from tests.support.raw_http import HEAD, POST, add_silent_line, connected, read_all, read_answer, status
from tests.support.server import wait_until

PATIENT = ConnectionLimits(most_header_bytes=8192, most_headers=50, most_body_bytes=1 << 20)
HASTY = replace(PATIENT, header_s=1, body_s=1, check_s=0.05)
MANY = b"".join(b"X-%d: 1\r\n" % number for number in range(100))
V2 = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    """With a line `post`, which answers nothing."""
    with served(make_context(tmp_path_factory.mktemp("home"), port=0), PATIENT) as gateway:
        add_silent_line(gateway)
        yield gateway


@pytest.fixture(scope="module")
def hasty(tmp_path_factory):
    """The same, which waits for no client."""
    with served(make_context(tmp_path_factory.mktemp("home"), port=0), HASTY) as gateway:
        add_silent_line(gateway)
        yield gateway


def parse(answer):
    """The headers and the JSON of an answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return BytesParser().parsebytes(head.partition(b"\r\n")[2]), json.loads(body)


def ask(gateway, sent):
    """The status, headers and JSON of the answer to bytes, after which the gateway closes."""
    with connected(gateway) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(sent)
        answer = read_all(connection)
    return status(answer), *parse(answer)


@pytest.mark.parametrize(
    ("sent", "code", "name"),
    [
        (b"", 408, "too_slow"),
        (POST + b"Content-Length: 1000\r\n\r\n{", 408, "too_slow"),
        (HEAD + b"X: " + b"x" * 10_000, 431, "headers_too_large"),
        (HEAD + MANY, 431, "headers_too_large"),
        (HEAD + b"Bad Header\r\n\r\n", 400, "invalid"),
    ],
)
def test_it_is_a_problem_with_an_id_that_the_log_has_too(gateway, hasty, sent, code, name):
    asked = hasty if code == 408 else gateway

    found, headers, problem = ask(asked, sent)

    detail = problem.pop("detail")
    assert (found, problem) == (
        code, {"type": f"urn:pigeonhole:{name}", "title": HTTPStatus(code).phrase, "status": code},
    )  # fmt: skip
    assert (headers["content-type"], headers["connection"]) == ("application/problem+json", "close")
    assert headers["cache-control"] == "no-store"
    line = f'"status": {code}, "id": "{headers["x-request-id"]}", "refused": "{detail}"'
    wait_until(lambda: line in asked.log, what="it is in the log")


def test_a_body_of_more_bytes_than_any_may_have_is_too_large(gateway):
    size = PATIENT.most_body_bytes + 1  # nothing more is on its way, which could reset the connection
    with connected(gateway) as connection:
        connection.sendall(POST + b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n")
        assert status(connection.recv(65536)) == 100
        connection.sendall((b"%x\r\n" % (2 * size) + b"x" * size)[:size])
        answer = read_all(connection)

    assert status(answer) == 413
    assert parse(answer)[1]["detail"] == "the body has more than 1048576 bytes"


@pytest.mark.parametrize(("sent", "code"), [(V2, 408), (V2 + MANY, 431), (V2 + b"Bad Header\r\n\r\n", 400)])
def test_below_v2_it_is_an_error_of_its_protocol(gateway, hasty, sent, code):
    found, headers, body = ask(hasty if code == 408 else gateway, sent)

    assert (found, headers["content-type"], list(body)) == (code, "application/json", ["error"])


@pytest.mark.parametrize("rest", [b"X: y\r\n", b"Content-Length: 1000\r\n\r\n{"])
def test_it_has_the_id_that_the_client_gave(hasty, rest):
    assert ask(hasty, POST + b"X-Request-Id: belt-7\r\n" + rest)[1]["x-request-id"] == "belt-7"


def test_it_has_nothing_of_the_request_before_on_the_connection(gateway):
    with connected(gateway) as connection:
        connection.sendall(V2 + b"X-Request-Id: first\r\n\r\n")
        first, _ = parse(read_answer(connection))
        connection.sendall(b"\xff\xff\r\n\r\n")
        second, problem = parse(read_all(connection))

    assert first["x-request-id"] == "first" != second["x-request-id"]
    assert problem["type"] == "urn:pigeonhole:invalid"


def test_a_connection_too_many_is_refused_with_a_time_to_come_again_where_none_is_idle(tmp_path):
    with served(make_context(tmp_path, port=0), replace(PATIENT, most_connections=2)) as gateway:
        with connected(gateway), connected(gateway):
            wait_until(lambda: len(gateway.server.server_state.connections) == 2, what="both are there")
            found, headers, problem = ask(gateway, b"")
        wait_until(lambda: not gateway.server.server_state.connections, what="they are gone")
        with connected(gateway) as later:
            later.sendall(HEAD + b"Connection: close\r\n\r\n")
            assert status(read_all(later)) == 200

    assert (found, problem["type"], problem["retry_after_ms"]) == (503, "urn:pigeonhole:overloaded", 1000)
    assert headers["retry-after"] == "1"
    assert headers["x-request-id"]
