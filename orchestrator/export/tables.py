"""A manifest in another of its own formats, and as CSV that a spreadsheet opens by itself."""

import codecs
import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import IO, Any

from modeling.images.progress import OnProgress
from orchestrator.contract.jobs.formats import Format
from orchestrator.contract.jobs.rows import COLUMNS, FORMATS, Row
from orchestrator.export.rows import RowSelection, Survey

MOST_ROWS = 1_048_576  # of a sheet in Excel and LibreOffice, the heading among them
MOST_CHARACTERS = 32_767  # of a cell in Excel; what is behind would go into further rows
_BATCH = 1000
_TOP_K = COLUMNS.index("top_k")


def write_table(selection: RowSelection, survey: Survey, kind: Format, file: IO[bytes], progress: OnProgress) -> None:
    """Write the rows as a manifest of that format."""
    row_format = FORMATS[kind]
    file.write(row_format.header(_facts(selection.published.summary, survey) if kind == "json" else {}))
    separator = b""
    for batch in _batches(selection.rows(progress)):
        file.write(separator + row_format.encode(batch))
        separator = row_format.separator
    file.write(row_format.footer())


def write_sheet(selection: RowSelection, file: IO[bytes], progress: OnProgress) -> None:
    """Write the rows as CSV with a byte order mark and lines that end as in Windows: Excel then takes it for UTF-8."""
    file.write(codecs.BOM_UTF8)
    file.write((",".join(COLUMNS) + "\r\n").encode())
    for batch in _batches(selection.rows(progress)):
        lines = io.StringIO()
        cells = csv.reader(io.StringIO(FORMATS["csv"].encode(batch).decode(), newline=""))
        csv.writer(lines, lineterminator="\r\n").writerows(map(_shortened, cells))
        file.write(lines.getvalue().encode())


def _shortened(cells: list[str]) -> list[str]:
    """A row whose `top_k` has only as many labels as a cell may hold."""
    top_k = cells[_TOP_K]
    if len(top_k) > MOST_CHARACTERS:
        cells[_TOP_K] = top_k[: top_k.rfind(";", 0, MOST_CHARACTERS)]
    return cells


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    remaining = iter(rows)
    while batch := list(islice(remaining, _BATCH)):
        yield batch


def _facts(summary: Mapping[str, Any], survey: Survey) -> dict[str, Any]:
    """The head of a document, with the counts of the rows that are in it."""
    model = summary["model"]
    return {
        "version": 1,
        "source": summary.get("source"),
        "model": model["ref"],
        "model_digest": model["digest"],
        "preprocessing_digest": model.get("preprocessing_digest"),
        "top_k": summary.get("top_k"),
        "num_images": survey.num_rows,
        "num_failed": survey.num_rows - survey.num_answered,
    }
