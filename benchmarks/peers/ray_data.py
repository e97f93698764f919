"""Ray Data's batch inference, as its documentation shows it: read_images, map, map_batches with a class of actors.

An actor has one core, as is Ray's default, and there is one for every two cores: the other half reads and decodes.
`seconds_steady` begins when the first actor has its network; what was decoded until then is Ray's gain.
"""

import os
import secrets

from benchmarks.peers.order import Order

if __name__ == "__main__":
    order = Order.begin(__doc__)
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # without clusters Ray listens on loopback alone
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # else Ray keeps one in the home directory

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import ray
import torch
from PIL import Image

from benchmarks.peers.networks import build, mode, preprocessing

LOOPBACK = "127.0.0.1"


class Classifier:
    """An actor with its network."""

    def __init__(self, network: str) -> None:
        self.network = build(network)
        self.ready = time.time()  # of the wall: another process's perf_counter means nothing here

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The best label and its score for a batch."""
        with torch.inference_mode():
            scores, labels = self.network(torch.from_numpy(batch["tensor"])).softmax(dim=1).max(dim=1)
        ready = np.full(len(labels), self.ready)
        return {"path": batch["path"], "label": labels.numpy(), "score": scores.numpy(), "ready": ready}


def make_dataset(order: Order) -> Any:
    """The pipeline; nothing runs yet."""
    transform = preprocessing(order.network)

    def prepare(row: dict[str, Any]) -> dict[str, Any]:
        return {"path": row["path"], "tensor": transform(Image.fromarray(np.squeeze(row["image"]))).numpy()}

    images = ray.data.read_images(str(order.folder), mode=mode(order.network), include_paths=True)
    actors = ray.data.ActorPoolStrategy(size=max(1, len(os.sched_getaffinity(0)) // 2))
    return images.map(prepare).map_batches(
        Classifier, fn_constructor_args=(order.network,), batch_size=order.batch_size, compute=actors
    )


def rows(dataset: Any, ready: list[float]) -> Iterator[tuple[str, int, float]]:
    """A row for every image as it comes; `ready` gathers when actors had their networks."""
    for row in dataset.iter_rows():
        ready.append(row["ready"])
        yield row["path"], int(row["label"]), float(row["score"])


def main(order: Order) -> None:
    """Classify the folder and answer."""
    if (address := ray.util.get_node_ip_address()) != LOOPBACK:
        raise SystemExit(f"Ray would listen on {address}, for other machines, too; it has to be {LOOPBACK} alone")
    ray.init(
        address="local", num_cpus=len(os.sched_getaffinity(0)), include_dashboard=False, log_to_driver=False,
        _temp_dir=str(order.output.parent),
    )  # fmt: skip
    ready: list[float] = []
    answers = list(rows(make_dataset(order), ready))
    began = min(ready) - time.time() + time.perf_counter()
    order.finish("ray_data", answers, began, ("ray", "torch", "torchvision", "pillow"))
    ray.shutdown()


if __name__ == "__main__":
    main(order)
