"""The script that everybody writes first: torchvision's ImageFolder, a DataLoader and a loop, in float32."""

from benchmarks.peers.order import Order

if __name__ == "__main__":
    order = Order.begin(__doc__)

import time
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from benchmarks.peers.networks import build, preprocessing


def classify(order: Order, network: torch.nn.Module, loader: DataLoader) -> Iterator[tuple[str, int, float]]:
    """A row for every image, in the order of the dataset."""
    paths = iter(path for path, _ in loader.dataset.samples)  # type: ignore[attr-defined]
    with torch.inference_mode():
        for images, _ in loader:
            scores, labels = network(images).softmax(dim=1).max(dim=1)
            for label, score in zip(labels.tolist(), scores.tolist(), strict=True):
                yield next(paths), label, score


def main(order: Order) -> None:
    """Classify the folder and answer."""
    network = build(order.network)
    dataset = ImageFolder(str(order.folder), preprocessing(order.network))
    loader = DataLoader(dataset, batch_size=order.batch_size, num_workers=order.workers)
    ready = time.perf_counter()
    order.finish("dataloader", classify(order, network, loader), ready, ("torch", "torchvision", "pillow"))


if __name__ == "__main__":
    main(order)
