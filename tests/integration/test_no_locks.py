"""A home on a file system that gives no locks, such as NFS whose lock daemon is down."""

import os
from pathlib import Path

import pytest

from tests.support.published_models import make_pngs
from tests.support.pushes import make_line, registry_of
from tests.support.server import wait_until
from tests.support.workers import Cluster

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

# Run folders are on the machine's own disk, which has locks.
NO_LOCKS = """
import errno, fcntl, os
original = fcntl.flock
def flock(file, operation):
    descriptor = file if isinstance(file, int) else file.fileno()
    if "pigeonhole-run-" not in os.readlink(f"/proc/self/fd/{descriptor}"):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
    original(file, operation)
fcntl.flock = flock
"""


@pytest.fixture
def lockless_cluster(cluster: Cluster, tmp_path: Path) -> Cluster:
    """A cluster with a line, whose commands and workers get no locks."""
    make_line(cluster, "post")
    cluster.settings.jobs.mkdir(exist_ok=True)
    (tmp_path / "patch").mkdir()
    (tmp_path / "patch" / "sitecustomize.py").write_text(NO_LOCKS)
    root = str(Path(__file__).resolve().parents[2])
    cluster.environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path / "patch"), root])
    return cluster


@pytest.mark.parametrize(
    "arguments",
    [
        ("lines", "set", "post", "--fallback", "rest"),
        ("models", "alias", "digits", "prod"),
        ("jobs", "prune", "--older-than", "1d"),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_what_needs_a_lock_is_refused_and_changes_nothing(lockless_cluster: Cluster, arguments: tuple[str, ...]):
    before = registry_of(lockless_cluster).get("post")

    done = lockless_cluster.run(*arguments)

    assert done.returncode == 1
    assert "No locks available; the file system gives no locks; mount it with locks" in done.stderr
    assert registry_of(lockless_cluster).get("post") == before


def test_a_classify_job_ends_and_lines_come_back_to_an_emptied_server(lockless_cluster: Cluster, tmp_path: Path):
    lockless_cluster.start_worker()
    make_pngs(tmp_path / "in", 24)
    output = tmp_path / "out.csv"

    lockless_cluster.run_ok("classify", str(tmp_path / "in"), "--model", "digits", "-o", str(output))
    lockless_cluster.server.empty()

    assert len(output.read_text().splitlines()) == 25
    store = registry_of(lockless_cluster).store(registry_of(lockless_cluster).get("post"))
    wait_until(lambda: store.epoch() is not None, what="the line is back")
