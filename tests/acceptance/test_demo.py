"""The first thing that a stranger runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from PIL import Image

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]


def run_demo(output: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "orchestrator", "demo", "-o", str(output), "--json"]
    environment = os.environ | {"PIGEONHOLE_SERVER_URL": "redis://127.0.0.1:1/0"}  # the demo must not care
    return subprocess.run(command, capture_output=True, text=True, timeout=350, env=environment)


def test_the_demo_reads_its_page_and_leaves_nothing_running(tmp_path: Path):
    done = run_demo(tmp_path / "demo")

    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["character_accuracy"] >= 0.97
    assert facts["num_characters"] == 414
    assert "Every letter that comes in goes out exactly once" in facts["text"]
    for name in ("scan", "picture", "manifest", "summary", "model"):
        assert Path(facts[name]).exists(), name
    with Image.open(facts["picture"]) as picture:
        assert min(picture.size) > 500
    running = [process.cmdline() for process in psutil.process_iter(["cmdline"]) if str(tmp_path) in str(process.info)]
    assert running == []


def test_the_demo_touches_no_folder_that_is_not_its_own(tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("years of work")

    done = run_demo(tmp_path)

    assert done.returncode == 2
    assert "holds other things" in done.stderr
    assert os.listdir(tmp_path) == ["thesis.txt"]
