"""The local stack: a server, one worker for each device, and perhaps a gateway, in the background.

Its folder, `PIGEONHOLE_HOME/stack/HOST`, holds the server's socket and data, the logs, the URL (`url`) and the list of
processes (`processes.json`). Every process holds a lock (`locks.py`), the server that of its data: so `up` starts no
second server on the same data, and `down` stops exactly what `up` started, also if the list is lost or the clock is
set. What runs in another pid namespace cannot be seen: its lock and the server's answers tell that it is there.
"""

import contextlib
import fcntl
import json
import os
import secrets
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import redis

from modeling.durable import decode_json, replace_durably, validated
from modeling.errors import ModelFormatError
from modeling.names import path_to_text
from orchestrator.contract.errors import PigeonholeError, UnavailableError, UsageError
from orchestrator.contract.home import make_home
from orchestrator.contract.ledger.ledger import Ledger
from orchestrator.contract.log_file import LOG_ENVIRONMENT, SERVER_LOG, rotate
from orchestrator.contract.run_folder import remove_abandoned
from orchestrator.contract.server import connect
from orchestrator.contract.server_url import parse_url, redact
from orchestrator.contract.settings import Settings
from orchestrator.contract.shared_server import (
    SharedServer,
    forget_shared_server,
    read_shared_server,
    write_shared_server,
)
from orchestrator.stack.gateway import GATEWAY, StackGateway
from orchestrator.stack.listen import Listen, check_free
from orchestrator.stack.locks import find_holders, is_locked, take_lock, wait_until_free
from orchestrator.stack.process import (
    SAFE_PATH,
    Process,
    has_heartbeat,
    start_process,
    stop_processes,
    wait_until_ready,
)
from orchestrator.stack.server import (
    SOCKET,
    ask,
    check_place,
    choose_address,
    choose_shared_address,
    find_server_program,
    listens,
    server_config,
    url_of_config,
)

SERVER = "server"
SERVER_START_S = 20.0
WORKER_START_S = 60.0
WORKER_STOP_S = 25.0  # longer than a worker takes to hand back its shards
SERVER_STOP_S = 10.0
_POLL_S = 0.05
_MAY_PASS = (redis.ConnectionError, redis.TimeoutError)  # also while it loads its data


