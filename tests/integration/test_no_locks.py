"""A home on a file system that gives no locks, such as NFS whose lock daemon is down."""

import os
from pathlib import Path

import pytest

from tests.support.published_models import make_pngs, make_shapes
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


def test_sorting_is_refused_and_moves_nothing(lockless_cluster: Cluster, tmp_path: Path):
    lockless_cluster.start_worker()
    make_pngs(tmp_path / "in", 8)
    lockless_cluster.run_ok("classify", str(tmp_path / "in"), "--model", "digits", "-o", str(tmp_path / "out.csv"))

    done = lockless_cluster.run(
        "results", "sort", str(tmp_path / "out.csv"), str(tmp_path / "sorted"), "--by", "label", "--move"
    )

    assert done.returncode == 2  # it has not begun
    assert "No locks available; the file system gives no locks; mount it with locks" in done.stderr
    assert len(list((tmp_path / "in").rglob("*.png"))) == 8


def test_the_model_of_a_training_is_not_published_and_the_job_says_why(lockless_cluster: Cluster, tmp_path: Path):
    lockless_cluster.start_worker()
    make_shapes(tmp_path / "shapes")

    job = lockless_cluster.submit(
        "train", str(tmp_path / "shapes"), "--name", "shapes", "--arch", "mlp", "--epochs", "1"
    )
    outcome = lockless_cluster.outcome(job)

    assert outcome.state == "failed"
    assert "No locks available" in (outcome.error or "")
    assert not list(lockless_cluster.settings.models.glob("shapes/*/model.safetensors"))


def test_up_starts_nothing(lockless_cluster: Cluster):
    lockless_cluster.environment["PIGEONHOLE_SERVER_URL"] = ""  # `up` starts a server of its own

    done = lockless_cluster.run("up", "--device", "cpu")

    assert done.returncode == 1
    assert "No locks available; the file system gives no locks; mount it with locks" in done.stderr


def test_a_classify_job_ends_and_lines_come_back_to_an_emptied_server(lockless_cluster: Cluster, tmp_path: Path):
    lockless_cluster.start_worker()
    make_pngs(tmp_path / "in", 24)
    output = tmp_path / "out.csv"

    lockless_cluster.run_ok("classify", str(tmp_path / "in"), "--model", "digits", "-o", str(output))
    lockless_cluster.server.empty()

    assert len(output.read_text().splitlines()) == 25
    store = registry_of(lockless_cluster).store(registry_of(lockless_cluster).get("post"))
    wait_until(lambda: store.epoch() is not None, what="the line is back")
