"""The local stack: what `up` starts, what `down` stops, and how it recovers from what was killed."""

import contextlib
import json
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from orchestrator.contract.ledger.ledger import Ledger
from orchestrator.contract.server import connect
from orchestrator.contract.settings import Settings
from orchestrator.stack.process import Process
from orchestrator.stack.server import free_port
from orchestrator.stack.stack import Stack
from tests.support.published_models import make_photographs, make_pngs, publish_model
from tests.support.server import wait_until
from tests.support.workers import COMMAND, without_waiting

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600), pytest.mark.usefixtures("_server_program")]
NUM_LONG = 600  # photographs of a job that lasts for some seconds


@dataclass
class Home:
    """A home of an operator who has configured no server."""

    path: Path

    @property
    def settings(self) -> Settings:
        return Settings(home=self.path, server_url=None)

    @property
    def stack(self) -> Stack:
        return Stack(self.settings)

    @property
    def ledger(self) -> Ledger:
        return Ledger(connect(self.settings.require_server_url()))

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `pigeonhole ...` to its end; one `cpu` device, whatever the machine has."""
        full = os.environ | {"PIGEONHOLE_HOME": str(self.path), "CUDA_VISIBLE_DEVICES": ""} | environment
        done = subprocess.run([*COMMAND, *arguments], env=full, capture_output=True, text=True, timeout=300)
        done.stderr = without_waiting(done.stderr)
        return done

    def run_ok(self, *arguments: str) -> str:
        """Standard output of a command that must succeed."""
        done = self.run(*arguments)
        assert done.returncode == 0, f"{arguments}: exit {done.returncode}\n{done.stderr}\n{self.logs()}"
        return done.stdout

    def up(self) -> list[tuple[str, int]]:
        """Start the stack; names and pids of its processes."""
        return [(process["name"], process["pid"]) for process in json.loads(self.run_ok("up", "--json"))]

    def everyone(self) -> list[psutil.Process]:
        """Every living process that works for this home, by its environment or, a server, by where it stands."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                is_ours = process.environ().get("PIGEONHOLE_HOME") == str(self.path)
                if is_ours or process.cwd().startswith(f"{self.path}/"):
                    found.append(process)
        return found

    def logs(self) -> str:
        return "\n".join(path.read_text() for path in self.settings.stack.glob("*.log"))


def open_home(path: Path) -> Iterator[Home]:
    """A home with the model `digits`; nothing of it runs on afterwards, however the test ended."""
    publish_model(path / "models", "digits")
    home = Home(path)
    try:
        yield home
    finally:
        for process in home.everyone():  # at once: politeness takes seconds, and has a test of its own
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


