"""A cluster for a test: a home, a server, real worker processes, and the `pigeonhole` command."""

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
from click.testing import CliRunner

from modeling.registry.store import ModelStore
from orchestrator.cli import main
from orchestrator.contract.jobs.job_folder import JobFolder, Outcome, all_jobs
from orchestrator.contract.ledger.ledger import Ledger
from orchestrator.contract.ledger.record import JobRecord
from orchestrator.contract.queues import ALL_QUEUES, queue_key
from orchestrator.contract.server import connect
from orchestrator.contract.settings import Settings, get_settings
from orchestrator.jobs.submit import JobClient
from tests.support.server import Server, wait_until

COMMAND = [sys.executable, "-m", "orchestrator"]
WORKER_PATIENCE_S = 300.0  # a worker imports torch, beside others that do
JOB_PATIENCE_S = 300.0


def without_waiting(stderr: str) -> str:
    """Without the lines that say what a command does meanwhile, which come where the machine is busy."""
    return re.sub(r"^.*, \d+ s\n", "", stderr, flags=re.MULTILINE)


@dataclass
class Worker:
    """A worker's parent process, its log, and what its environment has of its own."""

    process: subprocess.Popen[bytes]
    log: Path
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def alive(self) -> bool:
        """Whether its parent process has not ended."""
        return self.process.poll() is None

    @property
    def name(self) -> str:
        """Its name in the ledger; empty before it has logged that."""
        found = re.search(r"worker (\S+): device ", self.log.read_text())
        return found[1] if found else ""

    def ready(self) -> bool:
        """Whether its child has loaded torch and takes doorbells."""
        text = self.log.read_text()
        assert self.process.poll() is None, f"the worker ended:\n{text}"
        return " ready\n" in text and " ready." in text

    def pool_child(self) -> psutil.Process | None:
        """The child that computes; None before the first one, between two, and after the end."""
        try:
            children = psutil.Process(self.process.pid).children()
            return next((child for child in children if "spawn_main" in " ".join(child.cmdline())), None)
        except psutil.Error:
            return None

    def at_work(self) -> bool:
        """Whether it takes doorbells, and the child that it has now has loaded torch."""
        text, child = self.log.read_text(), self.pool_child()
        name = re.search(rf"(SpawnPoolWorker-\d+)\] child process {child.pid} ", text) if child else None
        return " ready." in text and name is not None and f" {name[1]} ready\n" in text

    def kill(self) -> None:
        """Kill the parent, as the kernel does when memory runs out."""
        self.process.kill()
        self.process.wait()

    def kill_group(self) -> None:
        """Kill it with its children, for tests that are over."""
        if self.alive:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def terminate(self) -> None:
        """Stop the worker, as an operator does."""
        self.process.send_signal(signal.SIGTERM)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """It and its children take no doorbells and say nothing, as long as the block lasts."""
        parent = psutil.Process(self.process.pid)
        processes = [parent, *parent.children(recursive=True)]
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in processes:
                process.resume()


