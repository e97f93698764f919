"""The files of `benchmarks.fuzz_files`: samples of every format, mutations of them, and what decoding one must not do.

A case is a function of the seed, its number and the samples; so is a finding.
"""

import io
import warnings
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from numpy.random import Generator
from PIL import Image

from modeling.data.facts import check_image
from modeling.errors import ImageError
from modeling.images.decode import decode_image
from modeling.images.formats import HEIF, READABLE_FORMATS, unsupported_format
from modeling.images.heif import heif_version
from modeling.images.preprocessing import Preprocessing

MODELS = (Preprocessing("RGB", 64, 64, 72), Preprocessing("L", 28, 28))
_LARGEST_REAL = 200_000  # bytes of a real file
_INTERESTING = (0, 1, 0x7F, 0x80, 0xFE, 0xFF)
_NUMBERS = (0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 30_000, 100_000)
_TABLE: tuple[
    tuple[str, tuple[str, ...], tuple[dict[str, Any], ...]], ...
] = (  # format, modes, options of each variant
    ("PNG", ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"), ({}, {"optimize": True})),
    (
        "JPEG",
        ("L", "RGB", "CMYK"),
        ({}, {"progressive": True}, {"quality": 95, "subsampling": 0}, {"restart_marker_blocks": 3}),
    ),
    ("GIF", ("L", "P"), ({}, {"interlace": 0})),
    ("BMP", ("1", "L", "P", "RGB"), ({},)),
    ("TIFF", ("1",), ({"compression": "group4"}, {"compression": "packbits"})),
    (
        "TIFF",
        ("L", "RGB", "RGBA", "I;16", "F", "CMYK"),
        ({}, {"compression": "tiff_lzw"}, {"compression": "tiff_deflate"}, {"compression": "packbits"}),
    ),
    ("TIFF", ("L", "RGB"), ({"compression": "jpeg"}, {"big_tiff": True})),
    ("WEBP", ("RGB", "RGBA"), ({}, {"lossless": True})),
    ("AVIF", ("RGB", "RGBA"), ({"speed": 10},)),
    ("JPEG2000", ("L", "RGB", "RGBA"), ({}, {"tile_size": (32, 32)}, {"no_jp2": True, "irreversible": True})),
    ("PPM", ("1", "L", "RGB", "I"), ({},)),
    ("ICO", ("RGB", "RGBA"), ({}, {"bitmap_format": "bmp"})),
    ("SGI", ("L", "RGB", "RGBA"), ({},)),
    ("PCX", ("1", "L", "P", "RGB"), ({},)),
    ("TGA", ("L", "RGB", "RGBA"), ({}, {"compression": "tga_rle"})),
    ("QOI", ("RGB", "RGBA"), ({},)),
    ("DIB", ("L", "RGB"), ({},)),
    ("HEIF", ("L", "RGB", "RGBA"), ({"quality": 80}, {"quality": -1, "chroma": 444}, {"quality": 40, "exif": b"Exif"})),
)


@cache
def samples(data: Path | None) -> tuple[bytes, ...]:
    """Small files of every format, mode and option; and real ones below a folder."""
    _register_heif()
    rng = np.random.default_rng(0)
    made: list[bytes] = []
    for format, modes, variants in _TABLE:
        for mode in modes:
            for options in variants if format != "HEIF" or heif_version() else ():
                made += _encoded(_picture(rng, mode), format, options)
    for colour_space in ("RGB", "GRAY"):
        pixels = np.asarray(_picture(rng, "L" if colour_space == "GRAY" else "RGB"))
        made.append(simplejpeg.encode_jpeg(pixels.reshape(*pixels.shape[:2], -1), colorspace=colour_space))
    real = sorted(path for path in data.rglob("*") if path.is_file()) if data is not None else []
    return (*made, *(path.read_bytes() for path in real if 0 < path.stat().st_size <= _LARGEST_REAL))


def _register_heif() -> None:
    """Let Pillow read and write HEIC, if the extra is installed; the decoders under test do not use that."""
    if heif_version():
        import pillow_heif

        pillow_heif.register_heif_opener()


def _picture(rng: Generator, mode: str) -> Image.Image:
    """Coarse noise with some structure, of a size between 9 and 90 px."""
    width, height = (int(side) for side in rng.integers(9, 90, 2))
    coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 4), dtype=np.uint8), "RGBA")
    picture = coarse.resize((width, height), Image.Resampling.BICUBIC)
    if mode in ("I;16", "I"):
        return Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257).convert(mode)
    return picture if mode == "RGBA" else picture.convert("RGB").convert("L" if mode == "LA" else mode).convert(mode)


def _encoded(picture: Image.Image, format: str, options: dict[str, Any]) -> list[bytes]:
    buffer = io.BytesIO()
    try:
        picture.save(buffer, format, **options)
    except (OSError, ValueError):  # not every mode has every compression
        return []
    return [buffer.getvalue()]


def case(seed: int, number: int, data: Path | None) -> bytes:
    """The file of that number: a sample after one to six mutations."""
    rng = np.random.default_rng([seed, number])
    known = samples(data)
    file = bytearray(known[int(rng.integers(len(known)))])
    for _ in range(int(rng.integers(1, 7))):
        mutate = _MUTATIONS[int(rng.integers(len(_MUTATIONS)))]
        file = mutate(file, rng, known) or bytearray(b"\0")
    return bytes(file)