@pytest.fixture
def home() -> Iterator[Home]:
    """A home whose path is short enough for a unix socket."""
    folder = Path(tempfile.mkdtemp(prefix="ph-", dir="/tmp"))
    yield from open_home(folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def standing_home() -> Iterator[Home]:
    """A home for tests that need a running stack: `up` starts what the test before them has stopped."""
    folder = Path(tempfile.mkdtemp(prefix="ph-", dir="/tmp"))
    yield from open_home(folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def far_home(tmp_path: Path) -> Iterator[Home]:
    """A home whose path is too long for a unix socket."""
    yield from open_home(tmp_path / ("far" * 40))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def logs_are_followed(folder: Path, worker: list[psutil.Process], gateway: int) -> None:
    """Rename the logs, as a process does that finds one too large: all of its writers go on in a new file."""
    writers = [process for process in worker if "semaphore_tracker" not in " ".join(process.cmdline())]
    pids = {process.pid: "worker-cpu.log" for process in writers} | {gateway: "gateway.log"}
    for name in set(pids.values()):
        (folder / name).rename(folder / f"{name}.1")

    def followed() -> bool:
        targets = {pid: Path(f"/proc/{pid}/fd/2").readlink() for pid in pids if psutil.pid_exists(pid)}
        return all(target == folder / pids[pid] for pid, target in targets.items())

    wait_until(followed, what="every process writes to the new log")
    assert "Ready to accept connections" in (folder / "server.log").read_text()


def test_up_starts_what_does_not_run_and_down_stops_exactly_that(home: Home):
    bystander = subprocess.Popen(["sleep", "600"], env=os.environ | {"BYSTANDER": str(home.path)})
    first = home.up()
    assert [name for name, _ in first] == ["server", "worker-cpu"]
    assert {pid for _, pid in first} <= {process.pid for process in home.everyone()}
    [worker] = home.ledger.live_workers.workers()
    assert (worker.device, worker.alive, worker.pid) == ("cpu", True, first[1][1])
    folder = home.settings.stack
    assert home.settings.find_server_url() == f"unix://{folder}/server.sock"
    assert [mode(folder / name) for name in (".", "url", "server.conf", "server.sock")] == [0o700, 0o600, 0o600, 0o700]

    assert home.up() == first

    gateway = ("up", "--json", "--gateway", f"127.0.0.1:{free_port()}")
    third = json.loads(home.run_ok(*gateway))[2]
    assert (third["name"], json.loads(home.run_ok(*gateway))[2]["pid"]) == ("gateway", third["pid"])
    assert "`pigeonhole down` first" in home.run("up", "--gateway", f"127.0.0.1:{free_port()}").stderr
    parent = psutil.Process(worker.pid)
    logs_are_followed(folder, [parent, *parent.children(recursive=True)], third["pid"])
    psutil.Process(third["pid"]).kill()

    psutil.Process(worker.pid).kill()
    wait_until(lambda: not psutil.pid_exists(worker.pid), what="the worker is gone")
    second = home.up()
    assert second[0] == first[0]
    assert second[1] != first[1]

    (folder / "url").unlink()  # as an `up` leaves it that was killed before it wrote that down
    assert home.up() == second
    assert home.settings.find_server_url() == f"unix://{folder}/server.sock"

    assert json.loads(home.run_ok("down", "--json")) == ["server", "worker-cpu"]
    assert home.everyone() == []
    assert home.settings.find_server_url() is None
    assert json.loads(home.run_ok("down", "--json")) == []
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


def test_no_second_server_is_started_on_the_data_of_one_that_lives(home: Home):
    first, folder = home.up(), home.settings.stack
    records = json.loads((folder / "processes.json").read_bytes())
    (folder / "processes.json").write_text(json.dumps([each | {"started": each["started"] + 3} for each in records]))

    assert home.up() == first  # the clock was set

    (folder / "processes.json").unlink()
    (folder / "url").unlink()
    assert home.up() == first  # the list is lost

    shutil.move(folder / "data", folder / "moved")
    refused = home.run("up")
    assert (refused.returncode, refused.stderr.count("\n")) == (69, 1)
    assert f"a server listens at unix://{folder}/server.sock without the lock of {folder}/data" in refused.stderr
    (folder / "data").rmdir()
    shutil.move(folder / "moved", folder / "data")

    assert json.loads(home.run_ok("down", "--json")) == ["server", "worker-cpu"]
    assert home.everyone() == []


def test_up_recovers_when_everything_was_killed(standing_home: Home, tmp_path: Path):
    make_pngs(tmp_path / "in", 3)
    first = standing_home.up()
    for process in standing_home.everyone():
        process.kill()
    wait_until(lambda: standing_home.everyone() == [], what="all are dead")
    assert (standing_home.settings.stack / "processes.json").exists()
    assert standing_home.settings.find_server_url() is not None
    told = standing_home.run("workers", "list")
    assert (told.returncode, told.stderr.count("\n")) == (69, 1)
    assert "`pigeonhole up`" in told.stderr

    second = standing_home.up()

    assert [name for name, _ in second] == ["server", "worker-cpu"]
    assert not {pid for _, pid in first} & {pid for _, pid in second}
    standing_home.run_ok("classify", str(tmp_path / "in"), "--model", "digits", "-o", str(tmp_path / "out.csv"))


def test_workers_and_gateway_go_on_with_the_server_that_takes_the_place_of_one_that_died(
    standing_home: Home, tmp_path: Path
):
    make_pngs(tmp_path / "in", 3)
    before = json.loads(standing_home.run_ok("up", "--json", "--gateway", f"127.0.0.1:{free_port()}"))
    server, *others = [(process["name"], process["pid"]) for process in before]
    psutil.Process(server[1]).kill()
    wait_until(lambda: not psutil.pid_exists(server[1]), what="the server is gone")

    standing_home.run_ok("classify", str(tmp_path / "in"), "--model", "digits", "-o", str(tmp_path / "out.csv"))

    after = standing_home.up()
    assert (after[0][0], after[0][1] != server[1]) == ("server", True)
    assert sorted(after[1:]) == sorted(others)
    assert sorted(json.loads(standing_home.run_ok("down", "--json"))) == ["gateway", "server", "worker-cpu"]


def test_a_server_of_another_pid_namespace_is_found_by_its_lock_and_stopped_through_its_socket(standing_home: Home):
    inside = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", *COMMAND]
    environment = os.environ | {"PIGEONHOLE_HOME": str(standing_home.path), "CUDA_VISIBLE_DEVICES": ""}
    if subprocess.run([*inside, "--version"], env=environment, capture_output=True).returncode:
        pytest.skip("this machine has no namespaces for its users")
    first = standing_home.up()

    again = subprocess.run([*inside, "up", "--json"], env=environment, capture_output=True, text=True)
    stopped = subprocess.run([*inside, "down"], env=environment, capture_output=True, text=True)

    assert [(process["name"], process["pid"]) for process in json.loads(again.stdout)] == first
    assert (stopped.returncode, without_waiting(stopped.stderr).count("\n")) == (69, 1)
    assert "cannot stop worker-cpu" in stopped.stderr
    wait_until(lambda: not psutil.pid_exists(first[0][1]), what="the system has reaped the server")
    assert json.loads(standing_home.run_ok("down", "--json")) == ["worker-cpu"]
    assert standing_home.everyone() == []


def test_a_home_too_far_down_for_a_socket_has_a_server_with_a_password_on_loopback(far_home: Home, tmp_path: Path):
    make_pngs(tmp_path / "in", 3)
    far_home.up()

    url = far_home.settings.require_server_url()
    password = url.removeprefix("redis://:").partition("@127.0.0.1:")[0]
    assert len(password) > 30
    with pytest.raises(Exception, match=r"Authentication required|NOAUTH|already authenticated"):
        connect(url.replace(f":{password}@", "")).ping()
    assert len(far_home.everyone()) >= 2
    assert not [process for process in far_home.everyone() if password in " ".join(process.cmdline())]
    folder = far_home.settings.stack
    assert [mode(folder / name) for name in (".", "url", "server.conf")] == [0o700, 0o600, 0o600]
    assert f"requirepass {password}" in (folder / "server.conf").read_text()
    assert password not in far_home.run_ok("doctor")
    far_home.run_ok("classify", str(tmp_path / "in"), "--model", "digits", "-o", str(tmp_path / "out.csv"))
    assert password not in far_home.logs()


def test_a_reused_pid_is_never_stopped(home: Home):
    bystander = subprocess.Popen(["sleep", "600"])
    home.settings.stack.mkdir(parents=True)
    started = psutil.Process(bystander.pid).create_time()
    log = str(home.path / "x.log")
    records = [Process("server", bystander.pid, started - 60, log), Process("worker-cpu", 1 << 22, started, log)]
    (home.settings.stack / "processes.json").write_text(json.dumps([vars(record) for record in records]))

    assert home.run("down").stderr == "no local stack runs\n"

    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


def test_a_server_that_was_starting_when_up_was_killed_is_known_to_down(home: Home, tmp_path: Path):
    program = tmp_path / "valkey-server"
    program.write_text("#!/bin/sh\nexec sleep 100\n")
    program.chmod(0o755)
    full = os.environ | {"PIGEONHOLE_HOME": str(home.path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    starting = subprocess.Popen([*COMMAND, "up", "--device", "cpu"], env=full)
    wait_until(lambda: home.stack.processes() != [], what="the server is started")

    starting.kill()
    starting.wait()

    assert json.loads(home.run_ok("down", "--json")) == ["server"]
    assert home.everyone() == []


def test_classify_starts_the_stack_and_the_job_outlives_down_and_up(home: Home, tmp_path: Path):
    make_photographs(tmp_path / "in", NUM_LONG)
    options = ("--model", "digits", "--shard-size", "8", "-o", str(tmp_path / "out.csv"))

    submitted = home.run("classify", str(tmp_path / "in"), *options, "--detach")

    said = "no server is configured: starting the local stack (`pigeonhole down` stops it)"
    assert submitted.returncode == 0, submitted.stderr
    assert submitted.stderr.splitlines()[0] == said
    job = submitted.stdout.strip()
    wait_until(lambda: record.num_done > 0 if (record := home.ledger.record(job)) else False, what="it is at work")
    home.run_ok("down")
    between = json.loads(home.run_ok("status", job, "--json"))
    assert (between["state"], between["num_images"]) == ("unknown", NUM_LONG)

    home.up()

    assert home.run("wait", job, "--timeout", "60").returncode == 0
    assert json.loads(home.run_ok("results", "verify", job, "--json"))["num_rows"] == NUM_LONG


def test_a_worker_that_cannot_start_is_reported_with_its_log(home: Home):
    done = home.run("up", PYTHONPATH=str(_broken_workers(home.path)))

    assert done.returncode == 69
    log = home.settings.stack / "worker-cpu.log"
    assert done.stderr == f"error: the local worker-cpu ended; its log: {log} (RuntimeError: broken on purpose)\n"
    assert [process for process in home.stack.processes() if process.name != "server" and process.find()] == []


def _broken_workers(folder: Path) -> Path:
    """A folder that stands before ours on the path, with a package `workers` that cannot be imported."""
    package = folder / "path" / "workers"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('broken on purpose')\n")
    return package.parent
