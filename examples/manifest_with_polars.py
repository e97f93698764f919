"""Read a manifest with polars: mean score per label, the failed images by error code, and the bytes of each label.

pigeonhole classify demo-output/characters --model letters -o letters.jsonl
python examples/manifest_with_polars.py letters.jsonl      (or .csv, .json; needs: pip install polars)
"""

import json
import sys
from pathlib import Path

import polars
from polars import col

TEXT = ("path", "status", "label", "error_code")
SCHEMA = dict.fromkeys(TEXT, polars.String) | {"score": polars.Float64}


def scan(manifest: str) -> polars.LazyFrame:
    """The rows; CSV and JSON Lines are read piece by piece, so a manifest may have millions."""
    if manifest.endswith(".jsonl"):
        return polars.scan_ndjson(manifest, schema=SCHEMA)
    if manifest.endswith(".csv"):
        rows = polars.scan_csv(manifest, infer_schema=False)  # labels such as "001" are text
        return rows.select(*TEXT, col("score").cast(polars.Float64))
    predictions = json.loads(Path(manifest).read_text(encoding="utf-8"))["predictions"]
    return polars.LazyFrame([{key: row[key] for key in SCHEMA} for row in predictions], schema=SCHEMA)


def main(manifest: str) -> None:
    as_read = polars.scan_ndjson(f"{manifest}.sources", schema={"path": polars.String, "size": polars.Int64})
    rows = polars.concat([scan(manifest), as_read.select("size")], how="horizontal")  # a line for each row, in order
    by_label = (
        rows.filter(col("status") == "ok").group_by("label").agg(polars.len(), col("score").mean(), col("size").sum())
    )
    by_error = rows.filter(col("status") == "error").group_by("error_code").agg(polars.len())
    for table in (by_label.sort("label"), by_error.sort("error_code")):
        print(table.collect())


if __name__ == "__main__":
    main(*sys.argv[1:])
