"""Copy classified images into one folder per label, those without a certain answer into `review`.

    python examples/sort_by_label.py letters.csv sorted

The summary beside the manifest says which folder the paths are relative to. Images are copied, never moved.
"""

import csv
import json
import shutil
import sys
from pathlib import Path


def main(manifest: str, output: str) -> None:
    root = Path(json.loads(Path(f"{manifest}.summary.json").read_text(encoding="utf-8"))["root"])
    with open(manifest, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["status"] != "ok":
                continue
            folder = Path(output, row["label"] if row["decision"] in ("", "accept") else "review")
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / row["path"], folder / row["path"].replace("/", "_"))


if __name__ == "__main__":
    main(*sys.argv[1:])
