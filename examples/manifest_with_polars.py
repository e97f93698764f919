"""Read a JSON Lines manifest with polars: mean score per label, and the failed images by error code.

pigeonhole classify demo-output/characters --model letters -o letters.jsonl
python examples/manifest_with_polars.py letters.jsonl      (needs: pip install polars)
"""

import sys

import polars
from polars import col

TEXT = ("path", "status", "label", "error_code")
SCHEMA = dict.fromkeys(TEXT, polars.String) | {"score": polars.Float64}


def main(manifest: str) -> None:
    rows = polars.scan_ndjson(manifest, schema=SCHEMA)  # lazy: a manifest may have millions of rows
    by_label = rows.filter(col("status") == "ok").group_by("label").agg(polars.len(), col("score").mean())
    by_error = rows.filter(col("status") == "error").group_by("error_code").agg(polars.len())
    for table in (by_label.sort("label"), by_error.sort("error_code")):
        print(table.collect())


if __name__ == "__main__":
    main(*sys.argv[1:])
