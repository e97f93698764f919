"""How long one answer takes without a worker: `pigeonhole predict` of a photograph, and `pigeonhole read` of a page.

    python -m benchmarks.predict

A network `mobilenet_v2` answers one photograph, first plainly, while no engine is remembered, then on the engine that
was measured; `import torch` alone is timed beside them. A network `cnn` reads the demo's page. Its weights are random:
the answers mean nothing, but take the same time. The first run of each reads the files and is not counted. Needs no
data; two minutes.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.machine import describe_run, keep
from benchmarks.throughput_folders import FOLDERS
from benchmarks.throughput_networks import publish_network
from modeling.inference.choose_engine import load_fastest
from orchestrator.demo.page import render_page


def time_in_turns(commands: Mapping[str, Sequence[str]], home: Path, runs: int) -> dict[str, dict[str, float]]:
    """Seconds of each command, by name, all in turns."""
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(runs + 1):
        for name, command in commands.items():
            started = time.perf_counter()
            subprocess.run(
                [sys.executable, *command], check=True, capture_output=True,
                env=os.environ | {"PIGEONHOLE_HOME": str(home)},
            )  # fmt: skip
            times[name].append(time.perf_counter() - started)
    return {
        name: {"median_s": round(statistics.median(each[1:]), 2), "fastest_s": round(min(each[1:]), 2)}
        for name, each in times.items()
    }


def measure(folder: Path, runs: int) -> dict[str, dict[str, float]]:
    """Both commands, before and after the engines are measured."""
    home = folder / "home"
    photographs, letters = publish_network(home / "models", "mobilenet_v2"), publish_network(home / "models", "cnn")
    FOLDERS["photographs"](folder / "one", 1)
    [photograph] = [str(path) for path in (folder / "one").rglob("*") if path.is_file()]
    page = str(folder / "page.png")
    render_page(0).image.save(page)
    run = ["-m", "orchestrator"]
    commands = {
        "predict": [*run, "predict", photograph, "--model", photographs.ref],
        "read": [*run, "read", page, "--model", letters.ref],
    }
    torch = {"import torch": ["-c", "import torch"]}
    plain = time_in_turns(torch | {f"{name}, plain": command for name, command in commands.items()}, home, runs)
    for version in (photographs, letters):
        load_fastest(version)
    remembered = {f"{name}, remembered": command for name, command in commands.items()}
    return plain | time_in_turns(remembered, home, runs)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="Counted runs of each command.")
    parser.add_argument("-o", "--output", type=Path, help="Where to keep the result.")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pigeonhole-predict-") as folder:
        seconds = measure(Path(folder), asked.runs)
    for name, facts in seconds.items():
        print(f"{name:22} {facts}")
    keep(describe_run("predict") | {"seconds": seconds}, "predict", asked.output)


if __name__ == "__main__":
    main()
