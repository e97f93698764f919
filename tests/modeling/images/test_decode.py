import csv
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from modeling.errors import ImageError
from modeling.images import decode
from modeling.images.decode import decode_image
from modeling.images.formats import IMAGE_EXTENSIONS, NOT_IMAGE_EXTENSIONS, READABLE_FORMATS
from modeling.images.preprocessing import Preprocessing
from tests.support.images import GREY_4, encode, grey_png, real_data

RGB_4 = Preprocessing("RGB", 4, 4)
# Loadable by Pillow, refused here: not one of them has an accept function that could name the format.
NAMELESS = {"IM", "IMT", "SPIDER"}
# Read here, refused by Pillow: PNGs with damaged or huge metadata, and a JPEG that lacks only its end marker.
MORE_THAN_PILLOW = {"hopper.heif", "png_decompression_dos.png", "unknown_compression_method.png", "truncated_jpeg.jpg"}


def code_of(data: bytes, preprocessing: Preprocessing = RGB_4, **options) -> str:
    try:
        pixels = decode_image(data, preprocessing, **options)
    except ImageError as err:
        return err.code if err.message else "no message"
    assert (pixels.dtype, pixels.shape, pixels.flags.c_contiguous) == (
        np.uint8,
        preprocessing.shape,
        True,
    )
    return "ok"


def only_value(data: bytes, preprocessing: Preprocessing = RGB_4) -> list[int]:
    """The channels of an image of a single colour."""
    pixels = decode_image(data, preprocessing)
    colours = np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)
    assert len(colours) == 1
    return colours[0].tolist()


