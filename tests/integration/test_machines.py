"""Two machines with one home: each a network namespace with a host name of its own, with a cable between them."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from orchestrator.contract.shared_server import read_shared_server
from tests.support.published_models import make_pngs, publish_model
from tests.support.server import wait_until
from tests.support.workers import COMMAND, without_waiting

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600), pytest.mark.usefixtures("_server_program")]

_HOLDER = 'hostname "$0" && ip link set lo up && echo ready && read wait'
_CABLE = "ip link add eth0 type veth peer name eth0 netns {peer}"


@dataclass(frozen=True)
class Machine:
    """A machine, which lives as long as its holder."""

    holder: "subprocess.Popen[str]"
    home: Path

    def command(self, *arguments: str) -> list[str]:
        return ["nsenter", "-t", str(self.holder.pid), "--net", "--uts", *arguments]

    def plug_in(self, address: str) -> None:
        for line in (f"ip address add {address}/24 dev eth0", "ip link set eth0 up"):
            subprocess.run(self.command(*line.split()), check=True)

    def environment(self) -> dict[str, str]:
        return os.environ | {"PIGEONHOLE_HOME": str(self.home), "CUDA_VISIBLE_DEVICES": ""}

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run `pigeonhole ...` there to its end."""
        command = self.command(*COMMAND, *arguments)
        done = subprocess.run(command, env=self.environment(), capture_output=True, text=True, timeout=300)
        done.stderr = without_waiting(done.stderr)
        return done

    def run_ok(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done

    def start_worker(self, log: Path) -> "subprocess.Popen[bytes]":
        with log.open("wb") as file:
            command = self.command(*COMMAND, "worker", "--device", "cpu")
            return subprocess.Popen(command, env=self.environment(), stdout=file, stderr=file)


@pytest.fixture
def home() -> Iterator[Path]:
    """A closed home with the model `digits`, whose path is short enough for a socket."""
    folder = Path(tempfile.mkdtemp(prefix="ph-", dir="/tmp"))
    publish_model(folder / "models", "digits")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def machines(home: Path) -> Iterator[tuple[Machine, Machine]]:
    """10.77.0.1 and 10.77.0.2; nothing runs on in them afterwards."""
    needed = ("ip", "unshare", "nsenter", "hostname")
    if missing := [program for program in needed if shutil.which(program) is None]:
        pytest.skip(f"two machines need {', '.join(missing)}")
    if os.geteuid() != 0 or subprocess.run(["unshare", "--net", "--uts", "true"], capture_output=True).returncode:
        pytest.skip("only root may make two machines of network namespaces, and not in every container")
    with ExitStack() as stack:
        both = [stack.enter_context(_machine(home, name)) for name in ("one", "two")]
        one, two = both
        if subprocess.run(one.command(*_CABLE.format(peer=two.holder.pid).split()), capture_output=True).returncode:
            pytest.skip("this kernel has no cables between namespaces (veth)")
        one.plug_in("10.77.0.1")
        two.plug_in("10.77.0.2")
        yield one, two


@contextmanager
def _machine(home: Path, name: str) -> Iterator[Machine]:
    """A namespace, in which nothing runs on after the block."""
    command = ["unshare", "--net", "--uts", "sh", "-c", _HOLDER, name]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "ready\n"
    try:
        yield Machine(holder, home)
    finally:
        place = _network_of(holder.pid)
        for process in psutil.process_iter():
            if process.pid != holder.pid and _network_of(process.pid) == place:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        holder.communicate("")


def content(path: Path) -> bytes:
    """Of a file; empty where it is a folder or a socket, or is gone since it was listed."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _network_of(pid: int) -> Path | None:
    try:
        return Path(f"/proc/{pid}/ns/net").readlink()
    except OSError:  # it has ended
        return None


def test_a_worker_of_another_machine_finds_server_and_password_in_the_home(
    machines: tuple[Machine, Machine], home: Path, tmp_path: Path
):
    one, two = machines
    make_pngs(tmp_path / "in", 12)
    up = one.run_ok("up", "--listen", "10.77.0.1", "--device", "cpu", "--json")
    shared = read_shared_server(home)
    assert shared is not None
    assert (shared.host, shared.listen) == ("one", "10.77.0.1:6379")
    password = shared.url.removeprefix("redis://:").removesuffix("@10.77.0.1:6379/0")
    assert len(password) > 30
    assert f"PIGEONHOLE_HOME={home} pigeonhole worker" in up.stderr
    assert "not encrypted" in up.stderr
    refused = two.run("up")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "the server of this home runs on one (10.77.0.1:6379): start `pigeonhole worker` here" in refused.stderr

    worker = two.start_worker(tmp_path / "worker.log")
    wait_until(lambda: " ready\n" in (tmp_path / "worker.log").read_text(), what="it has imported torch")
    wait_until(lambda: '"host": "two"' in two.run_ok("workers", "list", "--json").stdout, what="its worker is known")
    [other] = [process["pid"] for process in json.loads(up.stdout) if process["name"] == "worker-cpu"]
    psutil.Process(other).kill()  # so that only the second machine can do the job
    out = tmp_path / "out.csv"
    two.run_ok("classify", str(tmp_path / "in"), "--model", "digits", "--shard-size", "4", "-o", str(out))

    assert len(out.read_text().splitlines()) == 13
    assert "run by one for all machines at 10.77.0.1:6379" in one.run("doctor").stdout
    commands = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    assert not [command for command in commands if password in command]
    texts = [content(path) for folder in (tmp_path, home) for path in folder.rglob("*")]
    assert sum(password.encode() in text for text in texts) == 3  # server.json, and server.conf and url of the stack
    worker.terminate()
    assert worker.wait(60) == 0
    one.run_ok("down")
    assert read_shared_server(home) is None
