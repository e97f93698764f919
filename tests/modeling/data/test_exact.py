"""What decides duplicates and splits, stage by stage: the same bytes on every processor.

All of it is whole numbers, so these digests hold on any processor, with any BLAS and any SIMD path of NumPy, Pillow and
libjpeg-turbo. Where one changes on purpose, splits of the same data change with it: that belongs into CHANGELOG, and a
change of `check_image` into the version of the scan's cache.
"""

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modeling.data.dataset import Dataset
from modeling.data.duplicates import find_duplicates, group_numbers
from modeling.data.facts import THUMBNAIL_BYTES, ImageFacts, check_image, check_pixels
from modeling.data.forms.open import open_dataset
from modeling.data.perceptual_hash import candidate_pairs, hashes, map_chunks
from modeling.data.report import DataReport
from modeling.data.same_picture import COPY, SMALL, STRICT, confirm_pairs, standardise
from modeling.data.splits import split_dataset
from modeling.errors import ImageError
from modeling.images.formats import IMAGE_EXTENSIONS
from tests.support.images import encode, real_data
from tests.support.pictures import write_files

STAGES = ("thumbnails", "hashes", "candidates", "confirmed", "duplicates", "splits")
DIGESTS = {  # of STAGES
    "files": "40cbcf5b668c e5ed08664de0 844771603c90 f6cfbd32c7c3 197170aaa924 5d62157fd69a",
    "glyphs": "162e81c9bd9b 927e1adc9a40 c5381de8e1a3 b04ec0e4883c 16d6d69cdf19 ac4b42adcaf9",
    "colours": "669cb7635505 3c20c2f93775 4fcf3f74bf54 0d176f3fa818 6319c09a85c3 aefed4736d0d",
    "mnist": "a0fb5519c9bb d735885920ca 88b89cc5bd06 e3b0c44298fc 55f385cf2332 2924e6abf4dc",
    "notmnist": "a06903439926 c0cf3a3a620b 4613e728b4dc bd5f455a94b5 fce8e5faa3bb a1953ed4da77",
    "cifar10": "be91eab022d2 5843f838df7a eb0ffff5cc3d 653c53d312ff baf279ea5f1b dc10a8a53349",
    "cats_dogs": "51035bd8ee2a 1537f2660ce0 766fa6e671c3 516f36011b01 c8e9b9953035 b493d2c8bd29",
    "postcards": "2da7132d9337 3854ea18df8e c5a7e04db8b9 c5a7e04db8b9 c5b91ef594c3 2a536bf16efe",
}


def digest_of(*arrays) -> str:
    """sha256 over whole numbers, whatever type they are held in."""
    return hashlib.sha256(b"".join(np.asarray(array).astype("<i8").tobytes() for array in arrays)).hexdigest()[:12]


def thumbnails_of(facts: list[ImageFacts]) -> np.ndarray:
    return np.frombuffer(b"".join(fact.thumbnail for fact in facts), dtype=np.uint8).reshape(-1, THUMBNAIL_BYTES)


def stages(dataset: Dataset) -> tuple[str, ...]:
    """A digest of what comes of each of STAGES."""
    if dataset.pixels_NHWC is None:
        held = [path.read_bytes() for path in dataset.files]
        facts = [check_image(data) for data in held]
    else:
        held = [pixels.tobytes() for pixels in dataset.pixels_NHWC]
        facts = list(check_pixels(dataset.pixels_NHWC))
    digests = tuple(hashlib.sha256(data).hexdigest() for data in held)
    thumbnails = thumbnails_of(facts)
    pairs, images = sorted_pairs(candidate_pairs(thumbnails)), standardise(thumbnails)
    result = find_duplicates(digests, facts)
    groups = group_numbers(dataset.num_images, result.duplicates)
    report = DataReport(dataset, digests, tuple(facts), {}, result.duplicates, groups)
    splits = [split_dataset(dataset, report, seed=seed, validation=0.1, test=0.2) for seed in (0, 1)]
    return (
        digest_of(thumbnails),
        digest_of(map_chunks(hashes, thumbnails)),
        digest_of(pairs),
        digest_of(*(confirm_pairs(images, pairs, limits) for limits in (COPY, SMALL, STRICT))),
        digest_of(*(found.indices for found in result.duplicates), result.look_alikes, groups),
        digest_of(*(part for split in splits for part in (split.train, split.validation, split.test))),
    )


