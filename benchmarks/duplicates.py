"""Duplicates in the manifest of many images: time and memory of `pigeonhole results duplicates`.

    python -m benchmarks.duplicates [--images 1000000] [--folder /tmp/duplicates] [-o FILE]

Makes a folder of PNGs of 28 x 28 px that look like handwritten strokes (one in a hundred a copy of an earlier one, one
in a hundred a brighter one), a manifest of them, and runs the command in a process of its own. `--unread` replaces the
reading and decoding by thumbnails of the same pixels, computed in memory, so that the comparison of a million images is
measured without their files; the result says so.

Memory: `anonymous` is what the process holds for itself, sampled ten times a second; `peak` counts pages of its
unnamed files, too, which the system may take back at any time.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import describe_run, keep
from modeling.inference.prediction import Prediction
from orchestrator.contract.jobs.rows import CsvFormat, Row

SIDE = 28
PER_FOLDER = 10_000
BATCH = 1000
COPIES, BRIGHTER = 100, 50  # every so many images


def main() -> None:
    """Make the images, run, and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000, help="images in the manifest")
    parser.add_argument("--folder", type=Path, help="where the images are made, and left for the next run")
    parser.add_argument("--unread", action="store_true", help="thumbnails of pixels in memory in place of files")
    parser.add_argument("-o", "--output", type=Path, help="file for the result instead of one in results/")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pigeonhole-duplicates-") as scratch:
        folder = options.folder or Path(scratch)
        if options.unread:
            code = [sys.executable, "-m", "benchmarks.duplicates_unread", str(options.images), scratch]
            run = measured(code, Path(scratch))
        else:
            manifest = make_manifest(folder, options.images)
            groups = Path(scratch) / "groups.csv"
            command = "import sys; from orchestrator.cli import main; main(sys.argv[1:])"
            arguments = ["results", "duplicates", str(manifest), "-o", str(groups), "--limit", "1", "--json"]
            run = measured([sys.executable, "-c", command, *arguments], Path(scratch))
            run["groups_bytes"] = groups.stat().st_size
    name = "duplicates-unread" if options.unread else "duplicates"
    keep(describe_run("duplicates") | {"images": options.images, "unread": options.unread} | run, name, options.output)


def measured(command: list[str], home: Path) -> dict[str, Any]:
    """Run a command that prints a document; its counts, its time and its memory."""
    started, before = time.monotonic(), os.times()
    environment = os.environ | {"PIGEONHOLE_HOME": str(home / "home")}
    anonymous = peak = 0
    with (home / "said").open("w+b") as said:
        process = subprocess.Popen(command, env=environment, stdout=said)
        while process.poll() is None:
            anonymous = max(anonymous, _memory_kb(process.pid, "RssAnon"))
            peak = max(peak, _memory_kb(process.pid, "VmHWM"))
            time.sleep(0.1)
        seconds = time.monotonic() - started
        if process.returncode:
            sys.exit(f"{command[-1]} failed with {process.returncode}")
        said.seek(0)
        counts = {key: value for key, value in json.load(said).items() if key.startswith(("num_", "seconds"))}
    after = os.times()
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return counts | {
        "wall_s": round(seconds, 1),
        "cpu_s": round(cpu_s, 1),
        "anonymous_mb": anonymous // 1024,
        "peak_mb": peak // 1024,
    }


def _memory_kb(process: int, field: str) -> int:
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), 0)


def make_manifest(folder: Path, num_images: int) -> Path:
    """The images of a folder, unless they are there, and the manifest beside it."""
    source, manifest = folder / "images", folder / f"{num_images}.csv"
    if manifest.exists():
        return manifest
    rows_format, temporary = CsvFormat(), folder / "unfinished"
    folder.mkdir(parents=True, exist_ok=True)
    with temporary.open("wb") as file:
        file.write(rows_format.header({}))
        for start, strokes_nhw in enumerate(stroke_batches(num_images)):
            file.write(rows_format.encode(_written(source, start * BATCH, strokes_nhw)))
            if start % 100 == 99:
                print(f"{(start + 1) * BATCH:,} images are made", flush=True)
    write_summary(temporary.rename(manifest), source, num_images)
    return manifest


def write_summary(manifest: Path, root: Path, num_images: int) -> None:
    """What commands read of a summary."""
    with manifest.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    summary = {
        "version": 1, "job": "c261129-000000-000000", "root": str(root),
        "manifest": {"format": "csv", "bytes": manifest.stat().st_size, "sha256": digest},
        "listing": {"sha256": "", "num_images": num_images}, "model": {"ref": "none@1", "digest": ""},
        "counts": {"num_images": num_images, "num_failed": 0, "status": {}, "labels": {}, "error_codes": {}},
        "sidecar": {"bytes": 0, "sha256": "", "checksum": False},
    }  # fmt: skip
    Path(f"{manifest}.summary.json").write_text(json.dumps(summary))


def _written(source: Path, first: int, strokes_nhw: NDArray[np.uint8]) -> Iterator[Row]:
    from PIL import Image

    for number, pixels in enumerate(strokes_nhw, start=first):
        path = f"{number // PER_FOLDER:03}/{number:07}.png"
        if number % PER_FOLDER == 0:
            (source / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(source / path, compress_level=1)
        yield Row(path, Prediction((str(number % 10),), (0.9,)))


def stroke_batches(num_images: int) -> Iterator[NDArray[np.uint8]]:
    """Images NHW in batches: three soft bright strokes each, with some copies of earlier ones of their batch."""
    for start in range(0, num_images, BATCH):
        strokes = _strokes(start, min(BATCH, num_images - start))
        copies = np.arange(COPIES - 1, len(strokes), COPIES)
        strokes[copies] = strokes[copies - COPIES // 3]
        brighter = np.arange(COPIES // 2 - 1, len(strokes), COPIES)
        strokes[brighter] = (strokes[brighter - COPIES // 4].astype(np.uint16) * 9 // 10).astype(np.uint8)
        yield strokes


def _strokes(seed: int, count: int) -> NDArray[np.uint8]:
    ends = np.random.default_rng(seed).uniform(4, SIDE - 4, (count, 3, 2, 2)).astype(np.float32)
    first, along = ends[:, :, 0], ends[:, :, 1] - ends[:, :, 0]
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    light = np.zeros((count, SIDE, SIDE), dtype=np.float32)
    for stroke in range(3):
        y, x = (first[:, stroke, axis, None, None] for axis in (0, 1))
        dy, dx = (along[:, stroke, axis, None, None] for axis in (0, 1))
        at = (((rows - y) * dy + (columns - x) * dx) / (dy**2 + dx**2 + 1e-6)).clip(0, 1)
        distance = (rows - y - at * dy) ** 2 + (columns - x - at * dx) ** 2
        light = np.maximum(light, np.exp(-distance / 2))
    pixels: NDArray[np.uint8] = (light * 255).astype(np.uint8)
    return pixels


if __name__ == "__main__":
    main()
