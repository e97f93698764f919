"""`jobs resume` and `--max-failures` by the commands, with a real server and a warm worker."""

import json
from pathlib import Path

import pytest

from orchestrator.contract.jobs.job_folder import JobFolder
from tests.support.published_models import make_pngs
from tests.support.workers import Cluster

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def test_a_cancelled_job_is_resumed_and_its_manifest_is_that_of_an_undisturbed_run(
    running_cluster: Cluster, tmp_path: Path
):
    make_pngs(tmp_path / "in", 1500)
    options = ("--model", "digits", "--shard-size", "16")
    undisturbed = running_cluster.submit("classify", str(tmp_path / "in"), *options, "-o", str(tmp_path / "whole.csv"))
    running_cluster.outcome(undisturbed)
    job = running_cluster.submit("classify", str(tmp_path / "in"), *options, "-o", str(tmp_path / "out.csv"))
    running_cluster.wait_for(job, 100)
    with running_cluster.one_worker().frozen():  # else it may be done before the command has started
        running_cluster.run_ok("cancel", job)
    done = running_cluster.outcome(job).num_done

    resumed = running_cluster.run("jobs", "resume", job)

    assert (resumed.returncode, resumed.stdout) == (0, f"{tmp_path / 'out.csv'}\n"), resumed.stderr
    assert f"job {job}: resumed; {done:,} of 1,500 images are done, {1500 - done:,} are missing, in " in resumed.stderr
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    shown = json.loads(running_cluster.run_ok("jobs", "show", job, "--json"))
    assert [run["outcome"]["state"] for run in shown["runs"]] == ["cancelled", "succeeded"]
    assert sum(worker["num_rows"] for worker in shown["workers"]) == shown["summary"]["counts"]["num_images"] == 1500
    assert running_cluster.run("jobs", "resume", job).returncode == 1


def test_too_many_failures_exit_with_3_and_another_limit_goes_on(running_cluster: Cluster, tmp_path: Path):
    make_pngs(tmp_path / "in", 20)
    for number in range(3):
        (tmp_path / "in" / f"a{number}.png").write_bytes(b"no image")
    output = tmp_path / "out.jsonl"
    stopped = running_cluster.run(
        "classify", str(tmp_path / "in"), "--model", "digits", "-o", str(output), "--max-failures", "1", "--json"
    )
    job = json.loads(stopped.stdout)["job"]

    verified = running_cluster.run("results", "verify", f"{output}.incomplete")
    resumed = running_cluster.run("jobs", "resume", job, "--max-failures", "100%")

    assert (stopped.returncode, verified.returncode, resumed.returncode) == (3, 1, 0)
    assert f"what was found so far is in {output}.incomplete" in stopped.stderr
    assert "incomplete: " in verified.stderr
    assert JobFolder.open(running_cluster.settings, job).outcome().num_failed == 3  # type: ignore[union-attr]
    assert sorted(path.name for path in tmp_path.glob("out*")) == [
        "out.jsonl", "out.jsonl.sources", "out.jsonl.summary.json",
    ]  # fmt: skip
