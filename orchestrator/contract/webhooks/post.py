"""One POST of a webhook: to an address that was checked, in bounded time, and nothing of the answer but its status."""

import http.client
import io
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.contract.settings import Network
from orchestrator.contract.webhooks.target import Address, DeliveryError, WebhookTarget, resolve

POST_S = 10.0  # from connecting to the status of the answer
MOST_HEAD_BYTES = 64 << 10


class NoAnswerError(DeliveryError):
    """The receiver did not answer in time."""


def post(target: WebhookTarget, body: bytes, headers: Mapping[str, str], allowed: Sequence[Network]) -> None:
    """Send `body`. Raises DeliveryError unless the receiver answers with a status of 200 to 299."""
    addresses = resolve(target, allowed)
    deadline_s = time.monotonic() + POST_S
    try:
        status = _post(target, _connect(target, addresses, deadline_s), body, headers, deadline_s)
    except TimeoutError as err:
        raise NoAnswerError(f"webhook {target.shown}: no answer within {POST_S:g} s") from err
    except (OSError, http.client.HTTPException, ValueError) as err:
        raise DeliveryError(f"webhook {target.shown}: {_explain(err)}") from err
    if 300 <= status < 400:
        raise DeliveryError(f"webhook {target.shown}: HTTP {status}, and redirects are not followed: use its new URL")
    if not 200 <= status < 300:
        raise DeliveryError(f"webhook {target.shown}: HTTP {status}")


class BoundedSocket:
    """As much of a socket as http.client uses; everything ends at a deadline, and only so much is read."""

    def __init__(self, connected: socket.socket, deadline_s: float) -> None:
        self._socket = connected
        self._deadline_s = deadline_s
        self._left = MOST_HEAD_BYTES

    def sendall(self, data: bytes) -> None:
        self._limit_time()
        self._socket.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Received(self))

    def receive_into(self, buffer: Any) -> int:
        """Raises TimeoutError at the deadline, http.client.HTTPException where the answer's head is too long."""
        self._limit_time()
        num = self._socket.recv_into(buffer)
        self._left -= num
        if self._left < 0:
            raise http.client.LineTooLong("head of the answer")
        return num

    def close(self) -> None:
        self._socket.close()

    def _limit_time(self) -> None:
        left_s = self._deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        self._socket.settimeout(left_s)


class _Received(io.RawIOBase):
    def __init__(self, source: BoundedSocket) -> None:
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._source.receive_into(buffer)


def _connect(target: WebhookTarget, addresses: Sequence[Address], deadline_s: float) -> socket.socket:
    """Connected to the first address that accepts, encrypted where the URL says so."""
    failed: OSError = TimeoutError()
    for place, address in enumerate(addresses):
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            break
        try:
            connected = socket.create_connection((str(address), target.port), left_s / (len(addresses) - place))
        except OSError as err:
            failed = err
            continue
        return _encrypt(target, connected, deadline_s) if target.scheme == "https" else connected
    raise failed


def _encrypt(target: WebhookTarget, connected: socket.socket, deadline_s: float) -> socket.socket:
    try:
        connected.settimeout(max(0.001, deadline_s - time.monotonic()))
        return ssl.create_default_context().wrap_socket(connected, server_hostname=target.host)
    except BaseException:
        connected.close()
        raise


def _post(
    target: WebhookTarget, connected: socket.socket, body: bytes, headers: Mapping[str, str], deadline_s: float
) -> int:
    connection = http.client.HTTPConnection(target.host, target.port)
    bounded = BoundedSocket(connected, deadline_s)
    connection.sock = bounded  # so it never connects by itself
    try:
        connection.request("POST", target.path, body, {"Host": target.authority, "Connection": "close", **headers})
        return connection.getresponse().status
    finally:
        connection.close()
        bounded.close()


def _explain(err: Exception) -> str:
    if isinstance(err, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {err.verify_message}"
    if isinstance(err, ConnectionRefusedError):
        return "nobody listens there"
    if isinstance(err, ConnectionError):  # http.client.RemoteDisconnected is one
        return "the connection was cut"
    if isinstance(err, OSError):
        return err.strerror or type(err).__name__
    return f"its answer is not HTTP ({type(err).__name__})"
