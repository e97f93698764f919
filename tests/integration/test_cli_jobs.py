"""The commands around jobs, with a real server and a warm worker: refusals that leave nothing, and following."""

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.ledger.live_workers import PREFIX
from tests.support.published_models import make_pngs, make_slow_images
from tests.support.server import wait_until
from tests.support.workers import COMMAND, Cluster, enable_interrupts, without_waiting

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

LONG_ENOUGH = 15_000  # photographs: a minute and more of work, always cancelled
TABLE = r"([\d,]+)/15,000 images  \d+ images/s  0 failed  .* left"


def environment(cluster: Cluster) -> dict[str, str]:
    """Of a command in a cluster."""
    own = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    return own | {"PIGEONHOLE_HOME": str(cluster.home), "PIGEONHOLE_SERVER_URL": cluster.server.url}


def start(cluster: Cluster, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a command with pipes to it."""
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [*COMMAND, *arguments],
        env=environment(cluster),
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        preexec_fn=enable_interrupts,  # noqa: PLW1509 it sets one signal
    )


def footprint(cluster: Cluster, outbox: Path) -> tuple[object, ...]:
    """All that a submission could leave behind: jobs, names in the ledger, files at the output."""
    keys = {key for key in cluster.ledger.client.scan_iter() if ":job:" in key or "submission" in key}
    outputs = cluster.ledger.client.hgetall("{pigeonhole}:outputs")
    return cluster.jobs(), keys, outputs, cluster.ledger.active(), sorted(os.listdir(outbox))


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    """A folder for manifests."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images for a job that takes long."""
    folder = tmp_path_factory.mktemp("photographs") / "in"
    make_slow_images(folder, LONG_ENOUGH)
    return folder


@pytest.fixture(scope="class")
def running_job(
    session_cluster: Cluster, photographs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    """A job that is at work while all tests of a class look at it, and its output."""
    session_cluster.one_worker()
    output = tmp_path_factory.mktemp("out") / "slow.csv"
    options = ("--model", "digits", "--shard-size", "8", "-o", str(output))
    job = session_cluster.submit("classify", str(photographs), *options)
    session_cluster.wait_for(job, 1)
    yield job, output
    session_cluster.run("cancel", job)
    session_cluster.outcome(job)


@pytest.fixture(scope="module")
def quick_job(session_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A job of twenty images, two of them broken, that has ended; and its manifest."""
    session_cluster.one_worker()
    folder = tmp_path_factory.mktemp("quick")
    make_pngs(folder / "in", 18)
    for name, data in (("broken.png", b"rubbish"), ("empty.png", b"")):
        (folder / "in" / name).write_bytes(data)
    job = session_cluster.submit("classify", str(folder / "in"), "--model", "digits", "-o", str(folder / "quick.csv"))
    session_cluster.outcome(job)
    return job, folder / "quick.csv"


# Refusals


@pytest.mark.parametrize(
    ("source", "options", "code", "told"),
    [
        ("in", ["--model", "digit", "-o", "out/x.csv"], 4, "no model 'digit'; did you mean 'digits'?"),
        ("empty", ["-o", "out/x.csv"], 2, "'empty' holds no images; left out: 1 .txt, 1 hidden"),
        ("nowhere", ["-o", "out/x.csv"], 4, "there is no 'nowhere'"),
        ("in", ["-o", "missing/x.csv"], 2, "there is no folder"),
        ("in", ["-o", "out", "--format", "csv"], 2, "is a folder; name a file in it"),
        ("-", ["-o", "out/x.csv"], 2, "'-' holds no images"),
    ],
)
def test_an_invalid_command_prints_one_line_exits_with_a_code_and_leaves_nothing_behind(
    running_cluster: Cluster, tmp_path: Path, outbox: Path, source: str, options: list[str], code: int, told: str
):
    make_pngs(tmp_path / "in", 2)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".hidden.png").touch()
    (tmp_path / "empty" / "notes.txt").touch()
    before = footprint(running_cluster, outbox)

    model = [] if "--model" in options else ["--model", "digits"]
    done = running_cluster.run("classify", source, *model, *options, cwd=tmp_path, input=b"")

    assert done.returncode == code, done.stderr
    assert told in done.stderr
    assert (done.stderr.count("\n"), done.stdout) == (1, "")
    assert footprint(running_cluster, outbox) == before


def test_an_output_folder_that_cannot_be_written_to_is_refused(running_cluster: Cluster, tmp_path: Path, outbox: Path):
    make_pngs(tmp_path / "in", 2)
    before = footprint(running_cluster, outbox)
    outbox.chmod(0o500)
    refused = [*COMMAND, "classify", str(tmp_path / "in"), "--model", "digits", "-o", str(outbox / "x.csv")]
    command = [*WITHOUT_PRIVILEGES, *refused] if os.geteuid() == 0 else refused

    done = subprocess.run(command, env=environment(running_cluster), capture_output=True, text=True)

    outbox.chmod(0o700)
    assert done.returncode == 2, done.stderr
    said = without_waiting(done.stderr)
    assert said.startswith(f"error: no right to write to the folder of the output: {str(outbox)!r} belongs to ")
    assert said.count("\n") == 1
    assert footprint(running_cluster, outbox) == before


# Root may write anywhere by its capabilities; without these it is the owner, whom modes bind.
WITHOUT_PRIVILEGES = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]


class Terminal:
    """A command on a pseudo-terminal of so many columns."""

    def __init__(self, cluster: Cluster, columns: int, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            env=environment(cluster) | {"TERM": "xterm"},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=enable_interrupts,  # noqa: PLW1509 it sets one signal
        )
        os.close(slave)
        os.set_blocking(self._master, False)
        self._bytes = b""

    def read(self) -> str:
        """All that it has shown by now, without what colours and moves."""
        with contextlib.suppress(BlockingIOError, OSError):
            self._bytes += os.read(self._master, 1 << 20)
        text = self._bytes.decode(errors="ignore")  # the last character may not be whole yet
        return re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", text.replace("\x1b[1A", "\n")).replace("\r", "\n")

    def ends(self) -> int:
        """Its exit code; what it shows is read meanwhile."""
        wait_until(lambda: bool(self.read()) and self.process.poll() is not None, what="the command ends")
        self.read()
        os.close(self._master)
        return self.process.returncode


# A job that has ended


def test_status_shows_how_a_job_ended(running_cluster: Cluster, quick_job: tuple[str, Path]):
    job, manifest = quick_job

    record = json.loads(running_cluster.run_ok("status", job, "--json"))

    wanted = ("job", "kind", "state", "num_images", "num_done", "num_failed", "model", "output", "result")
    assert [record[name] for name in wanted] == [
        job, "classify", "partial", 20, 20, 2, "digits@1", str(manifest), str(manifest),
    ]  # fmt: skip


def test_watch_of_an_ended_job_prints_its_manifest(running_cluster: Cluster, quick_job: tuple[str, Path]):
    job, manifest = quick_job

    done = running_cluster.run("watch", job)

    assert (done.returncode, done.stdout) == (0, f"{manifest}\n")
    assert re.match(rf"job {job}: partial: 20 images, 2 failed, ", done.stderr)
    assert f"`pigeonhole results errors {job}`" in done.stderr


def test_results_are_shown_by_job_or_by_manifest(running_cluster: Cluster, quick_job: tuple[str, Path]):
    job, manifest = quick_job

    shown = json.loads(running_cluster.run_ok("results", "show", str(manifest), "--json", "--limit", "3"))
    failed = json.loads(running_cluster.run_ok("results", "errors", job, "--json"))

    assert [row["path"] for row in shown["rows"]] == [f"00000/0000000{number}.png" for number in range(3)]
    assert shown["summary"]["job"] == job
    assert failed["error_codes"] == {"empty": 1, "not_an_image": 1}
    assert [(row["path"], row["error_code"]) for row in failed["rows"]] == [
        ("broken.png", "not_an_image"),
        ("empty.png", "empty"),
    ]


# A job at work


class TestWhileAJobIsAtWork:
    """One slow job, which none of these ends."""

    def test_its_output_is_refused_to_another(
        self, running_cluster: Cluster, tmp_path: Path, running_job: tuple[str, Path]
    ):
        job, output = running_job
        make_pngs(tmp_path / "in", 2)
        before = running_cluster.jobs()

        done = running_cluster.run("classify", str(tmp_path / "in"), "--model", "digits", "-o", str(output))

        assert done.returncode == 2
        assert done.stderr.startswith(f"error: job {job} will write {output};")
        assert done.stderr.count("\n") == 1
        assert running_cluster.jobs() == before

    def test_the_workers_are_listed_with_what_they_do(self, running_cluster: Cluster, running_job: tuple[str, Path]):
        [worker] = json.loads(running_cluster.run_ok("workers", "list", "--json"))

        assert (worker["alive"], worker["device"]) == (True, "cpu")
        assert worker["queues"] == ["classify", "train", "finalize"]
        assert running_job[0] in worker["doing"]
        assert worker["pid"] == running_cluster.workers[0].process.pid

    def test_watch_says_plain_lines_where_there_is_no_terminal(
        self, running_cluster: Cluster, running_job: tuple[str, Path]
    ):
        job = running_job[0]

        done = running_cluster.run("watch", job, "--timeout", "0.2")

        assert (done.returncode, done.stdout) == (124, "")
        lines = done.stderr.splitlines()
        assert re.fullmatch(rf"{job}: running, \d+/{LONG_ENOUGH} images.*", lines[0])
        assert lines[-1] == f"job {job} has not ended within 200 ms; it continues"
        assert "\x1b" not in done.stderr

    def test_wait_gives_up_when_its_time_is_over(self, running_cluster: Cluster, running_job: tuple[str, Path]):
        job = running_job[0]

        done = running_cluster.run("wait", job, "--timeout", "0.5")

        assert done.returncode == 124
        assert done.stderr == f"job {job} is still running after 500 ms\n"

    def test_watch_on_a_terminal_is_a_live_table_and_an_interrupt_leaves_the_job_running(
        self, running_cluster: Cluster, running_job: tuple[str, Path]
    ):
        job = running_job[0]
        terminal = Terminal(running_cluster, 60, "watch", job)
        wait_until(lambda: len(set(re.findall(TABLE, terminal.read()))) > 1, what="the table moves")

        terminal.process.send_signal(signal.SIGINT)

        assert terminal.ends() == 130
        assert f"{job} running" in terminal.read()
        last = f"job {job} continues; `pigeonhole watch {job}` follows it, `pigeonhole cancel {job}` ends it"
        assert terminal.read().strip().splitlines()[-1] == last
        assert not running_cluster.record(job).ended

    @pytest.mark.parametrize("columns", [30, 200])
    def test_the_live_table_keeps_to_two_lines_however_wide_the_terminal_is(
        self, running_cluster: Cluster, running_job: tuple[str, Path], columns: int
    ):
        terminal = Terminal(running_cluster, columns, "watch", running_job[0], "--timeout", "3")

        assert terminal.ends() == 124
        before_the_end = terminal.read().partition("job ")[0]
        table = before_the_end[before_the_end.index(running_job[0]) :]  # a busy machine may say first that it waits
        lines = [line for line in table.splitlines() if line]
        assert len(lines) > 4
        assert max(map(len, lines)) <= columns
        assert [line for line in lines if not line.startswith((running_job[0], *"0123456789"))] == []


def test_a_cancelled_job_ends_without_a_manifest_and_with_the_worst_exit_code(
    running_cluster: Cluster, quick_job: tuple[str, Path], running_job: tuple[str, Path]
):
    job, output = running_job
    waiting = start(running_cluster, "wait", quick_job[0], job)

    done = running_cluster.run("cancel", job)

    assert (done.returncode, done.stderr) == (0, f"job {job} is being cancelled\n")
    out, err = waiting.communicate(timeout=60)
    assert (waiting.returncode, out, without_waiting(err.decode())) == (1, b"", "")
    outcome = running_cluster.outcome(job)
    assert (outcome.state, outcome.num_images, outcome.result) == ("cancelled", LONG_ENOUGH, None)
    assert os.listdir(output.parent) == []
    shown = running_cluster.run("results", "show", job)
    assert (shown.returncode, "has published no manifest: it is cancelled" in shown.stderr) == (4, True)
    again = running_cluster.run("cancel", job)
    assert (again.returncode, again.stderr) == (0, f"job {job} has ended already: cancelled\n")


def test_an_interrupt_while_listing_ends_the_job_with_a_message(running_cluster: Cluster, tmp_path: Path, outbox: Path):
    make_pngs(tmp_path / "in", 2)
    command = ("classify", "-", "--root", str(tmp_path / "in"), "--model", "digits", "-o", str(outbox / "x.csv"))
    names = b"00000/00000000.png\n" * 600
    before = set(running_cluster.jobs())
    listing = start(running_cluster, *command)
    assert listing.stdin is not None
    listing.stdin.write(names)
    listing.stdin.flush()
    wait_until(lambda: len(running_cluster.ledger.active()) == 1, what="the job is submitted")

    listing.send_signal(signal.SIGINT)
    err = listing.communicate(timeout=30)[1].decode()

    [job] = set(running_cluster.jobs()) - before
    assert listing.returncode == 130
    assert err.splitlines()[-1] == f"error: interrupted before all images were listed: job {job} ends; submit it again"
    assert "Traceback" not in err
    assert (running_cluster.outcome(job).state, running_cluster.outcome(job).error) == (
        "failed",
        "listing - ended early: it was interrupted",
    )
    assert os.listdir(outbox) == []


def test_doctor_finds_nothing_wrong_in_a_healthy_installation(running_cluster: Cluster):
    findings = {finding["name"]: finding for finding in json.loads(running_cluster.run_ok("doctor", "--json"))}

    assert [name for name, finding in findings.items() if not finding["ok"]] == []
    assert list(findings) == [
        "python",
        "machine",
        "settings",
        "torch",
        "heic",
        "home",
        "program",
        "server",
        "workers",
        "jobs",
        "models",
    ]
    assert findings["workers"]["found"] == "1 alive"
    assert findings["server"]["found"].endswith("append-only on, noeviction")


def test_a_forged_record_of_a_worker_is_named_by_doctor_and_hides_no_other(running_cluster: Cluster):
    client = redis.Redis.from_url(running_cluster.server.url)
    client.set(f"{PREFIX}:worker:forged", "\x1b[31mno record")
    client.zadd(f"{PREFIX}:workers", {"forged": time.time()})

    try:
        findings = {finding["name"]: finding for finding in json.loads(running_cluster.run_ok("doctor", "--json"))}
        listed = running_cluster.run("workers", "list")
    finally:
        client.zrem(f"{PREFIX}:workers", "forged")
        client.delete(f"{PREFIX}:worker:forged")

    assert findings["workers"]["found"] == "1 alive; left out, as their records cannot be read: forged"
    assert listed.returncode == 0
    assert "worker 'forged' is left out" in listed.stderr


# Nobody at work


def test_without_a_worker_a_job_is_refused_or_waits_and_a_cancel_ends_it_immediately(
    cluster: Cluster, tmp_path: Path, outbox: Path
):
    make_pngs(tmp_path / "in", 3)
    command = ("classify", str(tmp_path / "in"), "--model", "digits", "-o", str(outbox / "x.csv"))
    before = footprint(cluster, outbox)

    refused = cluster.run(*command)

    assert refused.returncode == 69
    assert refused.stderr == (
        "error: no worker listens to the queue 'classify'; start one with `pigeonhole worker`, "
        "or let the job wait for one with --detach\n"
    )
    assert footprint(cluster, outbox) == before
    job = cluster.submit(*command)
    assert (cluster.record(job).state, cluster.record(job).num_images) == ("queued", 3)

    cancelled = json.loads(cluster.run_ok("cancel", job, "--json"))

    assert cancelled == {"job": job, "state": "cancelled"}
    outcome = JobFolder.open(cluster.settings, job).outcome()
    assert outcome is not None
    assert (outcome.state, outcome.num_images) == ("cancelled", 3)
    assert cluster.ledger.active() == set()
    assert cluster.ledger.owner_of_output(str(outbox / "x.csv")) is None
    assert cluster.run("wait", job).returncode == 1
