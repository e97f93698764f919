"""What commands do with a manifest of a million rows: time and peak memory, which must not grow with the rows.

    python -m benchmarks.after [--rows 1000000] [--folder /tmp/after] [-o FILE]

Writes manifests of a tenth of the rows and of all rows, three of each: one, the same with other answers in one row of a
hundred, and that one shuffled. One row in a thousand has the label `rare`; the images of the first 500 of these are
there, 4000 x 3000 px each. Each command runs in a process of its own, which says its peak memory at its end:

- `show`: `results show --where` with a filter that few rows fit, so all are read
- `sheet`: `results sheet --where label=rare`, the first 500
- `diff`: `results diff` of two manifests in one order
- `diff_shuffled`: the same in two orders

Exits with 1 if the memory of one of them grows by more than 16 MB from a tenth of the rows to all.
"""

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.machine import describe_run, keep
from modeling.inference.prediction import Prediction
from orchestrator.contract.jobs.rows import CsvFormat, Row, summary_path

NUM_SHOWN = 500
NUM_PICTURES = 4  # different ones
RARE, CHANGED = 1000, 100  # every so many rows
NUM_LABELS, TOP_K = 1000, 5
MORE_MB = 16.0
_DIFFERENT = 1  # the exit code of diff
_BATCH = 1000
_CHILD = """
import sys
from pathlib import Path
from orchestrator.cli import main
facts = Path(sys.argv.pop(1))
try:
    main()
finally:
    facts.write_text(Path("/proc/self/status").read_text())
"""


