"""Programs of other people that read what we write, in an environment of their own where they are installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = (".venv-readers", ".venv-ultralytics")  # `make readers` makes them


def python_with(module: str) -> Path:
    """A Python that can import a module: this one, one of ENVIRONMENTS or of READERS; else the test is skipped."""
    folders = [str(Path(sys.executable).parents[1]), *(str(ROOT / name) for name in ENVIRONMENTS), *_further()]
    for python in (Path(folder, "bin", "python") for folder in folders):
        if python.exists() and subprocess.run([python, "-c", f"import {module}"], capture_output=True).returncode == 0:
            return python
    pytest.skip(f"{module} is not installed; `make readers` installs it")


def _further() -> list[str]:
    return [folder for folder in os.environ.get("READERS", "").split(os.pathsep) if folder]
