import csv
import math
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from modeling.data.facts import GREY_SIDE, THUMBNAIL_BYTES, check_image, check_pixels
from modeling.errors import ImageError
from modeling.images.loader import read_image_file
from modeling.images.remarks import FURTHER_PAGES
from modeling.names import escape_formula, unescape_formula
from tests.support.images import encode, real_data
from tests.support.pictures import photo


def test_an_image_says_what_it_is():
    facts = check_image(encode(photo(1, (640, 400)), "JPEG"))

    assert (facts.size, facts.mode, facts.format) == ((640, 400), "RGB", "JPEG")
    assert (facts.orientation, facts.remarks, facts.grey) == (1, (), False)
    assert len(facts.thumbnail) == THUMBNAIL_BYTES


@pytest.mark.parametrize(("orientation", "size"), [(1, (96, 72)), (3, (96, 72)), (6, (72, 96)), (9, (96, 72))])
def test_the_size_and_the_thumbnail_are_upright(orientation, size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    turn = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90}.get(orientation)
    stored = photo(1) if turn is None else photo(1, size).transpose(turn)

    facts = check_image(encode(stored, exif=exif))

    assert (facts.size, facts.orientation) == (size, orientation if orientation < 9 else 1)
    assert facts.thumbnail == check_image(encode(photo(1, size))).thumbnail


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pixels_have_the_facts_of_a_file_that_holds_them(mode):
    pictures = [photo(seed, (32, 32)).convert(mode) for seed in range(3)]
    pixels = np.stack([np.asarray(picture).reshape(32, 32, -1) for picture in pictures])

    found = list(check_pixels(pixels))

    for facts, picture in zip(found, pictures, strict=True):
        of_file = check_image(encode(picture))
        assert (facts.size, facts.mode, facts.grey) == (of_file.size, of_file.mode, of_file.grey)
        thumbnails = [np.frombuffer(which.thumbnail, dtype=np.uint8).astype(int) for which in (facts, of_file)]
        assert np.abs(thumbnails[0] - thumbnails[1]).max() <= 1  # of 255: the file's are rounded twice


@pytest.mark.parametrize(("height", "width"), [(28, 28), (48, 100), (7, 33)])
def test_pixels_of_any_size_have_thumbnails_of_one_size(height, width):
    ramp = np.linspace(0, 255, height).round()[:, None] + np.zeros((height, width))

    [facts] = check_pixels(ramp.astype(np.uint8)[None, :, :, None])

    assert len(facts.thumbnail) == THUMBNAIL_BYTES
    luma = np.frombuffer(facts.thumbnail, dtype=np.uint8)[: GREY_SIDE**2].reshape(GREY_SIDE, GREY_SIDE).astype(int)
    assert (luma == luma[:, :1]).all()
    assert (np.diff(luma[:, 0]) >= 0).all()
    assert luma.mean() == pytest.approx(ramp.mean(), abs=1)


def overlap(pixel: int, size: int, area: int) -> Fraction:
    """How much of one of `size` pixels lies in one of GREY_SIDE areas, both as long in all."""
    start, end = (Fraction(size * edge, GREY_SIDE) for edge in (area, area + 1))
    return max(Fraction(0), min(end, Fraction(pixel + 1)) - max(start, Fraction(pixel)))


@pytest.mark.parametrize(("height", "width"), [(28, 28), (40, 100), (7, 33), (32, 300)])
def test_the_luma_of_pixels_is_the_exact_mean_of_each_area_with_halves_rounded_up(height, width):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)

    [facts] = check_pixels(pixels[None, :, :, None])

    areas = [(0, 0), (5, 17), (16, 16), (31, 0), (30, 31)]
    expected = []
    for row, column in areas:
        down = {y: share for y in range(height) if (share := overlap(y, height, row))}
        across = {x: share for x in range(width) if (share := overlap(x, width, column))}
        total = sum(int(pixels[y, x]) * down[y] * across[x] for y in down for x in across)
        expected.append(math.floor(total * GREY_SIDE**2 / (height * width) + Fraction(1, 2)))
    assert [facts.thumbnail[GREY_SIDE * row + column] for row, column in areas] == expected


def test_a_large_image_of_pixels_overflows_nothing():
    [facts] = check_pixels(np.full((1, 2049, 2051, 3), 255, dtype=np.uint8))

    assert facts.thumbnail == bytes([255] * GREY_SIDE**2 + [128] * 128)


def test_grey_is_what_shows_no_colour_whatever_its_mode():
    grey = photo(1).convert("L")
    images = {"L": grey, "RGB": grey.convert("RGB"), "colour": photo(1), "1": grey.convert("1")}

    assert {name: check_image(encode(image)).grey for name, image in images.items()} == {
        "L": True,
        "RGB": True,
        "colour": False,
        "1": True,
    }


def test_an_animation_tells_of_further_frames_and_shows_its_first():
    frames = [photo(seed).convert("P") for seed in range(3)]
    facts = check_image(encode(frames[0], "GIF", save_all=True, append_images=frames[1:]))

    assert (facts.remarks, facts.format) == ((FURTHER_PAGES,), "GIF")
    assert facts.thumbnail == check_image(encode(frames[0], "GIF")).thumbnail


def test_a_jpeg_cut_short_is_truncated_though_its_header_is_fine():
    data = encode(photo(1, (640, 400)), "JPEG")

    with pytest.raises(ImageError) as caught:
        check_image(data[: len(data) // 2])
    assert caught.value.code == "truncated"


@pytest.mark.parametrize("cell", ["=1+1", "+a", "-a", "@a", "'=a", "\ta", "plain", ""])
def test_cells_are_harmless_and_come_back(cell):
    assert not escape_formula(cell).startswith(("=", "+", "-", "@", "\t"))
    assert unescape_formula(escape_formula(cell)) == cell


def test_the_real_odd_files_are_judged_as_pillow_judges_them():
    root = real_data("pathological")
    rows = [
        row for row in csv.DictReader((root / "MANIFEST.csv").open()) if row["path"].startswith("exif-orientation/")
    ]
    expected = {
        row["path"]: (row["mode"], (int(row["w"]), int(row["h"])), int(row["orientation"]) or 1)
        for row in rows
        if row["load"] == "ok"
    }

    found = {}
    for path in expected:
        facts = check_image(read_image_file(root / path))
        stored = facts.size[::-1] if facts.orientation >= 5 else facts.size
        found[path] = (facts.mode, stored, facts.orientation)

    assert len(found) == 18
    assert found == expected