def sorted_pairs(parts: Iterable[np.ndarray]) -> np.ndarray:
    pairs = np.concatenate([np.empty((0, 2), dtype=np.int64), *parts])
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def noise(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Bytes that hang on the seed alone."""
    count = math.prod(shape)
    blocks = (hashlib.sha256(f"{seed} {number}".encode()).digest() for number in range(-(-count // 32)))
    return np.frombuffer(b"".join(blocks), dtype=np.uint8)[:count].reshape(shape)


def picture(seed: int, height: int = 90, width: int = 72) -> np.ndarray:
    """Patches of colour with soft edges."""
    patches = noise(seed, (height // 9, width // 9, 3)).repeat(9, axis=0).repeat(9, axis=1).astype(np.int64)
    around = [np.roll(patches, (down, right), (0, 1)) for down in (-2, 0, 2) for right in (-2, 0, 2)]
    return (sum(around) // 9).astype(np.uint8)


def glyph(seed: int) -> np.ndarray:
    """28 x 28 px of grey, every other one its own mirror image: many of its frequencies are exactly zero."""
    strokes = (noise(seed, (7, 7)) // 128 * 200).repeat(4, axis=0).repeat(4, axis=1)
    return np.maximum(strokes, strokes[:, ::-1]) if seed % 2 else strokes


def brighter(pixels: np.ndarray) -> np.ndarray:
    return (pixels.astype(np.int64) * 11 // 10).clip(0, 255).astype(np.uint8)


def halved(pixels: np.ndarray) -> np.ndarray:
    return (sum(pixels[y::2, x::2].astype(np.int64) for y in (0, 1) for x in (0, 1)) // 4).astype(np.uint8)


def made_files(root: Path) -> Dataset:
    """Pictures of several kinds, some brighter, smaller, grey or the same again; in formats without compression."""
    files = {}
    for seed in range(24):
        pixels = picture(seed)
        files[f"{'ab'[seed % 2]}/{seed:02}.ppm"] = encode(Image.fromarray(pixels), "PPM")
        files[f"b/{seed:02}.tga"] = encode(Image.fromarray(brighter(pixels)), "TGA")
        if seed % 3 == 0:
            files[f"a/{seed:02}.bmp"] = encode(Image.fromarray(halved(pixels)), "BMP")
            files[f"a/{seed:02}.pgm"] = encode(Image.fromarray(pixels[..., 1]), "PPM")
        if seed % 4 == 0:
            files[f"b/{seed:02}-again.ppm"] = files[f"a/{seed:02}.ppm"]
    files["a/flat.bmp"], files["b/flat.bmp"] = (encode(Image.new("L", (40, 40), level), "BMP") for level in (90, 91))
    files["a/16-bit.pgm"] = encode(Image.fromarray(noise(99, (64, 48, 2)).copy().view("<u2")[..., 0]), "PPM")
    files["b/transparent.tga"] = encode(Image.fromarray(noise(98, (50, 50, 4))), "TGA")
    return open_dataset(write_files(root, files))


def made_pixels(pixels: np.ndarray) -> Dataset:
    targets = np.arange(len(pixels)) % 3
    return Dataset(kind="idx", path=Path("/data"), labels=("a", "b", "c"), targets_N=targets, pixels_NHWC=pixels)


def made_glyphs(_: Path) -> Dataset:
    glyphs = [glyph(seed) for seed in range(60)]
    return made_pixels(
        np.stack([*glyphs, *map(brighter, glyphs[::4]), *(255 - glyph for glyph in glyphs[:9])])[..., None]
    )


def made_colours(_: Path) -> Dataset:
    pictures = [picture(seed, 45, 36) for seed in range(40)]
    return made_pixels(np.stack([*pictures, *map(brighter, pictures[::3])]))


def mnist(_: Path) -> Dataset:
    dataset = open_dataset(real_data("mnist"))
    return replace(dataset, pixels_NHWC=dataset.pixels_NHWC[-2000:], targets_N=dataset.targets_N[-2000:], parts_N=None)


def cifar10(_: Path) -> Dataset:
    with np.load(real_data("cifar10") / "cifar10_lossless_first4000.npz") as arrays:
        return made_pixels(arrays["images"])


def real(folder: str) -> Callable[[Path], Dataset]:
    return lambda _: open_dataset(real_data(folder))


MADE = {"files": made_files, "glyphs": made_glyphs, "colours": made_colours}
REAL = {
    "mnist": mnist,
    "notmnist": real("notmnist"),
    "cifar10": cifar10,
    "cats_dogs": real("cats_dogs"),
    "postcards": real("postcards/images"),
}


@pytest.mark.parametrize("name", [*MADE, *REAL])
def test_every_stage_gives_the_same_bytes_on_every_processor(tmp_path, name):
    dataset = (MADE | REAL)[name](tmp_path)

    assert dict(zip(STAGES, stages(dataset), strict=True)) == dict(zip(STAGES, DIGESTS[name].split(), strict=True))


@pytest.mark.filterwarnings("ignore")  # Pillow's, of odd files
def test_files_of_every_format_give_the_same_thumbnails_on_every_processor():
    """Without those whose decoders may go through floats, and a damaged JPEG whose coefficients overflow."""
    floats, damaged = {"JPEG2000", "AVIF", "HEIF"}, "hopper_bad_exif.jpg"
    facts = []
    for path in sorted(real_data("pathological").rglob("*")):
        if path.suffix.lower() in IMAGE_EXTENSIONS and path.is_file() and path.name != damaged:
            with contextlib.suppress(ImageError):
                facts.append(check_image(path.read_bytes()))
    exact = [fact for fact in facts if fact.format not in floats]

    assert (len(exact), digest_of(thumbnails_of(exact))) == (951, "2850cc3e9c43")
