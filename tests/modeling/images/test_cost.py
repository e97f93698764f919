import io
import re

import pytest
from PIL import Image

from modeling.data.facts import check_image
from modeling.errors import ImageError
from modeling.images import cost
from modeling.images.cost_headers import icon_size, opening_passes
from modeling.images.cost_jpeg import is_in_several_scans, jpeg_passes
from modeling.images.cost_jpeg2000 import jpeg2000_cost
from modeling.images.cost_tiff import tiff_cost
from modeling.images.decode import decode_image
from modeling.images.formats import MAX_PIXELS, PASSES_PER_PIXEL
from modeling.images.preprocessing import Preprocessing
from tests.support import bombs
from tests.support.images import GREY_4, encode

COLOUR = Preprocessing("RGB", 32, 32)
LIMIT = MAX_PIXELS * PASSES_PER_PIXEL

BOMBS = {
    "refinement scans": (lambda: bombs.progressive_jpeg(30), "too_slow"),
    "scans without data": (lambda: bombs.empty_scans_jpeg(40), "too_slow"),
    "scans of a small image": (lambda: bombs.progressive_jpeg(30_000, side=600), "too_slow"),
    "EXIF segments": (lambda: bombs.exif_segments_jpeg(60_000), "too_slow"),
    "a tile of JPEG 2000": (bombs.jpeg2000, "too_large"),
    "code blocks of JPEG 2000": (lambda: bombs.jpeg2000(4_000, codeblock_size=(4, 4)), "too_large"),
    "a tile of a TIFF": (lambda: bombs.tiff_with_tile(60_000, 60_000), "too_slow"),
    "a table of a TIFF": (lambda: bombs.tiff_with_table(12_000_000), "too_slow"),
    "comments among numbers": (lambda: bombs.commented_pgm(200_000), "too_slow"),
    "a comment in a header": (lambda: bombs.headed_pgm(50_000_000), "too_slow"),
    "an icon's picture": (lambda: bombs.icon(30_000), "too_large"),
    "comments of a GIF": (lambda: bombs.commented_gif(3_000_000), "too_slow"),
    "rows that a BMP skips": (lambda: bombs.run_length_bmp(80_000_000), "too_large"),
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.filterwarnings("ignore")
def test_what_costs_too_much_is_refused_by_its_header_in_jobs_and_scans(name):
    make, code = BOMBS[name]
    data = make()

    for decode in (lambda: decode_image(data, COLOUR), lambda: decode_image(data, GREY_4), lambda: check_image(data)):
        with pytest.raises(ImageError) as caught:
            decode()
        assert caught.value.code == code
        assert re.search(r"limit (is|of) [\d,]+$", caught.value.message)


def test_the_error_says_the_estimate_and_the_limit_the_same_each_time():
    messages = set()
    for _ in range(2):
        with pytest.raises(ImageError) as caught:
            decode_image(bombs.progressive_jpeg(30), COLOUR)
        messages.add(caught.value.message)

    assert len(messages) == 1
    assert f"the limit is {LIMIT:,}" in messages.pop()


def test_a_higher_limit_of_pixels_allows_more_and_a_lower_one_no_less():
    data = bombs.progressive_jpeg(25)

    assert jpeg_passes(data, (bombs.HUGE, bombs.HUGE)) > LIMIT
    cost.for_jpeg(data, (bombs.HUGE, bombs.HUGE), 1, 2 * MAX_PIXELS)
    cost.for_jpeg(bombs.progressive_jpeg(20, side=4_000), (4_000, 4_000), 1, 1)


@pytest.mark.parametrize(
    ("mode", "options", "several"),
    [
        ("RGB", {}, False),
        ("RGB", {"progressive": True, "subsampling": 0}, True),
        ("CMYK", {"progressive": True}, True),
        ("L", {"progressive": True}, True),
    ],
)
def test_a_jpeg_of_the_largest_size_is_within_the_limit_however_a_usual_encoder_wrote_it(mode, options, several):
    data = encode(Image.new(mode, (16, 16)), "JPEG", **options)

    passes = jpeg_passes(data, (MAX_PIXELS, 1))

    assert MAX_PIXELS <= passes <= LIMIT
    assert is_in_several_scans(data) is several


def test_a_sequential_jpeg_costs_one_pass_for_each_channel():
    data = encode(Image.new("RGB", (16, 16)), "JPEG", subsampling=0).ljust(20_000, b"\0")

    assert jpeg_passes(data, (3_000, 3_000)) == pytest.approx(3 * 9_000_000, rel=0.01)


@pytest.mark.parametrize(
    ("mode", "format", "options"),
    [
        ("RGBA", "PNG", {}),
        ("LA", "PNG", {}),
        ("I;16", "PNG", {}),
        ("P", "GIF", {}),
        ("RGB", "BMP", {}),
        ("RGB", "TIFF", {"compression": "tiff_lzw"}),
        ("CMYK", "TIFF", {}),
        ("RGBA", "WEBP", {}),
        ("RGBA", "AVIF", {}),
        ("CMYK", "JPEG", {"progressive": True}),
        ("RGB", "TGA", {}),
        ("L", "PPM", {}),
    ],
)
def test_an_image_of_the_largest_size_may_be_decoded(mode, format, options):
    data = encode(Image.new(mode, (64, 64)), format, **options)

    with Image.open(io.BytesIO(data)) as image:
        image._size = (9_400, 9_500)
        found = cost.opened_cost(image, data)

    cost.check_cost(found, MAX_PIXELS)


def test_headers_of_usual_files_cost_nothing_to_speak_of():
    picture = Image.effect_noise((300, 300), 50)
    for format in ("JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP", "PPM", "ICO"):
        assert opening_passes(encode(picture, format)) < LIMIT // 1000


def test_the_size_of_an_icon_is_that_of_its_largest_picture():
    assert icon_size(bombs.icon(5_000)) == (5_000, 5_000)
    assert icon_size(encode(Image.new("RGBA", (64, 48)), "ICO", sizes=[(64, 48)])) == (64, 48)
    assert icon_size(encode(Image.new("RGB", (32, 32)), "ICO", sizes=[(32, 32)], bitmap_format="bmp")) == (32, 32)
    assert icon_size(encode(Image.new("L", (8, 8)))) is None
    assert icon_size(b"\0\0\1\0\xff\xff") is None


@pytest.mark.parametrize("cut", [0, 4, 5, 9, 20, 40, 60, 100])
def test_a_header_that_is_cut_short_is_read_as_far_as_it_goes(cut):
    for data in (
        bombs.progressive_jpeg(1), bombs.jpeg2000(), bombs.tiff_with_tile(9, 9), bombs.icon(9), bombs.commented_gif(9),
        bombs.commented_pgm(9), bombs.png_of(9, 9),
    ):  # fmt: skip
        short = data[: len(data) * cut // 100]
        opening_passes(short)
        jpeg_passes(short.ljust(3_000_000, b"\0"), (3_000, 3_000))
        is_in_several_scans(short)
        jpeg2000_cost(short)
        tiff_cost(short)
        icon_size(short)


def test_an_image_in_tiles_needs_the_memory_of_one():
    whole, tiled = (
        jpeg2000_cost(encode(Image.new("RGB", (512, 512)), "JPEG2000", **options))[1]
        for options in ({}, {"tile_size": (64, 64)})
    )

    assert tiled * 50 < whole
