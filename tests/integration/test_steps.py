"""Faults at named steps of a job, with a real worker: a few of those that `benchmarks.steps` tries all of."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.published_models import make_pngs
from tests.support.server import wait_until
from tests.support.steps.compare import differences, left_behind, published, unverified
from tests.support.steps.faults import Fault, Faults
from tests.support.workers import Cluster

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, bytes]]]:
    """A folder of images, and what a job publishes of it; filled by the first test."""
    folder = tmp_path_factory.mktemp("steps")
    make_pngs(folder / "in", 40)
    yield folder, {}
    shutil.rmtree(folder)


def classify(cluster: Cluster, folder: Path) -> tuple[str, Path]:
    out = folder / "out.csv"
    return cluster.submit("classify", str(folder / "in"), "--model", "digits", "-o", str(out), "--shard-size", "8"), out


@pytest.mark.parametrize(
    "fault",
    [
        Fault("shard.commit", "error", error="redis.exceptions.ConnectionError", times=2),
        Fault("shard.trailer", "error", error="ENOSPC"),
        Fault("shard.link", "freeze", before=False),
        Fault("shard.trailer", "kill", before=False),
    ],
    ids=str,
)
def test_a_fault_at_a_step_changes_nothing(
    fault: Fault,
    running_cluster: Cluster,
    session_faults: Faults,
    undisturbed: tuple[Path, dict[str, bytes]],
):
    folder, expected = undisturbed
    if not expected:
        job, out = classify(running_cluster, folder)
        assert running_cluster.outcome(job).state == "succeeded"
        expected |= published(out)
    for path in folder.glob("out*"):
        path.unlink()

    with session_faults.armed(fault) as struck:
        job, out = classify(running_cluster, folder)
        struck.wait()
        if fault.action == "freeze":
            struck.outlast(float(running_cluster.environment["PIGEONHOLE_LEASE_S"]))
        assert running_cluster.outcome(job).state == "succeeded"

    assert differences(expected, published(out)) == []
    assert unverified(running_cluster.settings, out) == []
    wait_until(lambda: not left_behind(running_cluster.settings, [job], folder), what="nothing is left behind")
