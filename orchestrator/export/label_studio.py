"""Tasks for Label Studio: an image and the model's answer as a prediction; and the labelling interface for them."""

import json
import os
from collections.abc import Iterable
from pathlib import PurePath
from typing import IO
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from modeling.images.progress import OnProgress
from orchestrator.contract.jobs.rows import SCORE_DIGITS, Row
from orchestrator.export.rows import RowSelection, plain

CONTROL, IMAGE = "label", "image"  # names of the tags of the interface, which predictions refer to


def default_prefix(root: str) -> str:
    """How Label Studio serves local files: below the folder that is above the source."""
    return f"/data/local-files/?d={quote(os.fsencode(PurePath(root).name))}/".replace("=/", "=")


def write_tasks(selection: RowSelection, prefix: str, file: IO[bytes], progress: OnProgress) -> None:
    """Write one task on each line of a list; rows without an answer are left out."""
    model = selection.published.summary["model"]["ref"]
    separator = "[\n"
    for row in selection.answered(progress):
        file.write((separator + json.dumps(_task(row, prefix, model))).encode("ascii"))
        separator = ",\n"
    file.write(b"[]\n" if separator == "[\n" else b"\n]\n")


def interface(labels: Iterable[str]) -> bytes:
    """The labelling interface: the image, and a choice of one label."""
    choices = "".join(f"    <Choice value={quoteattr(plain(label))}/>\n" for label in labels)
    return (
        f'<View>\n  <Image name="{IMAGE}" value="${IMAGE}"/>\n'
        f'  <Choices name="{CONTROL}" toName="{IMAGE}" choice="single">\n{choices}  </Choices>\n</View>\n'
    ).encode()


def _task(row: Row, prefix: str, model: str) -> dict[str, object]:
    prediction = row.prediction
    chosen = {"from_name": CONTROL, "to_name": IMAGE, "type": "choices"}
    result = chosen | {"value": {"choices": [plain(prediction.labels[0])]}}
    score = round(prediction.scores[0], SCORE_DIGITS)
    return {
        "data": {
            IMAGE: prefix + quote(os.fsencode(row.path)),
            "path": plain(row.path),
            "decision": prediction.decision,
        },
        "predictions": [{"model_version": model, "score": score, "result": [result]}],
    }
