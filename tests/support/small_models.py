"""A model that tells dark from light images, and images of one brightness in a folder for each class."""

import hashlib
import io
from pathlib import Path

import safetensors.torch
import torch
from PIL import Image

from modeling.images.preprocessing import Preprocessing
from modeling.metrics.calibration import Calibration
from modeling.networks.build import build_network
from modeling.registry.card import CARD_FILE, WEIGHTS_FILE, ModelCard

SIDE = 4
LIGHT_DARK = ("dark", "light")


def make_model(
    folder: Path,
    *,
    labels: tuple[str, ...] = LIGHT_DARK,
    threshold: int = 128,
    slope: float = 1.0,
    calibration: Calibration | None = None,
) -> Path:
    """A perceptron that says `light` from brightness `threshold` up; logits differ by `slope` for each step of it."""
    preprocessing = Preprocessing("L", SIDE, SIDE)  # the network takes brightness / 127.5 - 1
    network = build_network("perceptron", preprocessing, len(labels))
    state = network.state_dict()
    weight, bias = (next(name for name in state if name.endswith(end)) for end in ("weight", "bias"))
    light = labels.index("light")
    state = {weight: torch.zeros_like(state[weight]), bias: torch.full_like(state[bias], -50.0)}
    state[bias][labels.index("dark")] = 0.0
    state[weight][light] = slope * 127.5 / SIDE**2
    state[bias][light] = slope * (128.0 - threshold)
    data = safetensors.torch.save(state)
    card = ModelCard("perceptron", labels, preprocessing, hashlib.sha256(data).hexdigest(), calibration=calibration)
    folder.mkdir(parents=True)
    (folder / WEIGHTS_FILE).write_bytes(data)
    (folder / CARD_FILE).write_bytes(card.to_bytes())
    return folder


def png(brightness: int) -> bytes:
    data = io.BytesIO()
    Image.new("L", (SIDE, SIDE), brightness).save(data, "png")
    return data.getvalue()


def make_data(folder: Path, **brightness: list[int]) -> Path:
    """`<label>/<brightness>.png` for each label's images."""
    for label, values in brightness.items():
        (folder / label).mkdir(parents=True)
        for value in values:
            (folder / label / f"{value:03}.png").write_bytes(png(value))
    return folder


def write_split(model: Path, parts: dict[Path, str]) -> None:
    """A `split.csv` that says in which part of the training each image file was."""
    lines = ["name,label,part,sha256,group"]
    for path, part in parts.items():
        lines.append(f"{path.name},{path.parent.name},{part},{hashlib.sha256(path.read_bytes()).hexdigest()},0")
    (model / "split.csv").write_text("\n".join(lines) + "\n")