class Stack:
    """The local stack of one PIGEONHOLE_HOME on this machine."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.folder = settings.stack
        self._data = self.folder / "data"
        self._config = self.folder / "server.conf"
        self._found: set[str] = set()  # names of processes that only their locks tell of

    def up(
        self, devices: list[str], listen: Listen | None = None, gateway: StackGateway | None = None
    ) -> list[Process]:
        """Start the processes that do not run, and wait until they are ready; returns all processes.

        A device that is named twice gets two workers: `cpu`, for what one worker cannot show.
        listen: where other machines reach the server; None: nowhere, or, after a crash, where they did before.
        gateway: where one is to listen; None: none is started.

        Raises UnavailableError if the server or a worker does not start; names its log. Raises UsageError where
        another machine runs the server of this home, or `listen` cannot be had.
        """
        make_home(self._settings)
        check_place(self._settings, listen)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        self._data.mkdir(exist_ok=True)
        with self._locked():
            running = self._running()
            self._ensure_server(running, listen)
            for place, device in enumerate(devices):
                number = devices[:place].count(device)
                name = f"worker-{device.replace(':', '')}" + (f"-{number + 1}" if number else "")
                self._ensure(name, ["-m", "workers", "--device", device], running)
            self._record(running)
            self._wait_for_workers(running)
            if gateway is not None:
                self._ensure_gateway(gateway, running)
            return [*running.values(), *self._out_of_sight(running)]

    def down(self) -> list[Process]:
        """Stop the gateway and the workers, then the server; returns what was stopped.

        Raises UnavailableError if something runs where this process cannot stop it; everything else is stopped.
        """
        if not self.folder.exists():
            return []
        with self._locked():
            running = self._running()
            self._stop(list(running.values()))
            remove_abandoned()
            stopped = [*running.values(), *self._shut_server_down(running)]
            left = [name for name, lock in self._locks().items() if is_locked(lock)]
            if SERVER not in left:
                for name in ("url", SOCKET):
                    (self.folder / name).unlink(missing_ok=True)
                if self.shared() is not None:
                    forget_shared_server(self._settings.home)
            if left:
                raise UnavailableError(
                    f"cannot stop {' and '.join(left)} of {self.folder} from here: it was started in another pid "
                    "namespace, on another machine or by another user; run `pigeonhole down` there"
                )
            (self.folder / "processes.json").unlink(missing_ok=True)
        return stopped

    def shared(self) -> SharedServer | None:
        """The server of this stack as other machines find it in the home; None where it is for this machine alone."""
        return None if self._settings.shared_elsewhere() else read_shared_server(self._settings.home)

    def processes(self) -> list[Process]:
        """The processes that `up` recorded last, running or not."""
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
        with (self.folder / "lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    # What runs

    def _locks(self) -> dict[str, Path]:
        """The lock of each process that was ever started, by its name."""
        paths = sorted((*self.folder.glob("worker-*.lock"), *self.folder.glob(f"{GATEWAY}.lock")))
        return {SERVER: self._data} | {path.stem: path for path in paths}

    def _running(self) -> dict[str, Process]:
        """The processes that run and can be seen, by name: those recorded, and those that hold the locks."""
        running = {process.name: process for process in self.processes() if process.find()}
        self._found.clear()
        for name, lock in self._locks().items():
            if name not in running and is_locked(lock):
                found = [Process(name, pid, started, self._log(name)) for pid, started in find_holders(lock)]
                if found:  # a server may have a child that rewrites its file
                    running[name] = min(found, key=lambda process: process.started)
                    self._found.add(name)
        return running

    def _out_of_sight(self, running: dict[str, Process]) -> list[Process]:
        """The processes that hold their locks but cannot be seen: as recorded, else with the pid 0."""
        recorded = {process.name: process for process in self.processes()}
        names = [name for name, lock in self._locks().items() if name not in running and is_locked(lock)]
        return [recorded.get(name) or Process(name, 0, 0.0, self._log(name)) for name in names]

    def _log(self, name: str) -> str:
        return path_to_text(str(self.folder / f"{name}.log"))

    def _record(self, running: dict[str, Process]) -> None:
        """Write the list. What was found by its lock is left out: the clock by which it started may have been set."""
        processes = [*running.values(), *self._out_of_sight(running)]
        listed = [process for process in processes if process.pid and process.name not in self._found]
        data = json.dumps([asdict(process) for process in listed], indent=2)
        replace_durably(self.folder / "processes.json", data.encode(), mode=None)

    # Starting

    def _ensure_server(self, running: dict[str, Process], listen: Listen | None) -> None:
        """See that one server works on the data and answers; enter it into `running` if this process starts it.

        Raises UnavailableError where a server runs that does not answer, or that does not hold the lock.
        """
        lock = take_lock(self._data)
        try:
            if lock is None or SERVER in running:
                self._check_same_place(listen)
                self._wait_for_server(running)
                return
            if (url := self._url()) is not None and listens(url, self.folder):
                raise UnavailableError(
                    f"a server listens at {redact(url)} without the lock of {self._data}: an older version started it, "
                    "or that folder was replaced; stop that server, then run `pigeonhole up` again"
                )
            others = dict(running)
            running.clear()
            self._start_server(running, lock, listen)
            if self._url() == url:
                running.update(others)  # workers and the gateway wait for it there
            else:
                self._stop(list(others.values()))
                self._found.difference_update(others)
        finally:
            if lock is not None:
                os.close(lock)

    def _wait_for_server(self, running: dict[str, Process]) -> None:
        """Wait until the server that runs answers, and write its URL.

        Raises UnavailableError if it does not answer; it is left as it is.
        """
        url, deadline = self._url(), time.monotonic() + SERVER_START_S
        fault = ask(url) if url else "its address is lost"
        while url and isinstance(fault, _MAY_PASS) and time.monotonic() < deadline:
            time.sleep(_POLL_S)
            fault = ask(url)
        if url is None or fault is not None:
            cure = "`pigeonhole down` stops it" if SERVER in running else "stop it where it was started"
            raise UnavailableError(
                f"a server works on {self._data} but does not answer ({fault}); correct that, or {cure}; "
                f"its log: {self.folder / SERVER_LOG}"
            )
        replace_durably(self.folder / "url", url.encode(), mode=0o600)

    def _check_same_place(self, listen: Listen | None) -> None:
        """Raises UsageError where the server that runs listens elsewhere than asked for."""
        shared = self.shared()
        if listen is None or (shared and (shared.listen, shared.encrypted) == (listen.place, bool(listen.certificate))):
            return
        where = f"at {shared.listen}, {shared.traffic}" if shared else "for this machine alone"
        raise UsageError(f"the local stack runs already, and listens {where}; run `pigeonhole down` first")

    def _configure(self, listen: Listen | None) -> tuple[str, SharedServer | None]:
        """Write the configuration of a server; its URL for this machine, and what other machines are to know."""
        if listen is None:
            shared, before = self.shared(), self._url()
            if shared is not None and before is not None and self._config.exists():
                return before, shared  # it crashed: workers of other machines wait for it at the same place
            (url, address), shared = choose_address(self.folder), None
        else:
            check_free(listen)
            # The same password as before: workers of other machines may wait with it.
            password = (parse_url(before).password if (before := self._url()) else "") or secrets.token_urlsafe(32)
            url, for_others, address = choose_shared_address(self.folder, listen, password)
            shared = SharedServer(socket.gethostname(), listen.place, for_others)
        # It may hold the password: so it is no argument, and only its owner can read it.
        replace_durably(self._config, server_config(url, address, self._data, self.folder / SERVER_LOG), mode=0o600)
        return url, shared

    def _start_server(self, running: dict[str, Process], lock: int, listen: Listen | None) -> None:
        """Start a server that keeps its data and the lock, enter it into `running`, and write its URL."""
        url, shared = self._configure(listen)
        for name in ("url", SOCKET):
            (self.folder / name).unlink(missing_ok=True)
        process = running[SERVER] = self._start(SERVER, [find_server_program(), str(self._config)], lock)
        self._record(running)  # before the server answers, so that `down` knows it in any case
        client = connect(url)
        wait_until_ready(process, lambda: bool(client.ping()), SERVER_START_S, stop_s=SERVER_STOP_S)
        replace_durably(self.folder / "url", url.encode(), mode=0o600)
        if shared is None:
            forget_shared_server(self._settings.home)
        elif listen is not None:
            write_shared_server(
                self._settings.home, shared, listen.certificate.read_bytes() if listen.certificate else None
            )

    def _ensure(self, name: str, arguments: list[str], running: dict[str, Process]) -> None:
        """See that a worker, or the gateway, runs; enter it into `running` if it can be seen."""
        lock = None if name in running else take_lock(self.folder / f"{name}.lock")
        if lock is None:
            return
        try:
            running[name] = self._start(name, [sys.executable, *arguments], lock)
            self._record(running)
        finally:
            os.close(lock)

    def _ensure_gateway(self, gateway: StackGateway, running: dict[str, Process]) -> None:
        """Raises UsageError where it runs already, and elsewhere; UnavailableError where it does not answer."""
        started = GATEWAY not in running and not is_locked(self.folder / f"{GATEWAY}.lock")
        self._ensure(GATEWAY, gateway.arguments(), running)
        if started:
            gateway.wait(running[GATEWAY])
        elif not gateway.answers():
            raise UsageError(f"the gateway of this stack runs, but not at {gateway.url}: `pigeonhole down` first")

    def _wait_for_workers(self, running: dict[str, Process]) -> None:
        ledger = Ledger(connect((self.folder / "url").read_text(encoding="utf-8")))
        for process in running.values():
            if process.name not in (SERVER, GATEWAY):
                is_ready = partial(has_heartbeat, ledger, process.pid)
                wait_until_ready(process, is_ready, WORKER_START_S, stop_s=WORKER_STOP_S)

    def _start(self, name: str, command: list[str], lock: int) -> Process:
        """Start a process with this stack's home and server, whatever the environment or a settings file says."""
        environment = os.environ | {"PIGEONHOLE_HOME": str(self._settings.home), **SAFE_PATH}
        environment.pop("PIGEONHOLE_SERVER_URL", None)
        if name != SERVER:
            environment["PIGEONHOLE_SERVER_URL"] = (self.folder / "url").read_text(encoding="utf-8")
        log = self.folder / f"{name}.log"
        rotate(log)
        return start_process(name, command, log, environment | {LOG_ENVIRONMENT: str(log)}, lock=lock)

    def _url(self) -> str | None:
        """The URL of the server that runs, or ran last; None where none was ever started."""
        for path, read in ((self.folder / "url", str), (self._config, url_of_config)):
            with contextlib.suppress(FileNotFoundError):
                if url := read(path.read_text(encoding="utf-8", errors="surrogateescape")):
                    return url
        return None

    # Stopping

    def _stop(self, processes: list[Process]) -> None:
        """Stop the workers, then the server."""
        stop_processes([process for process in processes if process.name != SERVER], WORKER_STOP_S)
        stop_processes([process for process in processes if process.name == SERVER], SERVER_STOP_S)
        locks = self._locks()
        wait_until_free([locks[process.name] for process in processes if process.name in locks], SERVER_STOP_S)

    def _shut_server_down(self, running: dict[str, Process]) -> list[Process]:
        """Shut down a server that cannot be seen, through its socket; returns it if it has ended."""
        if not is_locked(self._data):
            return []
        if SERVER not in running and (url := self._url()) is not None:
            with contextlib.suppress(redis.RedisError):
                connect(url).shutdown()
        wait_until_free([self._data], SERVER_STOP_S)
        if SERVER in running or is_locked(self._data):
            return []
        recorded = [process for process in self.processes() if process.name == SERVER]
        return recorded or [Process(SERVER, 0, 0.0, self._log(SERVER))]
