"""`classify --plan`: how a classify job would go, estimated from a sample, without submitting anything.

Reads the whole listing, and draws a few hundred of its paths by reservoir sampling with a fixed seed: every path has
the same probability, and the same listing gives the same sample. Measures them on this machine in a process of its own.
"""

import contextlib
import math
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from os import environ
from typing import IO

from modeling.images.quotas import cpu_quota, limit_threads, memory_total, num_cores
from modeling.metrics.chance import wilson_interval
from modeling.metrics.decisions import DECISIONS
from modeling.names import path_to_text
from modeling.training.process import CHILD_ENVIRONMENT
from orchestrator.contract.errors import MessageError, PigeonholeError
from orchestrator.contract.home import library_folders
from orchestrator.contract.jobs.measuring import MEASURE_MODULE, MeasureAnswer, MeasureRequest
from orchestrator.contract.ledger.stages import Bound, name_bound, stage_rates
from orchestrator.jobs.early_check import draw_sample
from orchestrator.jobs.prepare import PreparedClassify
from orchestrator.stack.process import SAFE_PATH

SAMPLE_IMAGES = 256  # a share of 50 % is known to 6 percentage points; eight batches of the default size
LIMIT_S = 30.0  # of measuring; slow models are measured on fewer images
NUMS_WORKERS = (1, 2, 4, 8)  # numbers of workers to estimate the time for


@dataclass(frozen=True, slots=True)
class Share:
    """A share of all images, estimated with its 95 % interval (Wilson); exact where the sample is all of them."""

    share: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """How a job would go.

    engine, batch_size: of a worker on this machine. elapsed_s: of measuring.
    num_cores, cpu_quota, memory_bytes: what this process, and so the one that measured, may use. peak_bytes: the memory
    that it used at most, which is about what a worker needs.
    stage_seconds, stage_images_per_sec, bound: see `orchestrator.contract.ledger.stages`.
    expected_s: seconds for the whole listing by number of workers, each like this machine.
    decisions: empty where the model has no calibration.
    """

    source: str
    model: str
    engine: str
    batch_size: int
    num_cores: int
    cpu_quota: float | None
    memory_bytes: int
    peak_bytes: int
    num_images: int
    num_shards: int
    skipped: Mapping[str, int]
    num_measured: int
    elapsed_s: float
    images_per_sec: float
    stage_seconds: Mapping[str, float]
    stage_images_per_sec: Mapping[str, float]
    bound: Bound | None
    expected_s: Mapping[int, float]
    unreadable: Share
    error_codes: Mapping[str, int]
    decisions: Mapping[str, Share]


def forecast(prepared: PreparedClassify) -> Forecast:
    """How the prepared job would go; nothing is submitted, and no server is needed.

    Raises PigeonholeError (or modeling's ModelingError) where the source holds no images, or the model cannot be
    measured.
    """
    source, model = prepared.source, prepared.model
    first = prepared.first_paths()
    sample, num_images = draw_sample(source.paths, SAMPLE_IMAGES)
    answer = _measure(_request(prepared, sample), library_folders(prepared.settings))
    rate = answer.num_images / max(answer.elapsed_s, 1e-6)
    shard_size = prepared.shard_size(first)  # uses the engine choices that measuring has stored
    return Forecast(
        source=source.text,
        model=model.version.ref,
        engine=answer.engine,
        batch_size=answer.batch_size,
        num_cores=num_cores(),
        cpu_quota=cpu_quota(),
        memory_bytes=memory_total(),
        peak_bytes=answer.peak_bytes,
        num_images=num_images,
        num_shards=math.ceil(num_images / shard_size),
        skipped=dict(source.skipped),
        num_measured=answer.num_images,
        elapsed_s=round(answer.elapsed_s, 3),
        images_per_sec=round(rate, 1),
        stage_seconds={stage: round(value, 3) for stage, value in answer.seconds.items()},
        stage_images_per_sec={
            name: round(each, 1) for name, each in stage_rates(answer.seconds, answer.num_images).items()
        },
        bound=name_bound(answer.seconds),
        expected_s={
            num_workers: round(expected_s(num_images, shard_size, rate, num_workers), 3) for num_workers in NUMS_WORKERS
        },
        unreadable=_share(sum(answer.errors.values()), answer.num_images, num_images),
        error_codes=answer.errors,
        decisions=decision_shares(answer, num_images) if model.card.calibration is not None else {},
    )


