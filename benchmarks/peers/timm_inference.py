"""timm's inference: follows the script `inference.py` of timm's repository, which is not in its wheel.

As there: `create_dataset`, `create_loader` with its prefetcher, the best label of each image, a CSV file at the end.
Its defaults are 2 processes that decode, batches of 256, float32; `--amp`, `--channels-last` and `--compile` stand for
its `--amp --amp-dtype bfloat16`, `--channels-last` and `--torchcompile`. Images are resized as our networks want them
(its `--crop-pct` and `--interpolation`).
"""

from benchmarks.peers.order import Order

if __name__ == "__main__":
    order = Order.begin(__doc__)

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import timm
import torch
from timm.data import create_dataset, create_loader

from benchmarks.peers.networks import MEAN, RESIZE, SIDE, SMALL_SIDE, STD, build, mode

NAMES = {"mobilenet_v2": "mobilenetv2_100"}  # where timm has another name than torchvision


def build_network(order: Order) -> torch.nn.Module:
    """timm's network of that architecture with random weights; it has no `cnn`, so that is the plain one."""
    name = NAMES.get(order.network, order.network)
    network = build("cnn") if name == "cnn" else timm.create_model(name, pretrained=False).eval()
    if order.channels_last:
        network = network.to(memory_format=torch.channels_last)
    return torch.compile(network) if order.compile else network


def make_loader(order: Order) -> Any:
    """timm's loader over the folder."""
    colours = mode(order.network)
    wanted: dict[str, Any] = {
        "input_size": (3, SIDE, SIDE), "crop_pct": SIDE / RESIZE, "interpolation": "bilinear", "mean": MEAN, "std": STD,
    }  # fmt: skip
    if order.network == "cnn":
        wanted |= {"input_size": (1, SMALL_SIDE, SMALL_SIDE), "crop_pct": 1.0, "mean": (0.5,), "std": (0.5,)}
    dataset = create_dataset("", root=str(order.folder), split="validation", input_img_mode=colours)
    return create_loader(
        dataset, batch_size=order.batch_size, num_workers=order.workers, device=torch.device("cpu"), **wanted
    )


def classify(order: Order, network: torch.nn.Module, loader: Any) -> Iterator[tuple[str, int, float]]:
    """A row for every image, in the order of the dataset."""
    names = iter(loader.dataset.filenames())
    layout = torch.channels_last if order.channels_last else torch.contiguous_format
    amp = torch.autocast("cpu", torch.bfloat16) if order.amp else contextlib.nullcontext()
    with torch.inference_mode():
        for images, _ in loader:
            with amp:
                answers = network(images.contiguous(memory_format=layout))
            scores, labels = answers.float().softmax(-1).topk(1, dim=-1)
            for label, score in zip(labels[:, 0].tolist(), scores[:, 0].tolist(), strict=True):
                yield next(names), label, score


def main(order: Order) -> None:
    """Classify the folder and answer."""
    network, loader = build_network(order), make_loader(order)
    ready = time.perf_counter()
    order.finish("timm", classify(order, network, loader), ready, ("timm", "torch", "pillow"))


if __name__ == "__main__":
    main(order)
