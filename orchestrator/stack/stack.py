"""The local stack: a server and one worker for each device, in the background, for a machine without a server.

Its folder, `PIGEONHOLE_HOME/stack`, holds the server's socket and data, the logs, the URL (`url`) and the list of
processes (`processes.json`). `down` stops exactly those processes, identified by pid and start time.
"""

import contextlib
import fcntl
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial

from modeling.durable import decode_json, replace_durably, validated
from modeling.errors import ModelFormatError
from orchestrator.contract.errors import PigeonholeError
from orchestrator.contract.ledger.ledger import Ledger
from orchestrator.contract.server import connect
from orchestrator.contract.settings import Settings
from orchestrator.stack.process import SAFE_PATH, Process, start_process, stop_processes, wait_until_ready
from orchestrator.stack.server import choose_address, find_server_program, server_config

SERVER_START_S = 20.0
WORKER_START_S = 60.0
WORKER_STOP_S = 25.0  # longer than a worker takes to hand back its shards
SERVER_STOP_S = 10.0


class Stack:
    """The local stack of one PIGEONHOLE_HOME."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.folder = settings.stack

    def up(self, devices: list[str]) -> list[Process]:
        """Start the processes that do not run, and wait until they are ready; returns all processes.

        Raises UnavailableError if the server or a worker does not start; names its log.
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
                    running[name] = self._start(name, [sys.executable, "-m", "workers", "--device", device])
                    self._record(running)
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
        """The processes that `up` started last, running or not."""
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

    def _record(self, running: dict[str, Process]) -> None:
        data = json.dumps([asdict(process) for process in running.values()], indent=2)
        replace_durably(self.folder / "processes.json", data.encode(), mode=None)

    def _url(self) -> str | None:
        """The URL of this stack's server; None while it has none."""
        path = self.folder / "url"
        return path.read_text(encoding="utf-8") if path.exists() else None

    def _start_server(self, running: dict[str, Process]) -> None:
        """Start a server that keeps its data, enter it into `running`, and write its URL."""
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        (self.folder / "url").unlink(missing_ok=True)
        url, address = choose_address(self.folder)
        config_path = self.folder / "server.conf"
        # It may hold the password: so it is no argument, and only its owner can read it.
        replace_durably(config_path, server_config(address, data), mode=0o600)
        process = running["server"] = self._start("server", [find_server_program(), str(config_path)])
        self._record(running)  # before the server answers: two servers would destroy the data that they share
        client = connect(url)
        wait_until_ready(process, lambda: bool(client.ping()), SERVER_START_S, stop_s=SERVER_STOP_S)
        replace_durably(self.folder / "url", url.encode(), mode=0o600)

    def _wait_for_workers(self, running: dict[str, Process]) -> None:
        ledger = Ledger(connect((self.folder / "url").read_text(encoding="utf-8")))
        for process in running.values():
            if process.name != "server":
                is_ready = partial(_has_heartbeat, ledger, process.pid)
                wait_until_ready(process, is_ready, WORKER_START_S, stop_s=WORKER_STOP_S)

    def _start(self, name: str, command: list[str]) -> Process:
        """Start a process with this stack's home and server, whatever the environment or a pigeonhole.toml says."""
        environment = os.environ | {"PIGEONHOLE_HOME": str(self._settings.home), **SAFE_PATH}
        environment.pop("PIGEONHOLE_SERVER_URL", None)
        if (url := self._url()) is not None:
            environment["PIGEONHOLE_SERVER_URL"] = url
        return start_process(name, command, self.folder / f"{name}.log", environment)

    def _stop(self, processes: list[Process]) -> None:
        """Stop the workers, then the server."""
        stop_processes([process for process in processes if process.name != "server"], WORKER_STOP_S)
        stop_processes([process for process in processes if process.name == "server"], SERVER_STOP_S)


def _has_heartbeat(ledger: Ledger, pid: int) -> bool:
    return any(worker.pid == pid and worker.alive for worker in ledger.live_workers.workers())
