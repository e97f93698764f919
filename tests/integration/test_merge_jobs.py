"""Incremental runs and retries by the command line, with a real worker."""

import json
from pathlib import Path

import pytest

from orchestrator.contract.jobs.history import read_history
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.rows import FORMATS, summary_path
from tests.support.published_models import make_pngs
from tests.support.workers import Cluster

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def rows(manifest: Path) -> dict[str, object]:
    return {row.path: row for row in FORMATS["csv"].read(manifest)}


def test_a_manifest_follows_its_folder_by_retries_and_incremental_runs(running_cluster: Cluster, tmp_path: Path):
    source, out = tmp_path / "in", tmp_path / "out.csv"
    make_pngs(source, 30)
    good = (source / "00000" / "00000003.png").read_bytes()
    (source / "bad.png").write_bytes(b"bad")
    (source / "worse.png").write_bytes(b"worse")
    options = ("classify", str(source), "--model", "digits", "-o", str(out))
    first = json.loads(running_cluster.run_ok(*options, "--json"))["job"]
    before = rows(out)

    (source / "bad.png").write_bytes(good)
    second = json.loads(running_cluster.run_ok("jobs", "retry", first, "--json"))["job"]

    after = rows(out)
    assert after["bad.png"].prediction.ok
    assert {path: row for path, row in after.items() if path != "bad.png"} == {
        path: row for path, row in before.items() if path != "bad.png"
    }
    assert rows(Path(f"{out}.1")) == before
    attempts = json.loads(summary_path(out).read_text())["attempts"]
    assert [(each["job"], each["num_rows"]) for each in attempts] == [(first, 30), (second, 2)]
    history = read_history(JobFolder.open(running_cluster.settings, first))
    assert [event.facts["job"] for event in history if event.event == "retried"] == [second]

    done = running_cluster.run(*options, "--since", str(out))  # nothing is new: there is no shard to classify

    assert done.returncode == 0, done.stderr
    assert "0 images" in done.stderr
    assert "32 rows taken over" in done.stderr
    assert rows(out) == after

    (source / "worse.png").unlink()
    (source / "new.png").write_bytes(good)
    done = running_cluster.run(*options, "--since", str(out))

    assert done.returncode == 0, done.stderr
    assert "31 rows taken over; 1 row left out, whose image is gone" in done.stderr
    assert set(rows(out)) == (set(after) - {"worse.png"}) | {"new.png"}
    for name in ("out.csv", "out.csv.1", "out.csv.2", "out.csv.3"):
        assert running_cluster.run("results", "verify", str(tmp_path / name)).returncode == 0
    running_cluster.run_ok("results", "verify", first)


def test_the_list_of_an_incremental_run_may_come_from_standard_input(running_cluster: Cluster, tmp_path: Path):
    make_pngs(tmp_path / "in", 10)
    options = ("classify", "-", "--root", str(tmp_path / "in"), "--model", "digits")
    names = [f"00000/{number:08d}.png" for number in range(10)]
    running_cluster.run_ok(*options, "-o", str(tmp_path / "a.csv"), input="\n".join(names[:8]).encode())

    given = [*reversed(names), "gone\u00e9.png"]
    done = running_cluster.run(
        *options,
        "-o",
        str(tmp_path / "b.csv"),
        "--since",
        str(tmp_path / "a.csv"),
        input="\0".join(given).encode() + b"\0",
    )

    assert "3 images" in done.stderr
    assert list(rows(tmp_path / "b.csv")) == given
    assert {name: rows(tmp_path / "b.csv")[name] for name in names[:8]} == rows(tmp_path / "a.csv")
    running_cluster.run_ok("results", "verify", str(tmp_path / "b.csv"))
