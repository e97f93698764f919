"""Models of a few pixels that tell dark from light images or answer at random, and images for them."""

import hashlib
import tempfile
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from modeling.images.preprocessing import Preprocessing
from modeling.inference.classifier import Classifier
from modeling.metrics.calibration import Calibration
from modeling.networks.build import build_network
from modeling.networks.onnx_graph import write_graph
from modeling.registry.card import ModelCard
from tests.support.images import grey_png
from tests.support.published_models import write_model

SIDE = 4
LIGHT_DARK = ("dark", "light")
GREY_8 = Preprocessing("L", 8, 8, mean=(0.4,), std=(0.2,))
TREES = ("ash", "birch", "cedar")
CALIBRATION = Calibration(1.7, 0.01, (0.9, 0.8, 0.95), 0.5, 100, 0.2, 0.1, 0.005)


def make_model(
    folder: Path,
    *,
    labels: tuple[str, ...] = LIGHT_DARK,
    threshold: int = 128,
    slope: float = 1.0,
    calibration: Calibration | None = None,
    training: dict[str, object] | None = None,
) -> Path:
    """A perceptron that predicts `light` from brightness `threshold` on; logits change by `slope` per step."""
    preprocessing = Preprocessing("L", SIDE, SIDE)  # the network takes brightness / 127.5 - 1
    network = build_network("perceptron", preprocessing, len(labels))
    state = network.state_dict()
    weight, bias = (next(name for name in state if name.endswith(end)) for end in ("weight", "bias"))
    light = labels.index("light")
    state = {weight: torch.zeros_like(state[weight]), bias: torch.full_like(state[bias], -50.0)}
    state[bias][labels.index("dark")] = 0.0
    state[weight][light] = slope * 127.5 / SIDE**2
    state[bias][light] = slope * (128.0 - threshold)
    card = ModelCard("perceptron", labels, preprocessing, "", training=training or {}, calibration=calibration)
    return write_model(folder, card, safetensors.torch.save(state))


def make_random_model(folder: Path, architecture: str = "cnn_pyramid", preprocessing: Preprocessing = GREY_8) -> Path:
    """Write a calibrated network with random weights, and a report beside it."""
    torch.manual_seed(0)
    network = build_network(architecture, preprocessing, len(TREES))
    card = ModelCard(architecture, TREES, preprocessing, "", {"test_accuracy": 0.5}, calibration=CALIBRATION)
    write_model(folder, card, safetensors.torch.save(network.state_dict()))
    (folder / "report.html").write_text("for people")
    return folder


def random_images(count: int = 4, preprocessing: Preprocessing = GREY_8) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, *preprocessing.shape), dtype=np.uint8)


def make_data(folder: Path, **brightness: list[int]) -> Path:
    """`<label>/<brightness>.png` for each label's images."""
    for label, values in brightness.items():
        (folder / label).mkdir(parents=True)
        for value in values:
            (folder / label / f"{value:03}.png").write_bytes(grey_png(value))
    return folder


def write_split(model: Path, parts: dict[Path, str]) -> None:
    """A `split.csv` with the part of the training that each image file was in."""
    lines = ["name,label,part,sha256,group"]
    for path, part in parts.items():
        lines.append(f"{path.name},{path.parent.name},{part},{hashlib.sha256(path.read_bytes()).hexdigest()},0")
    (model / "split.csv").write_text("\n".join(lines) + "\n")


def describe_answers(model: str) -> tuple[str, str]:
    """The logits of a model for some images, and the digest of its graph."""
    classifier = Classifier.load(Path(model))
    images = np.random.default_rng(0).integers(0, 256, (5, *classifier.preprocessing.shape), np.uint8)
    logits = classifier.logits(images).tobytes().hex()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        write_graph(classifier.network, classifier.card, path)
        return logits, hashlib.sha256(path.read_bytes()).hexdigest()
