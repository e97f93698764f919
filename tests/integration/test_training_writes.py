"""The short form of `benchmarks.training_writes`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


def test_a_training_killed_before_a_write_and_made_again_ends_with_the_same_model_bit_for_bit(tmp_path: Path):
    command = [sys.executable, "-m", "benchmarks.training_writes", "--sample", "1"]

    done = subprocess.run([*command, "-o", str(tmp_path / "result.json")], capture_output=True, text=True)

    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    trainings = json.loads((tmp_path / "result.json").read_text())["trainings"]
    assert [(each["num_killed"], each["num_writes"] > 50) for each in trainings] == [(1, True)] * 3
