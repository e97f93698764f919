"""The benchmarks of duplicates and exports, on few images: they run, and find what they planted."""

import json

import pytest

from benchmarks import duplicates, exports


@pytest.fixture
def last_line(capsys, tmp_path, monkeypatch):
    """The result that a benchmark prints last."""

    def run(module, *arguments: str) -> dict:
        monkeypatch.setattr("sys.argv", [module.__name__, *arguments, "-o", str(tmp_path / "result.json")])
        module.main()
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    return run


def test_planted_duplicates_are_found(last_line, tmp_path):
    found = last_line(duplicates, "--images", "300", "--folder", str(tmp_path / "made"))

    assert (found["num_images"], found["num_exact_groups"], found["num_near_groups"]) == (300, 3, 3)
    assert found["anonymous_mb"] > 0


def test_exports_are_measured(last_line, monkeypatch):
    monkeypatch.setattr("benchmarks.exports.TARGETS", (("coco", "--where", "label=7"),))

    [run] = last_line(exports, "--rows", "100")["runs"]

    assert run["num_images"] == 10
    assert run["bytes"] > 0
