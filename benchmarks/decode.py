"""How fast images are decoded, and how close to the reference: the figures of `docs/speed.md`.

`python -m benchmarks.decode [--data DIR] [--repeats N]` decodes photographs and 12-megapixel mosaics of them to
224 px, and grey PNGs of 28 x 28 px, with one thread, by our decoder and by Pillow alone, in turns; times are of the
processor, not of the clock.
Then it compares the pixels, and the labels that a network gives to them (mobilenet_v2, 1,000 labels; and those
summed into cat, dog and other). A table for people, then JSON on the last line.
"""

import argparse
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.machine import describe_run
from benchmarks.reference_decode import reference_decode
from benchmarks.throughput_folders import make_digits
from modeling.images.decode import decode_image
from modeling.images.preprocessing import Preprocessing
from modeling.networks.build import build_network, normalise

PREPROCESSING = Preprocessing("RGB", 224, 224, 256, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
DOGS, CATS = slice(151, 269), slice(281, 286)  # of ImageNet's labels
Decoder = Callable[[bytes, Preprocessing], NDArray[np.uint8]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder of the data sets")
    parser.add_argument("--repeats", type=int, default=5, help="how often each decoder goes over the images")
    options = parser.parse_args()
    photographs = [path.read_bytes() for path in sorted((options.data / "cats_dogs").glob("*/*.jpg"))]
    large = mosaics(photographs, 6)
    with tempfile.TemporaryDirectory(prefix="ph-bench-") as scratch:
        make_digits(Path(scratch) / "digits", 2000)
        digits = [path.read_bytes() for path in Path(scratch).rglob("*.png")]
    found = {
        **describe_run("decode"),
        "photographs": speeds(photographs[::7], options.repeats),
        "12_megapixels": speeds(large, options.repeats),
        "digits": speeds(digits, options.repeats, Preprocessing("L", 28, 28)),
        "agreement": agreement(photographs, options.data),
        "agreement_at_a_half": agreement(enlarged(photographs[::7], 2), options.data),
        "agreement_12_megapixels": pixel_difference(large),
    }
    agreements = [name for name in found if name.startswith("agreement")]
    for name in ("photographs", "12_megapixels", "digits", *agreements):
        print(name, json.dumps(found[name]))
    print(json.dumps(found))


def mosaics(photographs: Sequence[bytes], count: int) -> list[bytes]:
    """JPEGs of 4032 x 3024 px, each made of 64 photographs."""
    made = []
    for number in range(count):
        mosaic = Image.new("RGB", (4032, 3024))
        for place in range(64):
            tile = Image.open(io.BytesIO(photographs[(64 * number + place) % len(photographs)])).convert("RGB")
            mosaic.paste(tile.resize((504, 378)), (place % 8 * 504, place // 8 * 378))
        file = io.BytesIO()
        mosaic.save(file, "JPEG", quality=90)
        made.append(file.getvalue())
    return made


def enlarged(photographs: Sequence[bytes], factor: int) -> list[bytes]:
    """The photographs at the smallest size that is decoded at a half (factor 2), a quarter or an eighth."""
    assert PREPROCESSING.resize is not None
    made = []
    for data in photographs:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        scale = 2 * factor * PREPROCESSING.resize / min(image.size)
        size = (round(scale * image.width) + 1, round(scale * image.height) + 1)
        file = io.BytesIO()
        image.resize(size, Image.Resampling.LANCZOS).save(file, "JPEG", quality=92)
        made.append(file.getvalue())
    return made


def speeds(files: Sequence[bytes], repeats: int, preprocessing: Preprocessing = PREPROCESSING) -> dict[str, float]:
    """Images per second of processor time, medians of alternating repeats."""
    ours, plain = [], []
    for _ in range(repeats):
        ours.append(per_second(decode_image, files, preprocessing))
        plain.append(per_second(reference_decode, files, preprocessing))
    ratio = statistics.median(a / b for a, b in zip(ours, plain, strict=True))
    return {
        "ours_images_per_sec": round(statistics.median(ours), 1),
        "pillow_images_per_sec": round(statistics.median(plain), 1),
        "ratio": round(ratio, 2),
    }


def per_second(decode: Decoder, files: Sequence[bytes], preprocessing: Preprocessing) -> float:
    """Images per second of processor time."""
    started = time.process_time()
    for data in files:
        decode(data, preprocessing)
    return len(files) / (time.process_time() - started)


def pixel_difference(files: Sequence[bytes]) -> dict[str, float]:
    """Mean and largest difference of pixels, of 255."""
    differences = [
        np.abs(decode_image(data, PREPROCESSING).astype(int) - reference_decode(data, PREPROCESSING)) for data in files
    ]
    means = [float(difference.mean()) for difference in differences]
    return {"mean_difference": round(statistics.mean(means), 4), "worst_image_mean": round(max(means), 3)}


def agreement(files: Sequence[bytes], data: Path) -> dict[str, float]:
    """How often the network gives pixels of both decoders the same label."""
    network = build_network("mobilenet_v2", PREPROCESSING, 1000)
    state = torch.load(data / "weights" / "mobilenet_v2_rebuilt.pth", weights_only=True)
    network.load_state_dict(state)
    ours, plain = (scores(network.eval(), files, decode) for decode in (decode_image, reference_decode))
    same = (ours.argmax(dim=1) == plain.argmax(dim=1)).double().mean()
    same_kind = (kinds(ours) == kinds(plain)).double().mean()
    return {
        "num_images": len(files),
        "same_of_1000_labels": round(float(same), 5),
        "same_of_cat_dog_other": round(float(same_kind), 5),
        **pixel_difference(files),
    }


def scores(network: torch.nn.Module, files: Sequence[bytes], decode: Decoder) -> torch.Tensor:
    """Softmax scores, images x labels."""
    parts = []
    for start in range(0, len(files), 32):
        images = np.stack([decode(data, PREPROCESSING) for data in files[start : start + 32]])
        with torch.inference_mode():
            parts.append(network(normalise(torch.from_numpy(images), PREPROCESSING)).softmax(dim=1))
    return torch.cat(parts)


def kinds(scores: torch.Tensor) -> torch.Tensor:
    """The group with most of the score: 0 cat, 1 dog, 2 other."""
    return kind_scores(scores).argmax(dim=1)


def kind_scores(scores: torch.Tensor) -> torch.Tensor:
    """Scores of cat, dog and other: images x 3."""
    cats, dogs = scores[:, CATS].sum(dim=1), scores[:, DOGS].sum(dim=1)
    return torch.stack([cats, dogs, 1 - cats - dogs], dim=1)


if __name__ == "__main__":
    main()
