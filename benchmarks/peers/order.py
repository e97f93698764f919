"""What a peer is asked for on its command line, and what it answers: one line of JSON.

A peer classifies every image below a folder and writes one row an image, as we do. `Order.begin` is called first
thing, before the heavy imports: their time is part of `seconds_whole`.
"""

import argparse
import csv
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

SUFFIXES = (".jpg", ".png")


@dataclass(frozen=True)
class Order:
    """folder: of folders of images. output: the CSV file of the answers. workers: processes that decode.

    started: `time.perf_counter()` at the beginning of the script.
    """

    folder: Path
    network: str
    output: Path
    batch_size: int
    workers: int
    amp: bool
    channels_last: bool
    compile: bool
    started: float = field(default_factory=time.perf_counter)

    @classmethod
    def begin(cls, description: str, arguments: list[str] | None = None) -> "Order":
        """The order on the command line."""
        parser = argparse.ArgumentParser(description=description)
        parser.add_argument("folder", type=Path, help="folder of folders of images")
        parser.add_argument("network", help="cnn, or a name that torchvision knows")
        parser.add_argument("--output", type=Path, required=True, help="CSV file of the answers")
        parser.add_argument("--batch-size", type=int, required=True, help="images in one forward pass")
        parser.add_argument("--workers", type=int, required=True, help="processes that decode")
        parser.add_argument("--amp", action="store_true", help="bfloat16, where autocast finds it safe")
        parser.add_argument("--channels-last", action="store_true", help="memory format of network and images")
        parser.add_argument("--compile", action="store_true", help="torch.compile the network")
        return cls(**vars(parser.parse_args(arguments)))

    def images(self) -> list[Path]:
        """The images of the folder, in order."""
        return sorted(path for path in self.folder.rglob("*") if path.suffix in SUFFIXES)

    def finish(self, peer: str, rows: Iterable[tuple[str, int, float]], ready: float, packages: Iterable[str]) -> None:
        """Write the rows (path, label's number, score) and print the answer.

        ready: `time.perf_counter()` when all was imported and built, so that only the work was left.
        """
        with self.output.open("w", newline="") as file:
            num_images = sum(bool(csv.writer(file).writerow(row)) for row in rows)
        finished = time.perf_counter()
        answer = {
            "peer": peer,
            "num_images": num_images,
            "seconds_whole": round(finished - self.started, 3),
            "seconds_steady": round(finished - ready, 3),
            "images_per_sec": round(num_images / (finished - ready), 3),
            "versions": {name: version(name) for name in packages},
        }
        print(json.dumps(answer), flush=True)
