"""Exports a model as a plain folder: safetensors, JSON, and a README that explains them.

`model.safetensors` and `model.json` are byte-identical to those of the published version: importing the folder gives
the same model, with the same digest. `README.md` explains how to use them without Pigeonhole.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modeling.durable import published_output
from modeling.inference.classifier import Classifier
from modeling.networks.architectures import get_architecture
from modeling.registry.card import CARD_FILE, INT8_FILE, WEIGHTS_FILE, ModelCard

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