def test_an_image_of_the_models_size_keeps_its_pixels():
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)

    assert np.array_equal(decode_image(encode(Image.fromarray(pixels)), RGB_4), pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_turned_upright(orientation):
    upright = np.zeros((16, 32), dtype=np.uint8)
    upright[:8, :16] = 255
    upright[8:, :16] = 128
    stored = {  # the inverse of what a viewer does
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation

    for format in ("PNG", "TIFF"):
        data = encode(Image.fromarray(np.ascontiguousarray(stored)), format, exif=exif)
        found = decode_image(data, Preprocessing("L", 16, 32))[..., 0]
        assert np.array_equal(found, upright), format


def test_transparency_shows_the_background():
    clear = encode(Image.new("RGBA", (4, 4), (10, 20, 30, 0)))
    half = encode(Image.new("LA", (4, 4), (0, 128)))
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([1, 2, 3] * 256)

    assert only_value(clear) == [255, 255, 255]
    assert only_value(clear, Preprocessing("RGB", 4, 4, background=(1, 2, 3))) == [1, 2, 3]
    assert only_value(half, Preprocessing("L", 4, 4, background=(0, 0, 0))) == [0]
    assert only_value(half, GREY_4) == [127]
    assert only_value(encode(palette)) == [1, 2, 3]
    assert only_value(encode(palette, transparency=0)) == [255, 255, 255]


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [
        (np.uint16, 65535, 255),
        (np.uint16, 32896, 128),
        (np.uint16, 200, 1),
        (np.float32, 1.0, 255),
        (np.float32, 0.5, 128),
        (np.float32, 200.0, 200),
        (np.int32, 65535, 255),
        (np.int32, 256, 1),
    ],
)
def test_deep_grey_images_are_scaled_and_not_clipped(dtype, value, expected):
    data = encode(Image.fromarray(np.full((4, 4), value, dtype=dtype)), "TIFF")

    assert only_value(data) == [expected] * 3
    assert only_value(data, GREY_4) == [expected]


def test_values_of_no_known_range_span_their_own():
    values = np.array([[-5.0, 0.0], [5.0, np.nan]], dtype=np.float32)

    found = decode_image(encode(Image.fromarray(values), "TIFF"), Preprocessing("L", 2, 2))

    assert found[..., 0].tolist() == [[0, 128], [255, 128]]


def test_cmyk_bilevel_and_animated_images_are_read():
    frames = [Image.new("L", (4, 4), value) for value in (10, 200)]

    assert only_value(encode(Image.new("CMYK", (4, 4), (0, 0, 0, 0)), "TIFF")) == [255, 255, 255]
    assert only_value(encode(Image.new("1", (4, 4), 1))) == [255, 255, 255]
    for format in ("GIF", "PNG", "WEBP"):
        options = {"lossless": True} if format == "WEBP" else {}
        data = encode(frames[0], format, save_all=True, append_images=frames[1:], **options)
        assert only_value(data, GREY_4) == [10], format


def test_without_resize_the_image_is_stretched_and_with_it_the_centre_is_cut_out():
    striped = np.zeros((8, 24), dtype=np.uint8)
    striped[:, 8:16] = 255
    data = encode(Image.fromarray(striped))

    stretched = decode_image(data, Preprocessing("L", 8, 8))
    centre = decode_image(data, Preprocessing("L", 8, 8, resize=8))

    assert stretched[0, 0, 0] == 0
    assert np.array_equal(centre, np.full((8, 8, 1), 255))


def test_a_long_thin_strip_takes_no_more_memory_than_its_crop():
    data = encode(Image.new("L", (200_000, 1), 7))

    assert only_value(data, Preprocessing("L", 64, 64, resize=64)) == [7]
    assert only_value(data, Preprocessing("L", 64, 64)) == [7]


def test_a_large_jpeg_is_decoded_smaller_only_while_twice_the_needed_size_is_left(monkeypatch):
    sizes = []
    monkeypatch.setattr("modeling.images.decode.scale_to", lambda pixels, *_: sizes.append(pixels.shape))
    for side in (64, 127, 128, 1000):
        decode_image(encode(Image.new("RGB", (side, side)), "JPEG"), Preprocessing("RGB", 32, 32))

    assert sizes == [(64, 64, 3), (127, 127, 3), (64, 64, 3), (125, 125, 3)]


def test_memory_that_is_short_is_no_error_of_the_image(monkeypatch):
    data = encode(Image.effect_noise((64, 64), 50), "GIF")

    def fail(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr(decode.Image, "open", fail)
    assert code_of(data) == "too_large"  # a damaged file that asks for too much

    monkeypatch.setattr(decode.np, "empty", fail)
    with pytest.raises(MemoryError):
        code_of(data)


def test_what_is_no_image_says_why():
    png = encode(Image.effect_noise((64, 64), 50))
    jpeg = encode(Image.effect_noise((64, 64), 50), "JPEG")

    assert code_of(b"") == "empty"
    assert code_of(b"hello, world\n" * 20) == "not_an_image"
    assert code_of(bytes(1000)) == "not_an_image"
    for data in (png, jpeg):
        assert code_of(data) == "ok"
        for size in (12, 30, len(data) // 2):
            assert code_of(data[:size]) == "truncated", size
    assert code_of(png[:60] + bytes(40) + png[100:]) == "corrupt"


@pytest.mark.parametrize(
    "data",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"8BPS\x00\x01" + bytes(40),
        b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>',
        b"\xef\xbb\xbf<svg/>",
        b"DDS |\x00\x00\x00",
        b"II*\x00\x10\x00\x00\x00CR\x02\x00",
        b"\xff\x0a" + bytes(20),
        b"\x00\x00\x02\x00\x01\x00",
    ],
)
def test_known_formats_that_we_do_not_read_are_called_unsupported(data):
    assert code_of(data) == "unsupported"


def test_a_camera_raw_in_tiff_clothing_is_not_taken_for_its_thumbnail():
    data = encode(Image.new("RGB", (8, 8)), "TIFF", tiffinfo={50706: b"\x01\x04\x00\x00"})

    assert code_of(data) == "unsupported"


def test_size_is_bounded_before_pixels_are_allocated():
    bomb = bytearray(grey_png(1))

    for side in (9_460, 60_000, 2**31 - 1):  # just above the limit, twice Pillow's own limit, absurd
        bomb[16:24] = side.to_bytes(4, "big") * 2  # width and height in the header, and its checksum
        bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
        with warnings.catch_warnings(action="ignore"):
            assert code_of(bytes(bomb)) == "too_large", side
    assert code_of(grey_png(1, (100, 100)), max_pixels=9_999) == "too_large"
    assert code_of(grey_png(1, (100, 100)), max_pixels=10_000) == "ok"


def test_broken_exif_does_not_cost_the_image():
    data = encode(Image.new("L", (4, 4), 9), exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")

    assert only_value(data, GREY_4) == [9]


@settings(max_examples=3 * settings.default.max_examples)
@given(st.data())
def test_damaged_files_give_pixels_or_an_image_error(draw):
    format = draw.draw(st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "ICO", "TGA", "QOI", "SGI"]))
    data = bytearray(encode(Image.linear_gradient("L").resize((20, 20)).convert("RGB"), format))
    for _ in range(draw.draw(st.integers(0, 6))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    cut = draw.draw(st.integers(0, len(data)))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        code_of(bytes(data[: cut or None]))


def test_every_extension_that_pillow_knows_is_an_image_or_left_out_on_purpose():
    Image.init()

    assert set(Image.registered_extensions()) - IMAGE_EXTENSIONS == NOT_IMAGE_EXTENSIONS
    assert all(extension == extension.lower() and extension.startswith(".") for extension in IMAGE_EXTENSIONS)


def test_every_readable_format_is_a_plugin_of_pillow_and_none_starts_a_program():
    Image.init()

    assert set(READABLE_FORMATS) <= set(Image.OPEN)
    assert not {"EPS", "PDF", "WMF"} & set(READABLE_FORMATS)


@pytest.mark.parametrize(
    "preprocessing", [Preprocessing("L", 28, 28), Preprocessing("RGB", 96, 64, resize=128)], ids=["grey", "colour"]
)
@pytest.mark.filterwarnings("ignore")
def test_pathological_files_are_read_exactly_where_pillow_can_load_them(preprocessing):
    folder = real_data("pathological")
    with open(folder / "MANIFEST.csv", newline="") as file:
        rows = list(csv.DictReader(file))

    surprises = []
    for row in rows:
        code = code_of((folder / row["path"]).read_bytes(), preprocessing)
        loadable = row["load"] == "ok" or row["path"].rpartition("/")[2] in MORE_THAN_PILLOW
        refused = code == "unsupported" or (code == "not_an_image" and row["format"] in NAMELESS)
        if (code == "ok") != loadable and not (loadable and refused):
            surprises.append((row["path"], row["format"], row["load"], code))

    assert surprises == []


def test_decoding_is_the_same_in_every_thread():
    from concurrent.futures import ThreadPoolExecutor

    noise = Image.effect_noise((300, 200), 80).convert("RGB")
    files = [encode(noise, format) for format in ("JPEG", "PNG", "WEBP", "TIFF")] * 10
    expected = [decode_image(data, RGB_4).tobytes() for data in files]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda data: decode_image(data, RGB_4).tobytes(), files))

    assert found == expected
