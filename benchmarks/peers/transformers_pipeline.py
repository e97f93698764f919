"""The image-classification pipeline of transformers, over a dataset of paths, in float32.

Model and image processor are made from configurations: nothing comes from a hub. It has no `cnn`.
"""

from benchmarks.peers.order import Order

if __name__ == "__main__":
    order = Order.begin(__doc__)

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import (
    ConvNextImageProcessor,
    MobileNetV2Config,
    MobileNetV2ForImageClassification,
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
    pipeline,
)

from benchmarks.peers.networks import MEAN, NUM_LABELS, RESIZE, SIDE, STD

RESNETS: dict[str, dict[str, Any]] = {
    "resnet18": {"layer_type": "basic", "depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512]},
    "resnet50": {"layer_type": "bottleneck", "depths": [3, 4, 6, 3], "hidden_sizes": [256, 512, 1024, 2048]},
}


class Paths(Dataset):
    """The pipeline opens the images itself, in the DataLoader's processes."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = [str(path) for path in paths]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> str:
        return self.paths[index]


def build_model(network: str) -> PreTrainedModel:
    """A model of that architecture with random weights."""
    torch.manual_seed(0)
    if network == "mobilenet_v2":
        config = MobileNetV2Config(num_labels=NUM_LABELS, tf_padding=False)
        return MobileNetV2ForImageClassification(config)
    return ResNetForImageClassification(ResNetConfig(num_labels=NUM_LABELS, **RESNETS[network]))


def classify(order: Order, pipe: Any) -> Iterator[tuple[str, int, float]]:
    """A row for every image, in order."""
    dataset = Paths(order.images())
    answers = pipe(dataset, batch_size=order.batch_size, num_workers=order.workers, top_k=1)
    for path, (best,) in zip(dataset.paths, answers, strict=True):
        yield path, pipe.model.config.label2id[best["label"]], best["score"]


def main(order: Order) -> None:
    """Classify the folder and answer."""
    processor = ConvNextImageProcessor(
        size={"shortest_edge": SIDE}, crop_pct=SIDE / RESIZE, image_mean=MEAN, image_std=STD
    )
    model = build_model(order.network).eval()
    pipe = pipeline("image-classification", model=model, image_processor=processor, device="cpu")
    ready = time.perf_counter()
    order.finish("transformers", classify(order, pipe), ready, ("transformers", "torch", "pillow"))


if __name__ == "__main__":
    main(order)
