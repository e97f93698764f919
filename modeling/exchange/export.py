"""Exports a model as one ONNX file, checked against torch, or as a plain folder: safetensors, JSON and a README.

`modeling.networks.onnx_graph` describes the ONNX file. In the folder `model.safetensors` and `model.json` are
byte-identical to those of the published version: importing the folder gives the same model, with the same digest. Its
`README.md` explains how to use them without Pigeonhole.
"""

# Shapes: B images, H height, W width, C channels, L labels.
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from modeling.durable import published_output
from modeling.errors import ModelingError
from modeling.inference.classifier import Classifier
from modeling.networks.architectures import get_architecture
from modeling.networks.onnx_graph import write_graph
from modeling.registry.card import CARD_FILE, INT8_FILE, WEIGHTS_FILE, ModelCard

MAX_DIFFERENCE = 1e-3  # between logits of torch and of ONNX Runtime, both in float32
_MAX_BYTES = 2_000_000_000  # protobuf is limited to 2 GiB
_CHECKED_BATCHES = (1, 3)  # sizes that differ from the one used for tracing the graph
README_FILE = "README.md"

_README = """# {architecture}, {num_labels} labels

An image classifier, exported by Pigeonhole.

| file | what |
|---|---|
| `model.safetensors` | the weights: a state dict of torch, read by `safetensors.torch.load_file` |
| `model.json` | all else; its keys are below |
| `int8.onnx` | the quantised network, where there is one: takes pixels as bytes, gives logits |

| key of `model.json` | what |
|---|---|
| `architecture` | the network's name: {origin} |
| `labels` | the names of the network's outputs, in their order |
| `preprocessing` | how an image becomes the network's input |
| `calibration` | temperature and thresholds, or null |
| `metrics`, `training` | how good it was, and how it was made |
| `weights_sha256` | of the bytes of `model.safetensors` |
| `format_version` | of this format |

From an image to the input: turn it as its EXIF orientation says, lay it over `background`, convert it to `mode`
(`L` is grey). {sizes} Then (pixel / 255 - `mean`) / `std` for each channel, as float32, channels first.

From the output to a decision: scores = softmax(logits / `calibration.temperature`). The best label is accepted if its
score reaches that label's number in `calibration.accept`, rejected below `calibration.reject_below`, and else left to a
person. Without calibration the temperature is 1 and nothing is decided.

```python
import json
import safetensors.torch
{loading}
```

`pigeonhole models import FOLDER --name NAME` makes it a model of Pigeonhole again, the very same.
"""
_STRETCHED = "Scale the whole image to `height` x `width` px, bilinear with antialiasing."
_CUT = "Scale its shorter side to `resize` px, bilinear with antialiasing, and keep its middle `height` x `width` px."
_TORCHVISION = """import torchvision

card = json.load(open("model.json"))
network = torchvision.models.get_model("{architecture}", num_classes=len(card["labels"]){options})
{changes}network.load_state_dict(safetensors.torch.load_file("model.safetensors"))
network.eval()"""
_OWN = """from modeling.networks.build import build_network  # Pigeonhole
from modeling.images.preprocessing import Preprocessing

card = json.load(open("model.json"))
preprocessing = Preprocessing.from_json(card["preprocessing"])
network = build_network("{architecture}", preprocessing, len(card["labels"]))
network.load_state_dict(safetensors.torch.load_file("model.safetensors"))
network.eval()"""


@dataclass(frozen=True, slots=True)
class OnnxExport:
    """The result of an export. `largest_difference`: between logits of torch and of ONNX Runtime on random images."""

    path: Path
    opset: int
    size_bytes: int
    largest_difference: float

    def to_json(self) -> dict[str, Any]:
        """A dict that JSON can hold."""
        return asdict(self) | {"path": str(self.path)}