def expected_s(num_images: int, shard_size: int, images_per_sec: float, num_workers: int) -> float:
    """Seconds until the busiest of equal workers is done; shards are not divided, so few shards leave workers idle."""
    most_shards = math.ceil(math.ceil(num_images / shard_size) / num_workers)
    return min(num_images, most_shards * shard_size) / images_per_sec


def decision_shares(answer: MeasureAnswer, num_images: int) -> dict[str, Share]:
    """The share of each decision; an image with an error is rejected, as in a manifest."""
    counts = dict.fromkeys(DECISIONS, 0) | answer.decisions
    counts["reject"] += sum(answer.errors.values())
    return {name: _share(count, answer.num_images, num_images) for name, count in counts.items()}


def _share(num_hits: int, num_measured: int, num_images: int) -> Share:
    share = num_hits / num_measured
    low, high = (share, share) if num_measured == num_images else wilson_interval(num_hits, num_measured)
    return Share(round(share, 4), round(low, 4), round(high, 4))


# The process that measures


def _request(prepared: PreparedClassify, sample: list[str]) -> MeasureRequest:
    settings, spec = prepared.settings, prepared.spec
    return MeasureRequest(
        model=path_to_text(str(prepared.model.version.path)),
        root=path_to_text(prepared.source.root),
        paths=tuple(path_to_text(path) for path in sample),
        follow_symlinks=spec.reading.follow_symlinks,
        precision=spec.precision,
        device="auto",
        batch_size=settings.batch_size,
        decode_threads=settings.decode_threads,
        max_pixels=settings.max_pixels,
        max_file_bytes=settings.max_file_bytes,
        limit_s=LIMIT_S,
    )


def _measure(request: MeasureRequest, folders: Mapping[str, str]) -> MeasureAnswer:
    """Measure in a process of its own, which is killed if an exception, such as Ctrl-C, ends the wait.

    folders: variables for its libraries.

    Raises PigeonholeError where measuring failed.
    """
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", MEASURE_MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**CHILD_ENVIRONMENT, **folders, **limit_threads(environ), **environ, **SAFE_PATH},
            start_new_session=True,  # a Ctrl-C reaches this process only, which then kills it
        )
        with process:
            try:
                return _exchange(process, request, log)
            finally:
                process.kill()


def _exchange(process: "subprocess.Popen[bytes]", request: MeasureRequest, log: IO[bytes]) -> MeasureAnswer:
    """Send the request and wait for the answer; the pipe to the process stays open until then."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(request.model_dump_json().encode() + b"\n")
        process.stdin.flush()
    except BrokenPipeError:  # it ended before it read the request; its log says why
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
    line = process.stdout.readline()
    if not line:
        process.wait()
        log.seek(0)
        last = log.read().decode(errors="backslashreplace").strip().splitlines()[-1:]
        raise PigeonholeError(describe_end(process.returncode, "".join(last)))
    try:
        answer = MeasureAnswer.model_validate_json(line)
    except ValueError as err:
        raise MessageError(f"measuring gave an answer that cannot be read: {line[:100]!r}") from err
    if answer.error:
        raise PigeonholeError(answer.error)
    return answer


def describe_end(code: int, last: str) -> str:
    """How measuring ended without an answer. last: the last line that it wrote."""
    if code == -signal.SIGKILL:
        return (
            f"measuring was killed; most likely memory ran out: this process may use {memory_total() / 1e9:.1f} GB "
            "(`pigeonhole doctor` shows the quota); raise the limit, set a smaller PIGEONHOLE_BATCH_SIZE or use a "
            "smaller model"
        )
    return f"measuring ended with exit code {code}: {last or 'it wrote nothing'}"
