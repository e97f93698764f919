"""Annotations for CVAT: its format "CVAT for images 1.1", a tag for each image; and the labels that its task needs."""

import json
from collections.abc import Iterable
from typing import IO
from xml.sax.saxutils import escape, quoteattr

from modeling.images.progress import OnProgress
from orchestrator.contract.jobs.rows import SCORE_DIGITS, Row
from orchestrator.export.rows import RowSelection, Survey, plain

_SCORE = "score"
_HEAD = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta>
    <task>
      <name>{name}</name>
      <size>{size}</size>
      <mode>annotation</mode>
      <labels>
"""


def write_annotations(
    selection: RowSelection, survey: Survey, prefix: str, file: IO[bytes], progress: OnProgress
) -> None:
    """Write an image with its tag for each row that has an answer."""
    name = escape(plain(selection.published.summary["job"]))
    file.write(_HEAD.format(name=name, size=survey.num_answered).encode())
    for label in survey.labels:
        file.write(_label(label).encode())
    file.write(b"      </labels>\n    </task>\n  </meta>\n")
    for number, row in enumerate(selection.answered(progress)):
        file.write(_image(number, row, prefix).encode())
    file.write(b"</annotations>\n")


def label_specification(labels: Iterable[str]) -> bytes:
    """The labels of a task, as CVAT's editor of labels takes them (Raw)."""
    score = {"name": _SCORE, "mutable": False, "input_type": "text", "default_value": "", "values": [""]}
    return (
        json.dumps([{"name": plain(label), "type": "tag", "attributes": [score]} for label in labels]) + "\n"
    ).encode()


def _label(label: str) -> str:
    return (
        f"        <label><name>{_text(label)}</name><type>tag</type><attributes><attribute><name>{_SCORE}</name>"
        "<mutable>False</mutable><input_type>text</input_type><default_value></default_value><values></values>"
        "</attribute></attributes></label>\n"
    )


def _image(number: int, row: Row, prefix: str) -> str:
    prediction = row.prediction
    return (
        f'  <image id="{number}" name={quoteattr(plain(prefix + row.path))}>\n'
        f'    <tag label={quoteattr(plain(prediction.labels[0]))} source="auto">'
        f'<attribute name="{_SCORE}">{prediction.scores[0]:.{SCORE_DIGITS}f}</attribute></tag>\n  </image>\n'
    )


def _text(label: str) -> str:
    return escape(plain(label), {"\r": "&#13;"})