def export_onnx(model: Path, output: Path) -> OnnxExport:
    """Write the model in folder `model` to the file `output`, which must not exist yet.

    The file is compared with torch on random images, with batch sizes that differ from the one used for tracing.

    Raises:
        ModelingError: the output exists, the model is too large for one file, or its logits differ from torch's.
        ModelFormatError: the model is damaged.
    """
    classifier = Classifier.load(model)
    _check_size(classifier.network)
    with published_output(output) as written:
        opset = write_graph(classifier.network, classifier.card, written)
        difference = _largest_difference(classifier, written)
        if not difference < MAX_DIFFERENCE:
            raise ModelingError(
                f"the ONNX file's logits differ from the model's by up to {difference:.2g}, {MAX_DIFFERENCE:g} is "
                "allowed; nothing was written, use `--format folder` to export the weights"
            )
        size_bytes = written.stat().st_size
    return OnnxExport(output, opset, size_bytes, difference)


def _check_size(network: nn.Module) -> None:
    size_bytes = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    if size_bytes > _MAX_BYTES:
        raise ModelingError(
            f"the weights take {size_bytes / 1e9:.1f} GB, more than one ONNX file holds (2 GB); export a folder"
        )


def _largest_difference(classifier: Classifier, path: Path) -> float:
    """The largest difference between the logits of torch and of ONNX Runtime; NaN if a logit is NaN."""
    from modeling.networks.onnxruntime_library import onnxruntime  # slow to import

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    differences: list[NDArray[np.float32]] = []
    for num_images in _CHECKED_BATCHES:
        images_BHWC = rng.integers(0, 256, (num_images, *classifier.preprocessing.shape), dtype=np.uint8)
        logits_BL, _ = session.run(["logits", "scores"], {"images": images_BHWC})
        differences.append(np.abs(logits_BL - classifier.logits(images_BHWC)).ravel())
    return float(np.concatenate(differences).max())


@dataclass(frozen=True, slots=True)
class FolderExport:
    """The result of an export."""

    path: Path
    size_bytes: int

    def to_json(self) -> dict[str, Any]:
        """A dict that JSON can hold."""
        return {"path": str(self.path), "size_bytes": self.size_bytes}


def export_folder(model: Path, output: Path) -> FolderExport:
    """Write the model in folder `model` to the folder `output`, which must not exist yet.

    Raises:
        ModelingError: the output exists or cannot be written.
        ModelFormatError: the model is damaged.
    """
    card = Classifier.load(model).card
    with published_output(output) as written:
        written.mkdir()
        for name in (CARD_FILE, WEIGHTS_FILE, *([INT8_FILE] if (model / INT8_FILE).is_file() else [])):
            shutil.copyfile(model / name, written / name)
        (written / README_FILE).write_text(_readme(card), encoding="utf-8")
        size_bytes = sum(path.stat().st_size for path in written.iterdir())
    return FolderExport(output, size_bytes)


def _readme(card: ModelCard) -> str:
    of_torchvision = get_architecture(card.architecture).family == "torchvision"
    loading = _loading_torchvision(card) if of_torchvision else _OWN.format(architecture=card.architecture)
    return _README.format(
        architecture=card.architecture,
        num_labels=len(card.labels),
        origin="torchvision's" if of_torchvision else "of Pigeonhole's own (its module `modeling.networks`)",
        sizes=_STRETCHED if card.preprocessing.resize is None else _CUT,
        loading=loading,
    )


def _loading_torchvision(card: ModelCard) -> str:
    """Code that builds the network with torchvision alone, with Pigeonhole's changes."""
    name, options, changes = card.architecture, "", []
    if name in ("googlenet", "inception_v3"):
        options = ", aux_logits=False, transform_input=True, init_weights=False"
    if name.startswith("vit_"):
        options = f", image_size={card.preprocessing.height}"
    if name.startswith("maxvit"):
        options = f", input_size=({card.preprocessing.height}, {card.preprocessing.width})"
        changes.append('network.classifier[5] = torch.nn.Linear(512, len(card["labels"]))  # with a bias')
    if name.startswith("squeezenet"):
        changes.append("network.classifier[2] = torch.nn.Identity()  # no ReLU after the last convolution")
    if card.preprocessing.channels == 1:
        changes.append(
            "network.register_forward_pre_hook(lambda _, inputs: (inputs[0].expand(-1, 3, -1, -1),))  # grey"
        )
    lines = "".join(f"{line}\n" for line in changes)
    imports = "import torch\n" if changes else ""
    return imports + _TORCHVISION.format(architecture=name, options=options, changes=lines)
