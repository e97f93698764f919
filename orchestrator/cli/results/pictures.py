"""Rows with their pictures, for terminals that can show them."""

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from modeling.names import path_to_text
from orchestrator.cli.output import print_drawing, print_line, print_message
from orchestrator.contract.jobs.rows import Row
from orchestrator.contract.settings import get_settings
from orchestrator.jobs.results import Published
from orchestrator.jobs.row_images import image_root

if TYPE_CHECKING:
    from orchestrator.sheets.terminal import Way
    from orchestrator.sheets.thumbnails import Shown

_SIDE_PX = 240


def way_to_show() -> "Way | None":
    """How standard output shows pictures; where it cannot, a message says so."""
    from orchestrator.sheets.terminal import way_of

    if not sys.stdout.isatty():
        print_message(
            "standard output is not a terminal, so there are no pictures; `results sheet` writes them to a file"
        )
        return None
    way = way_of(os.environ, encoding=getattr(sys.stdout, "encoding", None) or "")
    if way is None:
        print_message("this terminal is not known to show pictures; `pigeonhole results sheet` writes them to a file")
    return way


def print_pictures(published: Published, rows: Sequence[Row], way: "Way") -> None:
    """Each row's picture, or why there is none, and below it what the row says."""
    from orchestrator.sheets.terminal import draw
    from orchestrator.sheets.thumbnails import ImageSource, show_rows

    settings = get_settings()
    source = ImageSource(image_root(published), settings.max_file_bytes, settings.max_pixels)
    for row, shown in zip(rows, show_rows(source, rows, _SIDE_PX), strict=True):
        if shown.thumbnail is not None:
            print_drawing(draw(shown.thumbnail, way))
        print_line(_in_words(row, shown))
        print_line()


def _in_words(row: Row, shown: "Shown") -> str:
    prediction, path = row.prediction, path_to_text(row.path)
    if not prediction.ok:
        return f"{path}  error: {shown.code}: {shown.message}"
    said = f"{path}  {prediction.labels[0]} {prediction.scores[0]:.4f} {prediction.decision or ''}".rstrip()
    return said if shown.thumbnail is not None else f"{said}  (no picture: {shown.code}: {shown.message})"
