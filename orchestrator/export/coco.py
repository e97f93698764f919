"""A COCO document whose annotations say the category of a whole image."""

import json
from collections.abc import Iterable, Iterator
from typing import IO

from modeling.images.progress import OnProgress
from orchestrator.contract.jobs.rows import SCORE_DIGITS, Row
from orchestrator.export.rows import RowSelection, Survey, plain


def write_document(selection: RowSelection, survey: Survey, prefix: str, file: IO[bytes], progress: OnProgress) -> None:
    """Write categories, images and annotations, each on a line; all numbers begin at 1.

    Images have no width and height, and annotations no box: the manifest does not know them.
    """
    summary = selection.published.summary
    info = {"description": f"job {summary['job']}", "contributor": summary["model"]["ref"]}
    file.write(f'{{\n"info": {json.dumps(info)},\n"licenses": [],\n'.encode())
    numbers = {label: number for number, label in enumerate(survey.labels, start=1)}
    categories = ({"id": number, "name": plain(label), "supercategory": ""} for label, number in numbers.items())
    _write_list(file, "categories", categories, ",\n")
    images = enumerate(selection.answered(), start=1)
    _write_list(
        file, "images", ({"id": number, "file_name": plain(prefix + row.path)} for number, row in images), ",\n"
    )
    _write_list(file, "annotations", _annotations(selection.answered(progress), numbers), "\n}\n")


def _annotations(rows: Iterable[Row], numbers: dict[str, int]) -> Iterator[dict[str, object]]:
    for number, row in enumerate(rows, start=1):
        prediction = row.prediction
        score = round(prediction.scores[0], SCORE_DIGITS)
        category = numbers[prediction.labels[0]]
        yield {"id": number, "image_id": number, "category_id": category, "iscrowd": 0, "score": score}


def _write_list(file: IO[bytes], key: str, items: Iterable[dict[str, object]], end: str) -> None:
    separator = f'"{key}": [\n'
    for item in items:
        file.write((separator + json.dumps(item)).encode("ascii"))
        separator = ",\n"
    file.write((f'"{key}": []' if separator != ",\n" else "\n]").encode() + end.encode())
