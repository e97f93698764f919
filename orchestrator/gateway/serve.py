"""The gateway's process: uvicorn with httptools and uvloop, limits on connections, and an end that nothing hangs."""

import asyncio
import contextlib
import ipaddress
import logging
import math
import resource
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn

from orchestrator.contract.addresses import is_loopback
from orchestrator.contract.errors import UsageError
from orchestrator.contract.log_file import keep_log_bounded
from orchestrator.gateway.app import create_app
from orchestrator.gateway.context import GatewayContext, GatewayOptions
from orchestrator.gateway.guard.connection import ConnectionLimits, GatewayProtocol, protocol_with
from orchestrator.gateway.guard.guard import Guard

KEEP_ALIVE_S = 75
BACKLOG = 2048
GIVE_UP_SHARE = 0.8  # of the time to stop: then what waits for answers of lines is answered: ask again
_HEADERS = [
    ("x-content-type-options", "nosniff"),
    ("cache-control", "no-store"),
    ("cross-origin-resource-policy", "same-origin"),
]


class GatewayServer(uvicorn.Server):
    """Looks at its connections twice a second, and tells open streams of its end."""

    def __init__(self, config: uvicorn.Config, context: GatewayContext, limits: ConnectionLimits) -> None:
        super().__init__(config)
        self._context = context
        self._limits = limits
        self._watching: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._context.lines.loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self._watching = asyncio.create_task(self._cut_off_slow())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._context.stopping.set()
        asyncio.get_running_loop().call_later(GIVE_UP_SHARE * self._limits.stop_s, self._context.waiters.give_up)
        await super().shutdown(sockets)
        if self._watching:
            self._watching.cancel()

    async def _cut_off_slow(self) -> None:
        while True:
            await asyncio.sleep(self._limits.check_s)
            now = time.monotonic()
            for connection in list(self.server_state.connections):
                if isinstance(connection, GatewayProtocol):
                    connection.cut_off_slow(now)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, but a process that was asked to end does so with code 0, and not by the signal."""
        if threading.current_thread() is not threading.main_thread():  # a test's
            yield
            return
        before = {number: signal.signal(number, self._end) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _end(self, number: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit and number == signal.SIGINT
        self.should_exit = True


def serve(context: GatewayContext, on_listening: Callable[[str], None]) -> None:
    """Serve until a signal comes. Raises UsageError for an address, files or tokens that cannot be used.

    on_listening: receives the URL.
    """
    limits = ConnectionLimits()
    options = context.options
    check_options(options)
    app = create_app(context)
    config = make_config(app, context, limits)
    keep_log_bounded()
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # what hostile clients send is in the access log
    with listening_socket(options) as listener:
        _allow_many_files()
        host = f"[{options.host}]" if ":" in options.host else options.host
        on_listening(f"http{'s' if options.certificate else ''}://{host}:{listener.getsockname()[1]}")
        GatewayServer(config, context, limits).run([listener])
    context.submitters.wait_until_listed(options.listing_grace_s)


def make_config(app: Guard, context: GatewayContext, limits: ConnectionLimits) -> uvicorn.Config:
    """uvicorn's configuration."""
    options = context.options
    return uvicorn.Config(
        app,
        http=protocol_with(limits, context.figures, app.log, app.ids),
        loop="uvloop",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # nobody may say that it is somebody else
        server_header=False,
        headers=_HEADERS,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=math.ceil(limits.stop_s),
        ssl_certfile=options.certificate,
        ssl_keyfile=options.key,
    )


def check_options(options: GatewayOptions) -> None:
    """Raises UsageError for options that do not go together, or files of TLS that cannot be used."""
    try:
        ipaddress.ip_address(options.host)
    except ValueError as err:
        raise UsageError(f"--host {options.host!r} is not an address, such as 127.0.0.1") from err
    if (options.certificate is None) != (options.key is None):
        raise UsageError("--tls-cert and --tls-key belong together: name both, or none")
    if not is_loopback(options.host) and options.token_file is None:
        raise UsageError(
            f"--host {options.host} lets other machines in: name a --token-file (lines `ROLE TOKEN`, mode 600)"
        )
    if options.certificate is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(options.certificate, options.key)
        except (OSError, ssl.SSLError) as err:
            raise UsageError(f"--tls-cert {options.certificate} and --tls-key cannot be used: {err}") from err


@contextlib.contextmanager
def listening_socket(options: GatewayOptions) -> Iterator[socket.socket]:
    """A socket at the gateway's address. Raises UsageError where it cannot be had."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((options.host, options.port))
            listener.listen(BACKLOG)  # before the message says so: its reader may connect
        except OSError as err:
            raise UsageError(f"cannot listen at {options.host} port {options.port}: {err.strerror or err}") from err
        yield listener


def _allow_many_files() -> None:
    """Each connection is an open file."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