def main() -> None:
    """Run every command with a tenth of the rows and with all, and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of a manifest")
    parser.add_argument("--folder", type=Path, help="where the manifests are made, and left for the next run")
    parser.add_argument("-o", "--output", type=Path, help="file for the result instead of one in results/")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pigeonhole-after-") as scratch:
        runs = measure(options.folder or Path(scratch), (options.rows // 10, options.rows))
    growth = memory_growth(runs)
    keep(describe_run("after") | {"runs": runs, "memory_growth_mb": growth}, "after", options.output)
    sys.exit(int(max(growth.values()) > MORE_MB))


def measure(folder: Path, sizes: Sequence[int]) -> list[dict[str, Any]]:
    """The runs of each command with manifests of each size."""
    folder.mkdir(parents=True, exist_ok=True)
    make_images(folder / "in")
    runs = []
    for num_rows in sizes:
        one, other, shuffled = make_manifests(folder, num_rows)
        commands: dict[str, tuple[Sequence[str], int]] = {
            "show": (("show", one, "--where", "score<0.21 and path~7.jpg", "--limit", "0", "--json"), 0),
            "sheet": (("sheet", one, "--where", "label=rare", "-o", str(folder / "sheet.html"), "--overwrite"), 0),
            "diff": (("diff", one, other, "--json"), _DIFFERENT),
            "diff_shuffled": (("diff", one, shuffled, "--json"), _DIFFERENT),
        }
        for name, (arguments, expected) in commands.items():
            runs.append({"command": name, "rows": num_rows} | run(folder, arguments, expected))
            print(json.dumps(runs[-1]), flush=True)
    return runs


def run(folder: Path, arguments: Sequence[str], expected: int) -> dict[str, Any]:
    """Time and memory of one `pigeonhole results ...`."""
    facts = folder / "status"
    environment = os.environ | {"PIGEONHOLE_HOME": str(folder / "home")}
    before, started = os.times(), time.monotonic()
    command = [sys.executable, "-c", _CHILD, str(facts), "results", *arguments]
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    after, wall_s = os.times(), time.monotonic() - started
    if done.returncode != expected:
        sys.exit(f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
    peak = next(line for line in facts.read_text().splitlines() if line.startswith("VmHWM"))
    processor_s = after.children_user + after.children_system - before.children_user - before.children_system
    said = json.loads(done.stdout) if "--json" in arguments else {}
    counts = {key: value for key, value in said.items() if key.startswith("num_")}
    counts |= {"rows_shown": len(said["rows"])} if "summary" in said else {}
    return {
        "wall_s": round(wall_s, 1),
        "processor_s": round(processor_s, 1),
        "peak_mb": round(int(peak.split()[1]) / 1024, 1),
        "counts": counts,
    }


def memory_growth(runs: Iterable[dict[str, Any]]) -> dict[str, float]:
    """MB by which the peak of each command is higher with all rows than with the fewest."""
    peaks: dict[str, list[float]] = {}
    for each in runs:
        peaks.setdefault(each["command"], []).append(each["peak_mb"])
    return {command: round(found[-1] - found[0], 1) for command, found in peaks.items()}


def make_images(root: Path) -> None:
    """The images of the first rows with the label `rare`: soft noise of the size of photographs, under many names."""
    if (root / f"{NUM_PICTURES - 1}.jpg").exists():
        return
    root.mkdir()
    for number in range(NUM_PICTURES):
        coarse = np.random.default_rng(number).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((4000, 3000), Image.Resampling.BICUBIC)
        picture.save(root / f"{number}.jpg", quality=85)
    for number in range(NUM_SHOWN):
        path = root / path_of(number * RARE)
        path.parent.mkdir(exist_ok=True)
        path.hardlink_to(root / f"{number % NUM_PICTURES}.jpg")


def path_of(number: int) -> str:
    return f"{number // 10_000:05}/IMG_{number:08}.jpg"


def row_of(number: int, *, changed: bool = False) -> Row:
    """The row of that number; changed: with another label in one of a hundred."""
    if number % RARE == 1:
        return Row(path_of(number), Prediction(error_code="truncated", error="pixels are missing", decision="reject"))
    first = number * 7 + (1 if changed and number % CHANGED == 2 else 0)
    labels = tuple(f"label {(first + place) % NUM_LABELS}" for place in range(TOP_K))
    score = 0.2 + number % 7919 / 10_000
    scores = tuple(score / 2**place for place in range(TOP_K))
    if number % RARE == 0:
        labels = ("rare", *labels[1:])
    return Row(path_of(number), Prediction(labels, scores, decision="accept" if score > 0.9 else "review"))


def make_manifests(folder: Path, num_rows: int) -> tuple[str, str, str]:
    """The manifests of that many rows, unless they are there."""
    one, other, shuffled = (folder / f"{name}-{num_rows}.csv" for name in ("one", "other", "shuffled"))
    order = list(range(num_rows))
    random.Random(0).shuffle(order)
    write_manifest(one, (row_of(number) for number in range(num_rows)), folder / "in", num_rows)
    write_manifest(other, (row_of(number, changed=True) for number in range(num_rows)), folder / "in", num_rows)
    write_manifest(shuffled, (row_of(number, changed=True) for number in order), folder / "in", num_rows)
    return str(one), str(other), str(shuffled)


def write_manifest(manifest: Path, rows: Iterable[Row], root: Path, num_rows: int) -> None:
    """A manifest with a summary that says what these commands need."""
    if summary_path(manifest).exists():
        return
    row_format = CsvFormat()
    with manifest.open("wb") as file:
        file.write(row_format.header({}))
        iterator = iter(rows)
        while batch := list(islice(iterator, _BATCH)):
            file.write(row_format.encode(batch))
    with manifest.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    summary = {
        "version": 1, "job": "c261129-000000-000000", "source": str(root), "root": str(root),
        "manifest": {"format": "csv", "bytes": manifest.stat().st_size, "sha256": digest},
        "listing": {"sha256": "", "num_images": num_rows}, "model": {"ref": "none@1", "digest": ""},
        "counts": {"num_images": num_rows, "num_failed": 0, "status": {}, "labels": {}, "error_codes": {}},
        "sidecar": {"bytes": 0, "sha256": "", "checksum": False},
    }  # fmt: skip
    summary_path(manifest).write_text(json.dumps(summary))


if __name__ == "__main__":
    main()
