"""Exports of a manifest of many rows: time and memory of `pigeonhole results export`, but for copies of images.

python -m benchmarks.exports [--rows 1000000] [-o FILE]
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.duplicates import measured, write_summary
from benchmarks.machine import describe_run, keep
from modeling.inference.prediction import Prediction
from orchestrator.contract.jobs.rows import CsvFormat, Row

TARGETS = (
    ("csv",), ("csv", "--excel"), ("json",), ("jsonl",), ("label-studio",), ("cvat",), ("coco",),
    ("coco", "--where", "score<0.5 or label=7"),
)  # fmt: skip
_BATCH = 10_000


def main() -> None:
    """Write the manifest, run each export, and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the manifest")
    parser.add_argument("-o", "--output", type=Path, help="file for the result instead of one in results/")
    options = parser.parse_args()
    runs = []
    with tempfile.TemporaryDirectory(prefix="pigeonhole-exports-") as scratch:
        manifest = _manifest(Path(scratch), options.rows)
        for target in TARGETS:
            written = Path(scratch) / "written"
            command = "import sys; from orchestrator.cli import main; main(sys.argv[1:])"
            arguments = [
                "results",
                "export",
                str(manifest),
                "-o",
                str(written),
                "--overwrite",
                "--json",
                "--to",
                *target,
            ]
            run = measured([sys.executable, "-c", command, *arguments], Path(scratch))
            runs.append({"to": " ".join(target)} | run | {"bytes": written.stat().st_size})
            print(json.dumps(runs[-1]), flush=True)
    keep(describe_run("exports") | {"rows": options.rows, "runs": runs}, "exports", options.output)


def _manifest(folder: Path, num_rows: int) -> Path:
    manifest, rows_format = folder / "rows.csv", CsvFormat()
    with manifest.open("wb") as file:
        file.write(rows_format.header({}))
        for start in range(0, num_rows, _BATCH):
            file.write(rows_format.encode(_rows(start, min(start + _BATCH, num_rows))))
    write_summary(manifest, folder / "images", num_rows)
    return manifest


def _rows(start: int, end: int) -> Iterator[Row]:
    for number in range(start, end):
        labels = tuple(str((number + place) % 10) for place in range(5))
        yield Row(
            f"{number // _BATCH:03}/{number:07}.png",
            Prediction(labels, (0.5 + number % 50 / 100, 0.2, 0.1, 0.05, 0.05)),
        )


if __name__ == "__main__":
    main()
