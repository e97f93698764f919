"""Workers of lines inside the test's process, with models that are fakes and a server that is real."""

import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from modeling.images.preprocessing import Preprocessing
from modeling.images.progress import Report
from modeling.inference.prediction import Prediction
from modeling.registry.store import ModelStore, ModelVersion
from orchestrator.contract.lines.registry import LineRegistry
from orchestrator.contract.lines.settings import LineSettings
from orchestrator.contract.server import connect_raw
from orchestrator.contract.settings import Settings
from tests.support.fakes import predict_brightness
from tests.support.published_models import publish_model
from tests.support.pushes import PATIENCE_MS, Pusher, wait_until_open
from workers.device_gate import DeviceGate
from workers.lines.choice import LineChoice
from workers.lines.consumer import ConsumerSettings, LineConsumer, LinesEnd
from workers.lines.files import LineFiles
from workers.lines.loading import LineModels
from workers.lines.model import LineModel


@dataclass
class FakePushPredictor:
    """Says `light` or `dark` by an image's mean.

    before: is called with the brightness of a batch's images, and may raise or wait. batches: what was predicted.
    """

    before: Callable[[list[int]], None] = lambda brightness: None
    preprocessing: Preprocessing = Preprocessing("L", 2, 2)  # noqa: RUF009 frozen
    sizes: tuple[int, ...] = (1, 2, 4)
    num_streams: int = 2
    alone_streams: int = 2
    alone_ms: float = 1.0
    batch_ms: dict[int, float] = field(default_factory=lambda: {1: 1.0, 2: 2.0, 4: 4.0})
    batches: list[list[int]] = field(default_factory=list)

    def predict(self, images: Sequence[np.ndarray], top_k: int) -> list[Prediction]:
        brightness = [int(image.mean()) for image in images]
        self.before(brightness)
        self.batches.append(brightness)
        return [predict_brightness(value) for value in brightness]

    def predict_alone(self, image: np.ndarray, top_k: int) -> Prediction:
        return self.predict([image], top_k)[0]

    def engine_for(self, num_images: int) -> str | None:
        return None

    def size_for(self, num_images: int) -> int:
        return next(size for size in self.sizes if size >= num_images)


class LineHome:
    """A home with lines, whose workers are consumers in this process. Models are published; predictors are fakes."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.client = connect_raw(settings.require_server_url())
        self.registry = LineRegistry(settings, self.client)
        self.models = ModelStore(settings.models)
        self.predictors: dict[str, FakePushPredictor] = {}  # by `name@version`
        self.consumers: list[LineConsumer] = []
        self.loading: Callable[[ModelVersion], None] = lambda version: None

    def publish(self, name: str, seed: int = 0, **predictor: object) -> ModelVersion:
        version = publish_model(self.settings.models, name, seed)
        shutil.rmtree(self.settings.home / f"staged-{name}")
        self.predictors[version.ref] = FakePushPredictor(**predictor)  # type: ignore[arg-type]
        return version

    def predictor(self, ref: str) -> FakePushPredictor:
        return self.predictors[ref]

    def start(self, worker: str, *, draining: Callable[[], bool] = lambda: False, lines: str = "all") -> LineConsumer:
        """Start a worker."""
        settings = ConsumerSettings(
            url=self.settings.require_server_url(),
            worker=worker,
            device="cpu",
            lines=LineChoice.parse(lines),
            max_pixels=self.settings.max_pixels,
            decode_threads=2,
        )
        models = LineModels(self.models, self._load)
        files = LineFiles(self.settings.home / "lines")
        consumer = LineConsumer(settings, models, files, DeviceGate(2), LinesEnd(draining))
        self.consumers.append(consumer)
        consumer.start()
        return consumer

    def create(self, name: str, *, workers: int = 1, **changes: object) -> Pusher:
        """Create a line, and wait until so many workers serve it."""
        settings = {
            "name": name,
            "model": "tones",
            "fallback": "F",
            "review": "R",
            "deadline_ms": PATIENCE_MS,
            "bins": {"light": ["L1", "L2"], "dark": ["D"]},
        }
        line = self.registry.create(LineSettings.from_json(settings | changes))
        store = self.registry.store(line)
        if workers:
            wait_until_open(store, workers)
        return Pusher(store)

    def close(self) -> None:
        for predictor in self.predictors.values():
            predictor.before = lambda brightness: None
        for consumer in self.consumers:
            consumer.stop(wait_s=1.0)
        self.client.close()

    def _load(self, version: ModelVersion, report: Report) -> LineModel:
        self.loading(version)
        return LineModel(version.ref, self.predictors[version.ref])


class Gate:
    """Holds up who passes it until it is opened. entered: set when somebody waits."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self._opened = threading.Event()

    def __call__(self, *_: object) -> None:
        self.entered.set()
        assert self._opened.wait(60)

    def open(self) -> None:
        self._opened.set()


def image_file(folder: Path, name: str, data: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(data)
    return path
