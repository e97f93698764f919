"""Fakes, and small jobs for them."""

import itertools
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import redis

from modeling.images.preprocessing import Preprocessing
from modeling.images.progress import Report, unreported
from modeling.inference.decoders import BatchDecoder
from modeling.inference.prediction import Prediction
from modeling.metrics.calibration import Calibration
from modeling.names import path_to_text
from orchestrator.contract.jobs.job_folder import JobFolder, new_job_id
from orchestrator.contract.jobs.listing import ListingWriter, count_shards, read_facts, read_shard
from orchestrator.contract.jobs.parts import write_part
from orchestrator.contract.jobs.requests import ClassifyRequest, ModelPin, fingerprint, ledger_fields
from orchestrator.contract.jobs.restore import output_of
from orchestrator.contract.jobs.rows import Row
from orchestrator.contract.jobs.sidecar import AsRead
from orchestrator.contract.ledger.ledger import Ledger
from orchestrator.contract.settings import Settings
from tests.support.images import grey_png
from workers.finalize.lease import FinalizeLeaseLostError

FAKE_SECONDS = {"predict": 0.5}
FAKE_TIME_NS = 1_700_000_000_000_000_000  # of the last change of an image
PIN = ModelPin(name="fake", number=1, digest="d" * 64, preprocessing_digest="p" * 64)


@dataclass
class FakeClassifier:
    """Says `light` or `dark` by an image's mean, and keeps what it was shown.

    before: is called with the brightness of a batch's images, and may raise instead of the classifier.
    refused, max_batch, broken: an image, a size of batch and, where broken, everything that it raises at.
    """

    before: Callable[[list[int]], None] = lambda brightness: None
    refused: int | None = None
    max_batch: int | None = None
    broken: bool = False
    preprocessing: Preprocessing = Preprocessing("L", 2, 2)  # noqa: RUF009 frozen
    batches: list[list[int]] = field(default_factory=list)  # mean brightness of the images
    calibration: Calibration | None = None
    num_streams: int = 1
    batch_size: int = 4
    images_per_sec: float = 0.0
    engine_name: str = "fake"
    batch_decoder: BatchDecoder | None = None
    largest_batch: int | None = None

    def predict(self, images: np.ndarray, top_k: int, /) -> list[Prediction]:
        brightness = [int(image.mean()) for image in images]
        self.before(brightness)
        self.batches.append(brightness)
        if self.broken:
            raise RuntimeError("the device is gone")
        if self.max_batch is not None and len(brightness) > self.max_batch:
            raise MemoryError
        if self.refused in brightness:
            raise ValueError(f"cannot take {self.refused}")
        return [predict_brightness(value, top_k) for value in brightness]

    @property
    def seen(self) -> list[int]:
        """Brightness of all images that it was shown."""
        return [value for batch in self.batches for value in batch]


def predict_brightness(value: int, top_k: int = 2) -> Prediction:
    """FakeClassifier's prediction for an image."""
    score = value / 255
    pairs = sorted([("light", score), ("dark", 1 - score)], key=lambda pair: -pair[1])[:top_k]
    return Prediction(tuple(label for label, _ in pairs), tuple(score for _, score in pairs))


@dataclass
class FakeModelCache:
    """Returns one classifier for every model; raises `error` instead, if it is set."""

    classifier: FakeClassifier
    error: Exception | None = None
    on_load: Callable[[], None] = lambda: None
    num_drops: int = 0

    def drop_others(self) -> None:
        self.num_drops += 1

    def get(self, pin: ModelPin, precision: str = "auto", *, report: Report = unreported) -> FakeClassifier:
        report("measuring engines")
        self.on_load()
        if self.error is not None:
            raise self.error
        return self.classifier


@dataclass
class Bells:
    """Records the doorbells."""

    rung: list[tuple[str, str]] = field(default_factory=list)

    def __call__(self, queue: str, job: str) -> None:
        self.rung.append((queue, job))


