"""An upgrade, worker by worker, with two versions that are really installed: does every job end, with equal bytes?

    python -m benchmarks.upgrade                    two minutes on 2 CPU cores

This checkout is installed a second time, under the version `NEXT`, into a folder of its own. Jobs begin with a worker
of this version; then the upgrade of docs/operations.md is done: a worker of the next version starts, the old one is
drained in the middle of a job, and the job that it leaves behind waits. One such job goes on with another worker of the
old version, another one after `jobs resume --new-version`. Every job must be done by workers of one version, but for
the one that was told otherwise, and every manifest must have the bytes of an undisturbed run. The last line is JSON and
is kept in `benchmarks/results/`. Exit code 1 if anything differs.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_run, keep
from orchestrator.contract.jobs.rows import summary_path
from orchestrator.contract.release import own_release
from tests.support.published_models import make_photographs, publish_model
from tests.support.server import running_server, wait_until
from tests.support.workers import WORKER_PATIENCE_S, Cluster, Worker

NEXT = "99.0.0"
NUM_IMAGES = 1000  # large photographs: some seconds for a worker
SHARD_SIZE = 8
ROOT = Path(__file__).resolve().parents[1]


def install_next(folder: Path) -> dict[str, str]:
    """Install this checkout under another version; returns the variables of processes that use it."""
    source = folder / "source"
    source.mkdir()
    for name in ("modeling", "orchestrator", "workers", "pigeonhole"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ("README.md", "LICENSE"):
        if (ROOT / path).exists():
            shutil.copy(ROOT / path, source / path)
    project, changed = re.subn(r'(?m)^version = ".*"', f'version = "{NEXT}"', (ROOT / "pyproject.toml").read_text())
    assert changed == 1, "pyproject.toml has one version"
    (source / "pyproject.toml").write_text(project)
    uv = shutil.which("uv") or str(Path(sys.executable).parent / "uv")
    options = ("--quiet", "--python", sys.executable, "--no-deps", "--no-build-isolation", "--target")
    subprocess.run([uv, "pip", "install", *options, str(folder / "next"), str(source)], check=True)
    return {"PYTHONPATH": str(folder / "next"), "PYTHONSAFEPATH": "1"}


class Upgrade:
    """A cluster that is upgraded, and what was wrong about it."""

    def __init__(self, cluster: Cluster, folder: Path, following: dict[str, str]) -> None:
        self.cluster, self.folder, self.following = cluster, folder, following
        self.problems: list[str] = []
        self.done_by: dict[str, list[str]] = {}  # of each job whose bytes are the undisturbed ones: the versions

    def submit(self, name: str) -> str:
        options = ("--model", "digits", "--shard-size", str(SHARD_SIZE), "-o", str(self.folder / f"{name}.csv"))
        return self.cluster.submit("classify", str(self.folder / "in"), *options)

    def status(self, job: str) -> Any:
        return json.loads(self.cluster.run_ok("status", job, "--json"))

    def drain(self, worker: Worker) -> None:
        """Drain a worker, which must end well."""
        self.cluster.run_ok("workers", "drain", worker.name)
        if (code := worker.process.wait(WORKER_PATIENCE_S)) != 0:
            self.problems.append(f"the drained worker ended with {code}")

    def left_behind(self, name: str, old: Worker) -> str:
        """A job that the old worker begins, and leaves to others in the middle."""
        job = self.submit(name)
        self.cluster.wait_for(job, 2 * SHARD_SIZE)
        self.drain(old)
        self.expect_waiting(job)
        return job

    def expect_waiting(self, job: str) -> None:
        """The worker of the next version leaves the job alone, and says so."""
        version = own_release().version

        def said() -> bool:
            return f"was begun by version {version}" in self.cluster.run_ok("workers", "list")

        wait_until(said, what="the new worker says that it leaves the job alone", timeout_s=WORKER_PATIENCE_S)
        facts = self.status(job)
        if (facts["state"], facts["version"]) != ("running", version):
            self.problems.append(f"job {job} is {facts['state']}, of version {facts['version']}")

    def end(self, name: str, job: str, *versions: str) -> None:
        """The job ends with the undisturbed bytes, done by workers of these versions."""
        outcome = self.cluster.outcome(job)
        output = self.folder / f"{name}.csv"
        if outcome.state != "succeeded":
            self.problems.append(f"{name}: {outcome.state}: {outcome.error}")
        elif output.read_bytes() != (self.folder / "undisturbed.csv").read_bytes():
            self.problems.append(f"{name}: another manifest")
        else:
            self.cluster.run_ok("results", "verify", str(output))
            self._check_versions(name, output, set(versions))

    def _check_versions(self, name: str, output: Path, versions: set[str]) -> None:
        """Only workers of these versions wrote rows."""
        of_log = {worker.name: worker.environment == self.following for worker in self.cluster.workers}
        own = own_release().version
        found = {NEXT if of_log[worker] else own for worker in json.loads(summary_path(output).read_bytes())["workers"]}
        self.done_by[name] = sorted(found)
        if found != versions:
            self.problems.append(f"{name}: rows by workers of {sorted(found)}, not of {sorted(versions)}")

    def run(self) -> None:
        """The upgrade of docs/operations.md."""
        own = own_release().version
        old = self.cluster.start_worker()
        self.end("undisturbed", self.submit("undisturbed"), own)
        self.cluster.start_worker(wait=True, **self.following)

        goes_on = self.left_behind("goes-on", old)
        new_job = self.submit("new")
        self.end("new", new_job, NEXT)
        old = self.cluster.start_worker()
        self.end("goes-on", goes_on, own)

        told = self.left_behind("told", old)
        self.cluster.run_ok("jobs", "resume", told, "--new-version", "--detach")
        self.end("told", told, own, NEXT)


def main() -> None:
    """Upgrade, and say what was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="file for the result instead of one in results/")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ph-upgrade-") as name, running_server() as server:
        folder = Path(name)
        publish_model(folder / "home" / "models", "digits")
        make_photographs(folder / "in", NUM_IMAGES)
        following = install_next(folder)
        cluster = Cluster(folder / "home", server)
        try:
            upgrade = Upgrade(cluster, folder, following)
            upgrade.run()
        finally:
            cluster.close()
    for problem in upgrade.problems:
        print(f"PROBLEM {problem}")
    found = {"next": NEXT, "done_by": upgrade.done_by, "problems": upgrade.problems}
    keep(describe_run("upgrade") | found, "upgrade", options.output)
    sys.exit(bool(upgrade.problems))


if __name__ == "__main__":
    main()