@dataclass
class Cluster:
    """A home, its server and its workers."""

    home: Path
    server: Server
    environment: dict[str, str] = field(default_factory=dict)
    workers: list[Worker] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def settings(self) -> Settings:
        """The settings of the processes of this cluster."""
        return Settings(home=self.home, server_url=self.server.url)  # type: ignore[arg-type]  # parsed by pydantic

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger on its server."""
        return Ledger(connect(self.server.url))

    def run(
        self, *arguments: str, input: bytes | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `pigeonhole ...` to its end; its output keeps file names that are not UTF-8."""
        done = subprocess.run(
            [*COMMAND, *arguments], env=self._environment(), input=input, capture_output=True, timeout=300, cwd=cwd
        )
        out, err = (stream.decode("utf-8", "surrogateescape") for stream in (done.stdout, done.stderr))
        return subprocess.CompletedProcess(done.args, done.returncode, out, without_waiting(err))

    def run_ok(self, *arguments: str, **options: Any) -> str:
        """Standard output of a command that must succeed."""
        done = self.run(*arguments, **options)
        assert done.returncode == 0, f"{arguments}: exit {done.returncode}\n{done.stderr}\n{self.logs()}"
        return done.stdout

    def start(self, *arguments: str, stdin: int | None = None, log: Path | None = None) -> subprocess.Popen[bytes]:
        """Start `pigeonhole ...` without waiting for its end. log: what it says is added to it."""
        with (log or self.home.parent / "started.log").open("ab") as file:
            return subprocess.Popen(
                [*COMMAND, *arguments], env=self._environment(), stdin=stdin, stdout=file, stderr=file
            )

    def start_worker(self, *, wait: bool = True, **environment: str) -> Worker:
        """Start a worker, and wait until it is ready."""
        log = self.home.parent / f"worker-{next(self._numbers)}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*COMMAND, "worker", "--device", "cpu"],
                env=self._environment() | environment,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        worker = Worker(process, log, environment)
        self.workers.append(worker)
        if wait:
            wait_until(worker.ready, what="the worker is ready", timeout_s=WORKER_PATIENCE_S)
        return worker

    def one_worker(self, **environment: str) -> Worker:
        """The only living worker, ready, with this environment: an earlier test's if there is one, else a new one."""
        kept = [worker for worker in self.workers if worker.alive and worker.environment == environment][:1]
        self.dismiss(keep=kept)
        worker = kept[0] if kept else self.start_worker(wait=True, **environment)
        wait_until(worker.ready, what="the worker is ready", timeout_s=WORKER_PATIENCE_S)
        return worker

    def dismiss(self, *, keep: Sequence[Worker] = ()) -> None:
        """Kill all workers but these; the ledger forgets them, as it would in an hour."""
        self.close(keep=keep)
        self.workers = list(keep)
        live_workers, pids = self.ledger.live_workers, {worker.process.pid for worker in keep}
        for record in live_workers.workers():
            if record.pid not in pids:
                live_workers.remove(record.worker)

    def end_jobs(self, *, keep: set[str]) -> None:
        """Cancel the jobs that a test has left, but for those to `keep`, and wait for their ends."""
        ledger, left = self.ledger, self.ledger.active() - keep
        if not left:
            return
        living = [worker for worker in self.workers if worker.alive]
        self.dismiss(keep=living)
        client = JobClient(self.settings)
        for job in left:
            client.cancel(job)

        def ended() -> bool:
            for job in left & ledger.active() if not living else ():
                client.cancel(job)  # ends it as soon as the lease of a worker that was killed has run out
            return not left & ledger.active()

        wait_until(ended, what=f"jobs {left} end", timeout_s=JOB_PATIENCE_S)
        if not living:
            ledger.client.delete(*map(queue_key, ALL_QUEUES))

    def submit(self, *arguments: str) -> str:
        """Submit with --detach, in this process, since a new one imports for a second; returns the job.

        Not beside other threads: output and environment are the process's.
        """
        with patch.dict(os.environ, self._environment()):
            get_settings.cache_clear()
            done = CliRunner().invoke(main, [*arguments, "--detach"])
        get_settings.cache_clear()
        assert done.exit_code == 0, f"{arguments}: exit {done.exit_code}\n{done.output}\n{self.logs()}"
        return done.stdout.strip()

    def record(self, job: str) -> JobRecord:
        """The job's record in the ledger."""
        record = self.ledger.record(job)
        assert record is not None
        return record

    def outcome(self, job: str) -> Outcome:
        """Wait for a job's end."""
        folder = JobFolder.open(self.settings, job)
        wait_until(
            lambda: folder.outcome() is not None,
            what=f"job {job} ends\n{self.logs()}",
            timeout_s=JOB_PATIENCE_S,
        )
        outcome = folder.outcome()
        assert outcome is not None
        return outcome

    def wait_for(self, job: str, num_done: int) -> None:
        """Wait until `num_done` images of a job are done."""
        wait_until(
            lambda: self.record(job).num_done >= num_done, what=f"{num_done} images done", timeout_s=JOB_PATIENCE_S
        )

    def jobs(self) -> list[str]:
        """Ids of all jobs in the home."""
        return all_jobs(self.settings)

    def logs(self) -> str:
        """The end of the workers' logs, for a failing test."""
        return "\n".join(f"--- {worker.log.name}\n{worker.log.read_text()[-4000:]}" for worker in self.workers)

    def close(self, *, keep: Sequence[Worker] = ()) -> None:
        """Kill every worker but these."""
        for worker in self.workers:
            if worker not in keep:
                worker.kill_group()

    def _environment(self) -> dict[str, str]:
        return (
            os.environ
            | {"PIGEONHOLE_HOME": str(self.home), "PIGEONHOLE_SERVER_URL": self.server.url}
            | self.environment
        )


def enable_interrupts() -> None:
    """For a child before it starts: in a shell's background job, interrupts are ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def read_json(path: Path) -> Any:
    """A JSON file."""
    return json.loads(path.read_bytes())


def open_cluster(home: Path, server: Server, engines: Path, **environment: str) -> Iterator[Cluster]:
    """For fixtures: a cluster whose workers are ended at the end.

    engines: where its home remembers how fast engines are; measuring them takes a training half of its time.
    """
    ModelStore(home / "models").engines.symlink_to(engines)
    cluster = Cluster(home, server, environment)
    try:
        yield cluster
    finally:
        cluster.close()
