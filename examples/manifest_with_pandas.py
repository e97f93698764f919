"""Read a CSV manifest with pandas: images per decision and label, and the least certain ones.

python examples/manifest_with_pandas.py letters.csv        (needs: pip install pandas)
"""

import sys

import pandas


def main(manifest: str) -> None:
    # Labels such as "NA" and "001" are text, not missing values or numbers.
    rows = pandas.read_csv(manifest, dtype=str, keep_default_na=False)
    rows["score"] = pandas.to_numeric(rows["score"], errors="coerce")  # empty for failed images

    answered = rows[rows["status"] == "ok"]
    print(answered.groupby(["label", "decision"]).size().to_string())
    print(answered.nsmallest(5, "score")[["path", "label", "score"]].to_string(index=False))
    print(f"{len(rows) - len(answered)} of {len(rows)} images failed")


if __name__ == "__main__":
    main(*sys.argv[1:])
