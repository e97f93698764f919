"""The images that a training started with, kept beside its checkpoints: a later attempt goes on with the same ones.

What an attempt finds gone or changed is a lost image as if it had been lost in one go; new images are not looked at.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from modeling.data.dataset import FREE, PART_NAMES, Dataset, Finding, Kind, Source
from modeling.data.lost import LostImages
from modeling.data.report import DataReport
from modeling.data.scan import scan_dataset
from modeling.data.splits import LEAKED, UNREADABLE, Split, SplitRow, read_split, write_split
from modeling.durable import STRICT, PathText, decode_json, replace_durably, validated
from modeling.errors import ModelingError, trouble_of
from modeling.images.progress import Emit
from modeling.names import path_to_text, text_to_path
from modeling.training.attempt import check_last
from modeling.training.request import TrainRequest

_SPLIT, _FACTS = "split.csv", "dataset.json"
_NO_PARTS = ""


@dataclass(frozen=True, slots=True)
class _Facts:
    """What a data set has beside its images.

    request: a digest of what the data set and its split follow from. parts: a digit for each image, its official part
    plus 1; empty without official parts.
    """

    request: str
    kind: Kind
    labels: tuple[str, ...]
    parts: str
    num_ignored: int
    findings: tuple[Finding, ...]
    root: PathText | None = None
    sources: tuple[Source, ...] = ()

    __pydantic_config__ = STRICT


def save_started(request: TrainRequest, dataset: Dataset, report: DataReport, split: Split, emit: Emit) -> None:
    """Keep the images in the work folder, if there is one and they are files; a write error costs only that."""
    if request.work is None or dataset.pixels_NHWC is not None:
        return
    facts = _Facts(
        request=_digest(request),
        kind=dataset.kind,
        labels=dataset.labels,
        parts=_NO_PARTS if dataset.parts_N is None else "".join(str(part - FREE) for part in dataset.parts_N.tolist()),
        num_ignored=dataset.num_ignored,
        findings=dataset.findings,
        root=dataset.root,
        sources=dataset.sources,
    )
    shown = asdict(facts) | {"root": None if facts.root is None else path_to_text(str(facts.root))}
    try:
        request.work.mkdir(parents=True, exist_ok=True)
        check_last(request.attempt)
        write_split(request.work / _SPLIT, dataset, report, split)
        replace_durably(request.work / _FACTS, json.dumps(shown).encode(), mode=None)
    except OSError as err:
        emit({"event": "note", "text": f"the list of images cannot be kept in {request.work}: {err}"})


def load_started(request: TrainRequest, emit: Emit) -> tuple[Dataset, DataReport, Split, LostImages] | None:
    """The images that an earlier attempt of this request started with, scanned again; None if there was none.

    The report has the digests of the first scan, and the split is the one that was drawn then.

    Raises:
        DataError: too many of them are lost.
        OSError: the storage is away.
    """
    if request.work is None:
        return None
    try:
        facts = validated(_Facts, decode_json((request.work / _FACTS).read_bytes(), _FACTS), _FACTS)
        rows = read_split(request.work / _SPLIT)
        if facts.request != _digest(request) or (facts.parts and len(facts.parts) != len(rows)):
            return None
        dataset = _dataset(request.data, facts, rows)
    except FileNotFoundError:
        return None
    except (OSError, KeyError, ModelingError) as err:
        if trouble_of(err):
            raise  # the storage is away: that says nothing about the list, and without it the checkpoints are lost
        emit({"event": "note", "text": f"the list of images in {request.work} is damaged ({err}); starting over"})
        return None
    report = scan_dataset(dataset, emit, request.cache)
    split = _split(rows)
    digests = tuple(row.sha256 for row in rows)
    lost = LostImages(dataset, split, digests)
    for index, row in enumerate(rows):
        if row.part in PART_NAMES and report.digests[index] != row.sha256:
            reason = report.errors.get(index, ("changed", "its content is not what it was when it was scanned"))
            lost.add(index, ": ".join(reason))
    report = replace(report, digests=digests, groups_N=np.array([row.group for row in rows], dtype=np.int64))
    return dataset, report, split, lost


def _digest(request: TrainRequest) -> str:
    value = [str(request.data), request.layout, request.seed, request.validation, request.test]
    value += map(str, request.joined)
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _dataset(path: Path, facts: _Facts, rows: list[SplitRow]) -> Dataset:
    number = {label: target for target, label in enumerate(facts.labels)}
    root = facts.root or path
    parts_N = np.array([int(digit) + FREE for digit in facts.parts], dtype=np.int8)
    return Dataset(
        kind=facts.kind,
        path=path,
        labels=facts.labels,
        targets_N=np.array([number[row.label] for row in rows], dtype=np.int64),
        files=tuple(root / text_to_path(row.name) for row in rows),
        parts_N=parts_N if facts.parts else None,
        num_ignored=facts.num_ignored,
        root=facts.root,
        findings=facts.findings,
        sources=facts.sources,
    )


def _split(rows: list[SplitRow]) -> Split:
    """The split as it was drawn."""
    train, validation, test, unreadable, leaked = (
        np.array([index for index, row in enumerate(rows) if row.part == part], dtype=np.int64)
        for part in (*PART_NAMES, UNREADABLE, LEAKED)
    )
    return Split(train, validation, test, unreadable, leaked)
