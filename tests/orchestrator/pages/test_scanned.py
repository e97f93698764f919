"""Strangers' pages: what they lie on, how they are lit, how large they are, and images that are no page."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from modeling.errors import ImageError
from orchestrator.demo.fonts import AILERON, ROMAN
from orchestrator.demo.page import Line, render_page
from orchestrator.demo.scan import Scanner
from orchestrator.pages.cut import PageError
from orchestrator.pages.scanned import MOST_PIXELS, ScannedPage, open_page
from orchestrator.pages.text import lines_of, words_of
from tests.support.images import encode

LINES = (Line("Quick hands are good", ROMAN, 44, 70), Line("ZONE X 6:40", AILERON, 40, 80))
NUM_CHARACTERS, NUM_WORDS = 26, 7
MAX_PIXELS = 90_000_000


@pytest.fixture(scope="module")
def page() -> Image.Image:
    return render_page(0, LINES, Scanner(1.8, blur_px=0.7, noise=0.02, shade=0.15, texture=0.02)).image


def opened(image: Image.Image, **options: object) -> ScannedPage:
    return open_page(encode(image, **options), max_pixels=MAX_PIXELS)


def shape_of(scanned: ScannedPage) -> tuple[int, int, int]:
    """Characters, words and lines."""
    characters = scanned.cut().characters
    return len(characters), len(words_of(characters)), len(lines_of(characters))


def unevenly_lit(image: Image.Image) -> Image.Image:
    light = np.linspace(0.3, 1, image.width)[None, :] * np.linspace(0.7, 1, image.height)[:, None]
    return Image.fromarray((np.asarray(image) * light).astype(np.uint8))


def on_a_table(image: Image.Image, grey: int, noise: float) -> Image.Image:
    table = grey + noise * np.random.default_rng(0).standard_normal((image.height + 400, image.width + 500))
    lying = Image.fromarray(np.clip(table, 0, 255).astype(np.uint8))
    lying.paste(image, (260, 180))
    return lying


@pytest.mark.parametrize(
    "change",
    [
        lambda page: page,
        ImageOps.invert,
        unevenly_lit,
        lambda page: ImageOps.invert(unevenly_lit(page)),
        lambda page: on_a_table(page, 45, 20),
        lambda page: unevenly_lit(on_a_table(page, 90, 4)),
        lambda page: page.rotate(3, Image.Resampling.BICUBIC, expand=True, fillcolor=230),
        lambda page: page.resize((page.width * 4, page.height * 4)),
        lambda page: page.resize((page.width // 2, page.height // 2), Image.Resampling.LANCZOS),
        lambda page: page.convert("RGBA"),
    ],
    ids=["scan", "inverted", "uneven", "inverted, uneven", "table", "table, uneven", "askew", "large", "small", "rgba"],
)
def test_characters_words_and_lines_are_found_however_the_page_was_taken(page, change):
    assert shape_of(opened(change(page))) == (NUM_CHARACTERS, NUM_WORDS, 2)


def test_a_turned_photograph_is_upright(page):
    exif = Image.Exif()
    exif[0x0112] = 6

    scanned = opened(page.rotate(90, expand=True), format="JPEG", quality=95, exif=exif)

    assert scanned.size == page.size
    assert shape_of(scanned) == (NUM_CHARACTERS, NUM_WORDS, 2)


def test_a_shadow_on_the_page_is_no_table(page):
    assert opened(unevenly_lit(page)).outside is None
    assert opened(on_a_table(page, 45, 20)).outside is not None


@pytest.mark.parametrize(
    "image",
    [
        Image.new("L", (1, 1)),
        Image.new("L", (1, 4000), 255),
        Image.new("RGB", (600, 400), (250, 250, 240)),
        Image.new("L", (600, 400)),
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (2, 3000)).astype(np.uint8)),
    ],
    ids=["pixel", "column", "white", "black", "row of noise"],
)
def test_an_image_without_print_has_no_characters(image):
    assert opened(image).cut().characters == ()


def test_a_huge_page_is_cut_at_a_bounded_size(page):
    huge = page.resize((page.width * 8, page.height * 8))
    assert huge.width * huge.height > MOST_PIXELS

    scanned = opened(huge, format="JPEG")

    assert scanned.image.width * scanned.image.height <= MOST_PIXELS
    assert scanned.size == huge.size
    assert scanned.scale == pytest.approx(scanned.image.width / huge.width)


def test_more_pixels_than_the_limit_are_not_decoded(page):
    with pytest.raises(ImageError, match="too_large"):
        open_page(encode(page), max_pixels=1000)


def test_an_image_with_far_more_ink_than_print_is_no_page(page, monkeypatch):
    monkeypatch.setattr("orchestrator.pages.cut.MOST_PIECES", 20)

    with pytest.raises(PageError, match="more than a page of print"):
        opened(page).cut()
