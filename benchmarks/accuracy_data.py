"""The data sets of `benchmarks.accuracy`, in the forms that training takes."""

import csv
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

IMAGENET_LABELS = "imagenet.json"
TEST_FONTS = 152  # of 1,016: 15 %


def mnist(data: Path, scratch: Path) -> Path:
    """MNIST's idx files, unchanged."""
    return data / "mnist"


def photographs(name: str) -> Callable[[Path, Path], Path]:
    """A folder of photographs, unchanged."""
    return lambda data, scratch: data / name


def imagenet(data: Path, scratch: Path) -> Path:
    """A list of photographs with their ImageNet classes; beside it IMAGENET_LABELS, the thousand names."""
    source, listed = data / "imagenet_samples", scratch / "samples.csv"
    classes = json.loads((source / "imagenet_class_index.json").read_bytes())
    names = [classes[str(number)][1] for number in range(len(classes))]  # two of them are those of two classes
    labels = [f"{name} ({number})" if names.count(name) > 1 else name for number, name in enumerate(names)]
    (scratch / IMAGENET_LABELS).write_text(json.dumps(labels))
    with (source / "labels.csv").open(newline="") as file, listed.open("w", newline="") as out:
        rows = [(source / row["file"], labels[int(row["imagenet_index"])]) for row in csv.DictReader(file)]
        csv.writer(out).writerows([("path", "label"), *rows])
    return listed


def cifar10(data: Path, scratch: Path) -> Path:
    """CIFAR-10 as 60,000 JPEGs in train/ and test/, unpacked once."""
    folder = scratch / "cifar10"
    if not folder.exists():
        with tarfile.open(data / "cifar10" / "cifar10_jpeg_60000.tar.xz") as archive:
            archive.extractall(folder, filter="data")
    inner = [path.parent for path in folder.rglob("train") if path.is_dir()]
    return inner[0]


def characters(data: Path, scratch: Path) -> Path:
    """Printed characters as idx files; no font is in both the training part and the test part."""
    folder = scratch / "characters"
    if not folder.exists():
        folder.mkdir()
        archive = np.load(data / "chars74k_fnt" / "chars74k_fnt_28x28.npz", allow_pickle=False)
        images, names = archive["images"], archive["labels"]
        labels, targets = np.unique(names, return_inverse=True)
        num_fonts = len(images) // len(labels)
        assert (targets.reshape(len(labels), num_fonts) == np.arange(len(labels))[:, None]).all()
        fonts = np.arange(len(images)) % num_fonts  # every class has every font, in the same order
        held_out = np.random.default_rng(0).permutation(num_fonts)[:TEST_FONTS]
        is_test = np.isin(fonts, held_out)
        for part, chosen in (("train", ~is_test), ("t10k", is_test)):
            _write_idx(folder / f"{part}-images-idx3-ubyte", images[chosen])
            _write_idx(folder / f"{part}-labels-idx1-ubyte", targets[chosen].astype(np.uint8))
    return folder


def _write_idx(path: Path, values: NDArray[np.uint8]) -> None:
    shape = b"".join(size.to_bytes(4, "big") for size in values.shape)
    path.write_bytes(bytes((0, 0, 8, values.ndim)) + shape + np.ascontiguousarray(values).tobytes())