def make_images(folder: Path, brightness: Sequence[int]) -> list[str]:
    """Write images `000.png`, `001.png`, ... of these brightnesses; returns their names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{index:03d}.png" for index in range(len(brightness))]
    for name, value in zip(names, brightness, strict=True):
        (folder / name).write_bytes(grey_png(value))
    return names


def make_job(
    settings: Settings, paths: Sequence[str], *, root: Path, output: Path, shard_size: int = 4, **changes: object
) -> JobFolder:
    """A classify job on the disk, with a complete listing."""
    request = {
        "job": new_job_id("classify"),
        "created": datetime.now(UTC),
        "source": str(root),
        "root": path_to_text(str(root)),
        "follow_symlinks": False,
        "model": PIN,
        "output": path_to_text(str(output)),
        "output_format": "csv",
        "overwrite": False,
        "top_k": 2,
        "shard_size": shard_size,
    }
    folder = JobFolder.create(settings, ClassifyRequest.model_validate(request | changes))
    with ListingWriter(folder.work, shard_size) as writer:
        for path in paths:
            writer.add(path)
        writer.close({"hidden": 2})
    return folder


def enter_job(folder: JobFolder, ledger: Ledger) -> None:
    """Enter a listed classify job into the ledger, as submitting it does."""
    request, facts = folder.request(), read_facts(folder.work)
    verdict, _ = ledger.create(
        folder.job,
        ledger_fields(request) | {"listed": 0},
        output=output_of(request),
        key=request.idempotency_key or "",
        fingerprint=fingerprint(request),
    )
    assert verdict == "created"
    folder.activate()
    limit = folder.failure_limit(request, facts.num_images)
    ledger.extend(folder.job, facts.num_shards, facts.num_images, listed=True, failure_limit=limit)


def fake_rows(paths: Sequence[str]) -> list[Row]:
    """A row for every path; every third row is an error."""
    failed = Prediction(error_code="missing", error="there is no such file")
    return [
        Row(path, failed if index % 3 == 2 else predict_brightness(len(path) % 256)) for index, path in enumerate(paths)
    ]


def decided(row: Row) -> Row:
    """The row as a calibrated model would give it: errors are rejected, paths of even length accepted."""
    decision = "reject" if not row.prediction.ok else "review" if len(row.path) % 2 else "accept"
    return Row(row.path, replace(row.prediction, decision=decision))


def fake_as_read(rows: Sequence[Row]) -> list[AsRead | None]:
    """A size and a time for every image that could be read."""
    return [(100 + len(row.path), FAKE_TIME_NS + len(row.path), None) if row.prediction.ok else None for row in rows]


def write_fake_parts(
    folder: JobFolder, shards: Sequence[int] | None = None, *, worker: str = "w1", calibrated: bool = False
) -> None:
    """Parts with `fake_rows` for some shards, by default for all; `decided` for a calibrated model."""
    request = folder.request()
    for shard in range(count_shards(folder.work)[0]) if shards is None else shards:
        rows = fake_rows(read_shard(folder.work, shard))
        rows = [decided(row) for row in rows] if calibrated else rows
        row_format = request.output_format
        write_part(
            folder.parts, shard, rows, fake_as_read(rows), row_format=row_format, seconds=FAKE_SECONDS, worker=worker,
            engine="fake",
        )  # fmt: skip


class FakeFinalizeLease:
    """A finalize lease that is lost once it was checked `lost_after` times."""

    def __init__(self, lost_after: int | None = None, *, fence: int = 100) -> None:
        self.fence = fence
        self._left = lost_after

    def check(self) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise FinalizeLeaseLostError

    confirm = check


_FILE_STEPS = {"open", "os.rename", "os.link", "os.remove", "os.mkdir", "tempfile.mkstemp"}


def exit_code_of(call: Callable[[], object]) -> int:
    """The exit code of a child process that makes the call."""
    pid = os.fork()
    if pid == 0:
        try:
            call()
        except BaseException:
            traceback.print_exc()
            os._exit(2)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def dies_at_step(number: int, call: Callable[[], object], folder: Path) -> bool:
    """Run `call` in a child process that dies just before its step `number`; False if it ended before.

    A step is an operation on a file below `folder`, or a command to the server (once before it is sent, once after).
    """
    pid = os.fork()
    if pid == 0:
        try:
            _die_at_step(number, str(folder))
            call()
        except BaseException:
            traceback.print_exc()
            os._exit(2)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 9), f"step {number}: exit code {code}"
    return code == 9


def _die_at_step(number: int, folder: str) -> None:
    steps = itertools.count()

    def step() -> None:
        if next(steps) == number:
            os._exit(9)

    def on_event(event: str, args: tuple[object, ...]) -> None:
        if event in _FILE_STEPS and any(str(arg).startswith(folder) for arg in args):
            step()

    send = redis.Redis.execute_command

    def execute_command(*args: object, **options: object) -> object:
        step()
        answer = send(*args, **options)
        step()
        return answer

    redis.Redis.execute_command = execute_command
    sys.addaudithook(on_event)  # never removed: this process ends soon
