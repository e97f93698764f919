"""Our part of `benchmarks.throughput`: the bounds, the library in this process, and whole jobs."""

import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from modeling.images.decode import decode_image
from modeling.inference.choose_engine import load_fastest
from modeling.inference.classifier import Classifier
from modeling.inference.decoders import Chunk, Decoders
from modeling.inference.pipeline import predict_units
from modeling.registry.store import ModelVersion
from orchestrator.contract.settings import Settings
from orchestrator.jobs.follow import follow
from orchestrator.jobs.prepare import prepare
from orchestrator.jobs.specs import ClassifySpec
from orchestrator.jobs.submit import JobClient
from orchestrator.stack.stack import Stack
from workers.classify.read import ImageReader

TOP_K = 5
MODEL_ALONE_S = 3.0  # at least so long: the network's speed does not depend on the number of images


def load_classifier(version: ModelVersion, device: str = "cpu") -> Classifier:
    """The classifier that a worker on this machine would load."""
    return load_fastest(version, device)


@dataclass
class Subject:
    """A folder of images and a network, ready to classify on a device."""

    folder: Path
    version: ModelVersion
    settings: Settings
    device: str = "cpu"
    paths: list[str] = field(init=False)
    batch: np.ndarray = field(init=False)  # of the first images, BHWC

    def __post_init__(self) -> None:
        found = (path for path in self.folder.rglob("*") if path.is_file())
        self.paths = sorted(str(path.relative_to(self.folder)) for path in found)
        self.reader = ImageReader(str(self.folder), follow_symlinks=False, max_file_bytes=self.settings.max_file_bytes)
        self.classifier = load_classifier(self.version, self.device)
        size = self.classifier.batch_size
        first = (self.paths * size)[:size]
        self.batch = np.stack([self._decode(path) for path in first])
        self.classifier.predict(self.batch, TOP_K)  # the first call prepares what later ones use

    def decode(self) -> float:
        """Images per second, read and decoded by the library's decode threads, without prediction."""
        sources = [self.reader.source(path) for path in self.paths]
        decoders = Decoders(
            self.classifier.preprocessing, self.settings.max_pixels, batch_decoder=self.classifier.batch_decoder
        )
        waiting: deque[Future[Chunk]] = deque()
        at = num_images = 0
        started = time.perf_counter()
        while at < len(sources) or waiting:
            while at < len(sources) and len(waiting) <= 2 * decoders.num_threads:
                size = decoders.chunk_size
                waiting.append(decoders.submit(sources[at : at + size]))
                at += size
            num_images += len(waiting.popleft().result().images)
        elapsed_s = time.perf_counter() - started
        decoders.close()
        assert num_images == len(sources)
        return num_images / elapsed_s

    def model(self) -> float:
        """Images per second of the network alone, with the same batch repeated, on all its streams."""
        num_streams = self.classifier.num_streams
        batches = [self.batch] * (4 * num_streams)
        started, num_images = time.perf_counter(), 0
        with ThreadPoolExecutor(num_streams) as pool:
            while (elapsed_s := time.perf_counter() - started) < MODEL_ALONE_S:
                list(pool.map(lambda batch: self.classifier.predict(batch, TOP_K), batches))
                num_images += len(self.batch) * len(batches)
        return num_images / elapsed_s

    def library(self) -> float:
        """Images per second of a worker's pipeline, without queue, parts and manifest."""
        started = time.perf_counter()
        results = predict_units([map(self.reader.source, self.paths)], self.classifier, top_k=TOP_K)
        num_good = sum(prediction.ok for result in results for prediction in result.predictions)
        assert num_good == len(self.paths), f"{len(self.paths) - num_good} images failed"
        return num_good / (time.perf_counter() - started)

    def _decode(self, path: str) -> np.ndarray:
        return decode_image(self.reader.read(path), self.classifier.preprocessing)


def measure_jobs(subject: Subject, outputs: Path) -> tuple[float, float]:
    """Images per second of two whole jobs: one by a worker that starts first, one by the same worker afterwards.

    The first counts from the start of the worker, the second from the job's submission; both to the published manifest.
    outputs: a folder for the manifests that is not there yet.
    """
    outputs.mkdir()
    stack = Stack(subject.settings)
    stack.up([])
    try:
        started = time.perf_counter()
        stack.up(["cuda:0" if subject.device == "cuda" else subject.device])
        _classify(subject, outputs / "cold.csv")
        between = time.perf_counter()
        _classify(subject, outputs / "warm.csv")
        finished = time.perf_counter()
    finally:
        stack.down()
    return len(subject.paths) / (between - started), len(subject.paths) / (finished - between)


def _classify(subject: Subject, manifest: Path) -> None:
    """Submit a job and follow it to its end."""
    client = JobClient(subject.settings)
    spec = ClassifySpec(str(subject.folder), subject.version.name, output=manifest)
    job = client.submit(prepare(subject.settings, spec)).job
    for snapshot in follow(subject.settings, client.ledger, job):
        record = snapshot.record
    client.ledger.client.close()
    assert record.state == "succeeded", record
    assert record.num_failed == 0, record
