"""What is measured: a home with a local stack, a model with two versions, images, and an open line."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import redis

from benchmarks.throughput_folders import FOLDERS
from benchmarks.throughput_networks import publish_network
from modeling.registry.card import CARD_FILE
from modeling.registry.store import ModelStore, ModelVersion
from orchestrator.contract.lines.registry import LineRegistry
from orchestrator.contract.lines.settings import Line, LineSettings
from orchestrator.contract.lines.status import LineStatus, read_status
from orchestrator.contract.lines.store import LineStore
from orchestrator.contract.server import connect_raw
from orchestrator.contract.settings import Settings
from orchestrator.stack.stack import SERVER, Stack

DATA = Path("../shared/data")
WEIGHTS = DATA / "weights" / "mobilenet_v2_rebuilt.pth"
MODEL, ALIAS, LINE = "bench", "champion", "bench"
FALLBACK, REVIEW, NUM_BINS = "fallback", "review", 50
OPEN_S = 300.0  # a network is compiled and measured, maybe beside others that do
NUM_IMAGES = 200  # distinct ones that are pushed
GIB = 1 << 30


@dataclass(frozen=True)
class Subject:
    """What is classified: `photographs` by mobilenet_v2, or `digits` by a small network."""

    network: str
    folder: str

    @property
    def title(self) -> str:
        return f"{self.network} on {self.folder}"


PHOTOGRAPHS, DIGITS = Subject("mobilenet_v2", "photographs"), Subject("cnn", "digits")


class System:
    """The running system; `server_pid` and `worker_pids` are those of its processes."""

    def __init__(self, folder: Path, subject: Subject) -> None:
        self.folder, self.subject = folder, subject
        self.settings = Settings(home=folder / "home", server_url=None)
        self.stack = Stack(self.settings)
        self.images = folder / "images"
        self.weights, self.versions = "", list[ModelVersion]()
        self.contents = ""
        self._more_workers: list[subprocess.Popen[bytes]] = []

    def prepare(self, num_images: int = NUM_IMAGES) -> None:
        """Make model and images, unless an earlier run of this folder has."""
        if not self.images.exists():
            self.contents = FOLDERS[self.subject.folder](self.images, num_images)
        store = ModelStore(self.settings.models)
        if not self.settings.models.exists() or not store.list():
            version, self.weights = publish(store, self.subject)
            self.versions = [version, publish_again(store, version, self.folder / "again")]
            store.set_alias(version, ALIAS)
        else:
            self.versions = [store.resolve(f"{MODEL}@{number}") for number in (1, 2)]

    def start(self, **changes: object) -> None:
        """Start server, worker and line, and wait until the line is open."""
        self.stack.up(["cpu"])
        self.client = connect_raw(self.url)
        self.registry = LineRegistry(self.settings, self.client)
        if LINE not in self.registry.names():
            self.registry.create(line_settings(self.versions[0], **changes))
        self.store = LineStore(self.client, LINE)
        self.wait_until_open()

    def wait_until_open(self, num_workers: int = 1) -> None:
        """Raises TimeoutError, which tells the line's state."""
        end = time.monotonic() + OPEN_S
        while sum(worker.is_open for worker in self.status().workers) < num_workers:
            if time.monotonic() > end:
                raise TimeoutError(f"the line is not open after {OPEN_S:.0f} s: {self.status()}")
            time.sleep(0.05)

    def status(self) -> LineStatus:
        return read_status(self.store, self.line)

    @property
    def line(self) -> Line:
        return self.registry.get(LINE)

    @property
    def url(self) -> str:
        return (self.stack.folder / "url").read_text()

    @property
    def facts(self) -> dict[str, Any]:
        """What the first worker says of itself and the line."""
        return next((worker.facts for worker in self.status().workers if worker.is_open), {})

    @property
    def bound_ms(self) -> float:
        """The stated bound of a push's wait for the device."""
        return self.status().bound_ms or float("nan")

    def counts(self) -> dict[str, int]:
        """The counts of the line on its server."""
        return self.store.counts()

    # Processes

    @property
    def server(self) -> psutil.Process:
        return self._process(SERVER)

    @property
    def worker(self) -> psutil.Process:
        """The parent of the first worker."""
        return next(psutil.Process(process.pid) for process in self.stack.processes() if process.name != SERVER)

    def worker_processes(self) -> list[psutil.Process]:
        """All processes of all workers."""
        parents = [psutil.Process(process.pid) for process in self.stack.processes() if process.name != SERVER]
        parents += [psutil.Process(worker.pid) for worker in self._more_workers if worker.poll() is None]
        found = []
        for parent in parents:
            with suppress(psutil.Error):
                found += [parent, *parent.children(recursive=True)]
        return [process for process in found if process.is_running()]

    def add_worker(self) -> subprocess.Popen[bytes]:
        """Start one more worker."""
        environment = os.environ | {
            "PIGEONHOLE_HOME": str(self.settings.home), "PIGEONHOLE_SERVER_URL": self.url
        }  # fmt: skip
        log = (self.folder / f"worker-{len(self._more_workers)}.log").open("wb")
        with log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "workers", "--device", "cpu"], env=environment, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        self._more_workers.append(worker)
        return worker

    def signal_workers(self, number: signal.Signals) -> None:
        """Send a signal to all processes of all workers."""
        for process in self.worker_processes():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def stop(self) -> None:
        """End every process that was started."""
        for worker in self._more_workers:
            with suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
        with suppress(redis.RedisError):
            self.stack.down()

    def _process(self, name: str) -> psutil.Process:
        return next(psutil.Process(process.pid) for process in self.stack.processes() if process.name == name)