def _place(file: bytearray, rng: Generator) -> int:
    """An offset; in every other case near the start, where headers are."""
    return int(rng.integers(len(file) if rng.random() < 0.5 else min(len(file), 128)))


def _flip_bits(file: bytearray, rng: Generator, _known: tuple[bytes, ...]) -> bytearray:
    for _ in range(int(rng.integers(1, 9))):
        file[_place(file, rng)] ^= 1 << int(rng.integers(8))
    return file


def _set_byte(file: bytearray, rng: Generator, _: tuple[bytes, ...]) -> bytearray:
    file[_place(file, rng)] = _INTERESTING[int(rng.integers(len(_INTERESTING)))]
    return file


def _set_number(file: bytearray, rng: Generator, _: tuple[bytes, ...]) -> bytearray:
    size, order = int(rng.choice((2, 4))), "big" if rng.random() < 0.5 else "little"
    number = _NUMBERS[int(rng.integers(len(_NUMBERS)))] & (256**size - 1)
    at = _place(file, rng)
    file[at : at + size] = number.to_bytes(size, "big" if order == "big" else "little")
    return file


def _cut(file: bytearray, rng: Generator, _: tuple[bytes, ...]) -> bytearray:
    return file[: 1 + int(rng.integers(len(file)))]


def _remove(file: bytearray, rng: Generator, _: tuple[bytes, ...]) -> bytearray:
    at = _place(file, rng)
    del file[at : at + int(rng.integers(1, 40))]
    return file


def _repeat(file: bytearray, rng: Generator, _: tuple[bytes, ...]) -> bytearray:
    """A piece many times, as headers and scans of bombs are."""
    at = _place(file, rng)
    piece = file[at : at + int(rng.integers(1, 200))]
    file[at:at] = piece * int(rng.choice((1, 2, 30, 1000)))
    return file


def _insert(file: bytearray, rng: Generator, _: tuple[bytes, ...]) -> bytearray:
    at = _place(file, rng)
    file[at:at] = rng.bytes(int(rng.integers(1, 40)))
    return file


def _splice(file: bytearray, rng: Generator, known: tuple[bytes, ...]) -> bytearray:
    other = known[int(rng.integers(len(known)))]
    return file[: int(rng.integers(len(file))) + 1] + other[int(rng.integers(len(other))) :]


Mutation = Callable[[bytearray, Generator, tuple[bytes, ...]], bytearray]
_MUTATIONS: tuple[Mutation, ...] = (
    _flip_bits, _flip_bits, _set_byte, _set_number, _set_number, _cut, _remove, _repeat, _insert, _splice,
)  # fmt: skip


def try_case(file: bytes) -> tuple[str, str]:
    """The code of a file (`ok` or an error's), and what is wrong with that; empty where nothing is."""
    codes = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        decoders: list[Callable[[], object]] = [partial(decode_image, file, model) for model in MODELS]
        decoders.append(partial(check_image, file))
        for decode in decoders:
            try:
                decode()
            except ImageError as err:
                codes.append(err.code)
                if (
                    "too much memory" in err.message and "exceeds limit" not in err.message
                ):  # that is Pillow's of pixels
                    return err.code, f"memory ran out in spite of the estimate: {err.message}"
            except Exception as err:
                return "crash", f"{type(err).__name__}: {err}"
            else:
                codes.append("ok")
        if "ok" in codes and not is_loadable(file):
            return "ok", "Pillow cannot load it"
    return codes[0], ""


def is_loadable(file: bytes) -> bool:
    """Whether Pillow loads it; a JPEG may lack its end marker, a PNG may have damaged metadata."""
    if _loads(file):
        return True
    if file.startswith(b"\xff\xd8"):
        return _is_whole_jpeg(file + b"\xff\xd9")
    return file.startswith(b"\x89PNG") and _loads(_without_metadata(file))


def _is_whole_jpeg(file: bytes) -> bool:
    """Whether libjpeg-turbo decodes it without a warning."""
    for colour_space in ("RGB", "CMYK"):
        try:
            simplejpeg.decode_jpeg(file, colour_space)
        except ValueError:
            continue
        return True
    return False


def _loads(file: bytes) -> bool:
    try:
        with _opened(file) as image:
            image.load()
    except Exception:
        return False
    return True


def _opened(file: bytes) -> Image.Image:
    """By Pillow alone; HEIC by its decoder alone, whichever brand the file names first."""
    if heif_version() and unsupported_format(file) == HEIF:
        import pillow_heif

        heic: Image.Image = pillow_heif.HeifImageFile(io.BytesIO(file))  # type: ignore[no-untyped-call]
        return heic
    return Image.open(io.BytesIO(file), formats=READABLE_FORMATS)


def _without_metadata(file: bytes) -> bytes:
    """A PNG without the chunks that pixels do not depend on."""
    kept, at = bytearray(file[:8]), 8
    while at + 8 <= len(file):
        end = at + 12 + int.from_bytes(file[at : at + 4])
        name = file[at + 4 : at + 8]
        if name[:1].isupper() or name == b"tRNS":
            kept += file[at:end]
        at = end
    return bytes(kept)
