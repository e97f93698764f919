"""The images of `benchmarks.outputs`: made by seeded integer arithmetic, and real ones where they are at hand."""

import csv
import gzip
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SHAPES: dict[str, Callable[[Any, Any], Any]] = {  # class name, also such as spreadsheets take for formulas
    "=bars": lambda x, y: y // 4 % 2,
    "posts": lambda x, y: x // 4 % 2,
    "slopes, both": lambda x, y: (x + y) // 5 % 2,
    "ringe größer": lambda x, y: ((x - 14) ** 2 + (y - 14) ** 2) // 60 % 2,
    "checks": lambda x, y: (x // 6 + y // 6) % 2,
    "cross": lambda x, y: (abs(x - 14) < 4) | (abs(y - 14) < 4),
}
COLOURS = {"apple": (200, 30, 40), "leaf": (40, 160, 60), "sky": (60, 110, 210)}
_ODD_NAMES = (
    b"=SUM(A1).png", b"comma, quote\" and 'apostrophe'.png", b"semi;colon:0.500000.png", b"[brackets]*.png",
    "größe 日本.png".encode(), b"line\nbreak.png", b"latin-\xe9.png", b" space at both ends .png", b"-dash.png",
    b"UPPER.PNG", b"two.dots..png",
)  # fmt: skip


def shape_image(name: str, seed: int, side: int = 28) -> Image.Image:
    """A grey image of one class: its pattern, moved, faded and with noise."""
    chance = np.random.default_rng([seed, list(SHAPES).index(name)])
    y, x = np.mgrid[:side, :side]
    dx, dy = chance.integers(-2, 3, 2)
    ink = SHAPES[name](x + dx, y + dy).astype(np.int64) * chance.integers(90, 200)
    return Image.fromarray((20 + ink + chance.integers(0, 36, (side, side))).astype(np.uint8))


def colour_image(name: str, seed: int) -> Image.Image:
    """A colour image of one class, of a size of its own: its colour, a gradient and noise."""
    chance = np.random.default_rng([seed, list(COLOURS).index(name)])
    height, width = chance.integers(40, 120, 2)
    y, x = np.mgrid[:height, :width]
    slope = ((x * chance.integers(-40, 41) + y * chance.integers(-40, 41)) // 100)[..., np.newaxis]
    noise = chance.integers(-30, 31, (height, width, 3))
    return Image.fromarray(np.clip(np.array(COLOURS[name]) + slope + noise, 0, 255).astype(np.uint8))


def make_data(folder: Path) -> None:
    """Every made data set and source, each in a folder of its own."""
    make_shapes(folder / "shapes", 40)
    for number, (part, count) in enumerate((("train", 24), ("val", 6), ("test", 8))):
        make_shapes(folder / "parts" / part, count, first_seed=1000 * (number + 1))
    make_colours(folder / "colours")
    make_list(folder / "listed.csv", folder / "shapes")
    make_inbox(folder / "inbox")
    make_sources(folder)


def make_shapes(folder: Path, per_class: int, first_seed: int = 0) -> None:
    """Grey PNGs of 28 x 28 in a folder a class."""
    for name in SHAPES:
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            shape_image(name, first_seed + number).save(folder / name / f"{number:03}.png")


def make_colours(folder: Path) -> None:
    """Colour images in many formats, with duplicates, near duplicates, two classes of one image, and broken files."""
    for name in COLOURS:
        (folder / name).mkdir(parents=True)
        for number in range(36):
            colour_image(name, number).save(folder / name / f"{number:03}.jpg", quality=90)
        write_formats(folder / name / "formats", colour_image(name, 100))
        twin = colour_image(name, 0)
        shutil.copy(folder / name / "001.jpg", folder / name / "copy of 001.jpg")
        twin.save(folder / name / "near 000.jpg", quality=60)
        twin.resize((twin.width * 2, twin.height * 2)).save(folder / name / "large 000.png")
        Image.new("RGB", (32, 32), COLOURS[name]).save(folder / name / "blank.png")
        Image.new("RGB", (4, 60), COLOURS[name]).save(folder / name / "narrow.png")
    shutil.copy(folder / "apple" / "002.jpg", folder / "sky" / "an apple.jpg")
    write_broken(folder / "leaf")


def make_list(path: Path, images: Path) -> None:
    """A CSV of path and label: three classes of `images`, renamed."""
    files = [file for name in list(SHAPES)[:3] for file in sorted((images / name).iterdir())]
    with path.open("w", newline="") as file:
        rows = [(image.relative_to(path.parent), f"class of {image.parent.name}") for image in files]
        csv.writer(file).writerows([("path", "label"), *rows])


def make_inbox(folder: Path) -> None:
    """What an operator's folder may hold: formats, odd names, broken, hidden and foreign files, links, folders."""
    for number, name in enumerate(SHAPES):
        (folder / "deep" / "er").mkdir(parents=True, exist_ok=True)
        shape_image(name, 5000 + number).save(folder / f"shape-{number}.png")
        shape_image(name, 6000 + number, side=64).save(folder / "deep" / "er" / f"shape-{number}.png")
    for number, name in enumerate(COLOURS):
        colour_image(name, 5000 + number).save(folder / "deep" / f"colour-{number}.jpg")
    for number, raw in enumerate(_ODD_NAMES):
        image = io.BytesIO()
        shape_image("posts", 7000 + number).save(image, "PNG")
        Path(os.fsdecode(os.fsencode(folder) + b"/" + raw)).write_bytes(image.getvalue())
    write_formats(folder / "formats", colour_image("sky", 8000))
    write_broken(folder)
    (folder / "empty folder").mkdir()
    (folder / "link inside.png").symlink_to("shape-0.png")
    (folder / "link outside.png").symlink_to("../shapes/posts/000.png")
    (folder / "link nowhere.png").symlink_to("nowhere.png")


def write_formats(folder: Path, image: Image.Image) -> None:
    """The image in the formats and modes that operators have."""
    folder.mkdir(parents=True)
    grey, rotated = image.convert("L"), Image.Exif()
    rotated[0x0112] = 6  # orientation: the image is stored on its side
    values = np.asarray(grey).astype(np.uint16)
    Image.fromarray(values * 257).save(folder / "16-bit.png")
    Image.fromarray(values * 16).save(folder / "12 bits in 16.png")
    image.convert("CMYK").save(folder / "cmyk.jpg")
    image.save(folder / "exif.jpg", exif=rotated)
    image.save(folder / "progressive.jpeg", progressive=True, subsampling=0)
    grey.save(folder / "grey.jpg")
    grey.convert("1").save(folder / "one bit.png")
    image.convert("P", palette=Image.Palette.ADAPTIVE).save(folder / "palette.gif")
    image.convert("P", palette=Image.Palette.ADAPTIVE).save(folder / "palette.png", transparency=0)
    image.save(folder / "frames.gif", save_all=True, append_images=[image.rotate(90), image.rotate(180)])
    faded = image.copy()
    faded.putalpha(grey)
    faded.save(folder / "alpha.png")
    for suffix in ("bmp", "tif", "webp", "ppm", "tga", "ico"):
        image.save(folder / f"plain.{suffix}")
    image.save(folder / "lzw.tiff", compression="tiff_lzw")
    image.save(folder / "a png.jpg", "PNG")


def write_broken(folder: Path) -> None:
    """Files that are no images, or not whole ones."""
    whole = {"JPEG": io.BytesIO(), "PNG": io.BytesIO(), "GIF": io.BytesIO()}
    for kind, file in whole.items():
        colour_image("leaf", 9000).save(file, kind)
    for kind, file in whole.items():
        content = file.getvalue()
        (folder / f"truncated.{kind.lower()}").write_bytes(content[: len(content) // 2])
        flipped = bytearray(content)
        flipped[len(content) // 2] ^= 0xFF
        (folder / f"corrupt.{kind.lower()}").write_bytes(flipped)
        (folder / f"header only.{kind.lower()}").write_bytes(content[:12])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("not an image\n")
    (folder / "document.png").write_bytes(b"%PDF-1.7\n")
    (folder / "drawing.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (folder / "notes.txt").write_text("not an image by its name\n")
    (folder / "Thumbs.db").write_bytes(bytes(64))
    (folder / ".hidden.png").write_bytes(whole["PNG"].getvalue())


def make_sources(folder: Path) -> None:
    """Lists of paths: a text file, and a CSV with a column `path`."""
    names = [
        "inbox/shape-3.png",
        "inbox/deep/colour-1.jpg",
        "inbox/missing.png",
        "inbox/empty.jpg",
        "inbox/shape-3.png",
    ]
    (folder / "list.txt").write_text("\n".join(names) + "\n")
    with (folder / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("number", "path"), *enumerate(names)])


# Real images


def copy_real(shared: Path, folder: Path) -> None:
    """A few hundred of the real images in `shared`, so that their paths are the same wherever that lies."""
    folder.mkdir()
    for kind in ("Cat", "Dog"):
        _copy_some(shared / "cats_dogs" / kind, folder / "pets" / kind, 40)
    for part, count in (("train", 8), ("test", 4)):
        for source in sorted((shared / "grocery_products" / part).iterdir()):
            _copy_some(source, folder / "grocery" / part / source.name, count)
    shutil.copytree(shared / "pathological", folder / "pathological", symlinks=True)
    shutil.copytree(shared / "weights", folder / "weights")
    digits = shared / "mnist" / "MNIST" / "raw"
    _cut_idx(digits, folder / "digits", "train", 0, 1500)
    _cut_idx(digits, folder / "digits", "t10k", 0, 400)
    _cut_idx(shared / "notmnist", folder / "letters", "t10k", 0, 3000)


def _copy_some(source: Path, target: Path, count: int) -> None:
    """The first files by name."""
    target.mkdir(parents=True)
    for file in sorted(source.iterdir())[:count]:
        shutil.copy(file, target / file.name)


def _cut_idx(source: Path, target: Path, part: str, first: int, count: int) -> None:
    """Some of the images and labels of an idx part."""
    target.mkdir(exist_ok=True)
    for kind, header_bytes in (("images-idx3", 16), ("labels-idx1", 8)):
        name = f"{part}-{kind}-ubyte"
        content = _read(source / name)
        item_bytes = 28 * 28 if header_bytes == 16 else 1
        start = header_bytes + first * item_bytes
        head = content[:4] + count.to_bytes(4, "big") + content[8:header_bytes]
        (target / name).write_bytes(head + content[start : start + count * item_bytes])


def _read(path: Path) -> bytes:
    packed = path.with_name(path.name + ".gz")
    return gzip.decompress(packed.read_bytes()) if packed.exists() else path.read_bytes()


def find_shared(checkout: Path) -> Path | None:
    """The folder of real images beside a checkout; None where there is none."""
    folder = checkout.parent / "shared" / "data"
    return folder if (folder / "pathological").is_dir() else None