def line_settings(version: ModelVersion, **changes: object) -> LineSettings:
    """A line whose bounds no benchmark reaches; every label has a bin."""
    labels = version.card().labels
    bins: dict[str, tuple[str, ...]] = {label: (f"bin-{number % NUM_BINS}",) for number, label in enumerate(labels)}
    settings = LineSettings(
        LINE, f"{MODEL}@{ALIAS}", FALLBACK, REVIEW, deadline_ms=60_000, bins=bins, max_requests=100_000, max_bytes=GIB
    )
    return replace(settings, **changes)  # type: ignore[arg-type]  # by their names


def publish(store: ModelStore, subject: Subject) -> tuple[ModelVersion, str]:
    """The subject's network as a model, and what its weights are: trained ones where the data are here."""
    if subject != PHOTOGRAPHS or not WEIGHTS.exists():
        return publish_network(store.root, subject.network, MODEL), "random"
    from modeling.exchange.import_weights import WeightsImport, stage_weights

    staged, labels = store.root.parent / "staged", store.root.parent / "labels.json"
    staged.mkdir(parents=True)
    index = json.loads((DATA / "imagenet_samples" / "imagenet_class_index.json").read_bytes())
    labels.write_text(json.dumps([f"{index[str(number)][1]} ({number})" for number in range(len(index))]))
    stage_weights(WeightsImport(WEIGHTS, subject.network, labels), staged)
    return store.publish(staged, MODEL), WEIGHTS.name


def publish_again(store: ModelStore, version: ModelVersion, staged: Path) -> ModelVersion:
    """The same network as another version: only its card differs."""
    staged.mkdir()
    for file in version.files():
        shutil.copy(version.path / file, staged / file)
    (staged / CARD_FILE).write_bytes(replace(version.card(), training={"again": True}).to_bytes())
    return store.publish(staged, version.name)


@contextmanager
def open_system(folder: Path, subject: Subject, **changes: object) -> Iterator[System]:
    """A running system, stopped at the end. changes: of the line's settings."""
    system = System(folder, subject)
    system.prepare()
    try:
        system.start(**changes)
        yield system
    finally:
        system.stop()
