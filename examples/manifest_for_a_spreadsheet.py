"""A table of a manifest's labels for a spreadsheet: images by decision, and their bytes. Needs nothing but Python.

    python examples/manifest_for_a_spreadsheet.py letters.csv labels.csv        (or .json, .jsonl)

For the rows themselves: `pigeonhole results export letters.csv --to csv --excel -o letters-excel.csv`.
"""

import csv
import json
import sys
from collections import Counter
from collections.abc import Iterator

COLUMNS = ("label", "accept", "review", "reject", "undecided", "bytes")


def read(manifest: str) -> Iterator[dict[str, str | None]]:
    """The rows; a document has each on a line of its own, so none is read as a whole."""
    with open(manifest, encoding="utf-8", newline="") as file:
        if manifest.endswith(".csv"):
            csv.field_size_limit(1 << 30)  # many labels make long cells
            yield from csv.DictReader(file)
            return
        for line in file:
            if line.startswith('{"path": '):
                yield json.loads(line.rstrip(",\n"))


def main(manifest: str, table: str) -> None:
    counts: Counter[tuple[str, str]] = Counter()
    with open(f"{manifest}.sources", encoding="utf-8") as sources:  # a line for each row, in order
        for row, line in zip(read(manifest), sources, strict=True):
            if row["status"] == "ok":
                counts[row["label"], row["decision"] or "undecided"] += 1
                counts[row["label"], "bytes"] += json.loads(line)["size"]
    labels = sorted({label for label, _ in counts})
    with open(table, "w", encoding="utf-8-sig", newline="") as file:  # with the mark by which Excel knows UTF-8
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows([text_cell(label), *(counts[label, name] for name in COLUMNS[1:])] for label in labels)


def text_cell(label: str) -> str:
    """A label that a spreadsheet does not take for a formula; a CSV manifest has the quote already."""
    return f"'{label}" if label.startswith(("=", "+", "-", "@")) else label


if __name__ == "__main__":
    main(*sys.argv[1:])
