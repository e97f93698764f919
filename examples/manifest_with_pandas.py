"""Read a manifest with pandas: images per decision and label, the least certain ones, and how large they are.

python examples/manifest_with_pandas.py letters.csv        (or .json, .jsonl; needs: pip install pandas)
"""

import json
import sys
from pathlib import Path

import pandas


def read(manifest: str) -> pandas.DataFrame:
    """One row per image. Labels such as "NA" and "001" are text, not missing values or numbers."""
    if manifest.endswith(".csv"):
        rows = pandas.read_csv(manifest, dtype=str, keep_default_na=False)
        rows["score"] = pandas.to_numeric(rows["score"], errors="coerce")  # empty for failed images
        return rows
    if manifest.endswith(".jsonl"):
        return pandas.read_json(manifest, lines=True, dtype=False)
    with open(manifest, encoding="utf-8") as file:
        return pandas.DataFrame(json.load(file)["predictions"])


def sizes(manifest: str) -> list[int | None]:
    """The size of each image as it was read, in the order of the rows; None for one that could not be read."""
    with Path(f"{manifest}.sources").open(encoding="utf-8") as file:
        return [json.loads(line)["size"] for line in file]


def main(manifest: str) -> None:
    rows = read(manifest)
    rows["size"] = sizes(manifest)

    answered = rows[rows["status"] == "ok"]
    print(answered.groupby(["label", "decision"], dropna=False).size().to_string())
    print(answered.nsmallest(5, "score")[["path", "label", "score", "size"]].to_string(index=False))
    print(f"{len(rows) - len(answered)} of {len(rows)} images failed; {answered['size'].sum():,.0f} bytes were read")


if __name__ == "__main__":
    main(*sys.argv[1:])
