"""`pigeonhole predict` answers as a worker's job answered, to the byte."""

import json

import pytest

from tests.support.published_models import make_pngs
from tests.support.workers import Cluster

pytestmark = pytest.mark.integration


def test_rows_of_predict_are_those_of_a_job_on_the_engine_that_the_worker_measured(shared_cluster: Cluster, tmp_path):
    shared_cluster.one_worker()
    make_pngs(tmp_path / "images", 7)
    paths = sorted((tmp_path / "images").rglob("*.png"))
    paths[3].write_bytes(b"no image")
    listed, manifest = tmp_path / "list.txt", tmp_path / "rows.jsonl"
    listed.write_text("".join(f"{path}\n" for path in paths))

    shared_cluster.run_ok("classify", str(listed), "--root", "/", "--model", "digits", "-o", str(manifest))
    predicted = shared_cluster.run("predict", *map(str, paths), "--model", "digits", "--json")

    assert (predicted.returncode, "no engine" in predicted.stderr) == (0, False)
    assert _but_for_paths(predicted.stdout) == _but_for_paths(manifest.read_text())


def _but_for_paths(lines: str) -> list[str]:
    return [json.dumps(json.loads(line) | {"path": ""}) for line in lines.splitlines()]
