"""Metadata of PNGs never costs the image, orientations in it count, and sample depths are heeded."""

import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from modeling.data.facts import check_image
from modeling.errors import ImageError
from modeling.images.decode import decode_image
from modeling.images.kinds.png_metadata import without_metadata
from modeling.images.preprocessing import Preprocessing
from modeling.images.remarks import FURTHER_PAGES, UNCERTAIN_DEPTH
from tests.support.images import encode

GREY, COLOUR = Preprocessing("L", 20, 30), Preprocessing("RGB", 20, 30)
PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
PICTURES = {
    "grey": Image.fromarray(PIXELS[..., 0]),
    "colour": Image.fromarray(PIXELS),
    "alpha": Image.fromarray(np.concatenate([PIXELS, PIXELS[..., :1]], -1)),
    "palette": Image.fromarray(PIXELS).quantize(16),
    "16 bits": Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257),
}
MEGABYTES = b"A" * 3_000_000
EXIF = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x03\0\0\0\0\0\0\0"  # orientation 3: upside down
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="3"/></x:xmpmeta>'


def chunk(name: bytes, content: bytes, *, damaged: bool = False) -> bytes:
    checksum = zlib.crc32(name + content) ^ damaged
    return len(content).to_bytes(4, "big") + name + content + checksum.to_bytes(4, "big")


def profile() -> bytes:
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes() + bytes(1_500_000))
    data[:4] = len(data).to_bytes(4, "big")
    return bytes(data)


METADATA = {
    "a text": chunk(b"tEXt", b"Comment\0hello"),
    "a long text": chunk(b"tEXt", b"Comment\0" + MEGABYTES),
    "a text without an end": chunk(b"tEXt", b"Comment"),
    "an empty text": chunk(b"tEXt", b""),
    "a long packed text": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(MEGABYTES)),
    "a damaged packed text": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(MEGABYTES)[:-9]),
    "a text of an unknown packing": chunk(b"zTXt", b"Comment\0\x07abc"),
    "long XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\x01\0\0\0" + zlib.compress(MEGABYTES)),
    "XMP of an unknown packing": chunk(b"iTXt", b"XML:com.adobe.xmp\0\x01\x09\0\0abc"),
    "a text in no language": chunk(b"iTXt", b"Comment\0\0\0\xff\xff\0\xff\0\xff"),
    "many texts": b"".join(chunk(b"zTXt", b"k%d\0\0" % n + zlib.compress(b"v" * 70_000)) for n in range(1000)),
    "a large profile": chunk(b"iCCP", b"p\0\0" + zlib.compress(profile())),
    "a damaged profile": chunk(b"iCCP", b"p\0\x05abc"),
    "an empty profile": chunk(b"iCCP", b""),
    "broken EXIF": chunk(b"eXIf", b"II*\0\xff\xff\xff\xff"),
    "a gamma that is too short": chunk(b"gAMA", b"\0\1"),
    "a resolution that is too short": chunk(b"pHYs", b"\0"),
    "primaries that are too short": chunk(b"cHRM", bytes(5)),
    "an intent that is too short": chunk(b"sRGB", b""),
    "an animation that is too short": chunk(b"acTL", b"\0"),
    "an unknown chunk": chunk(b"prVt", bytes(99)),
}
DAMAGED = [b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"pHYs", b"tIME", b"bKGD"]


def with_chunks(data: bytes, chunks: bytes, *, last: bool = False) -> bytes:
    """The file with chunks after its header, or before its end."""
    at = len(data) - 12 if last else 33
    return data[:at] + chunks + data[at:]


def same(data: bytes, plain: bytes) -> bool:
    """Whether every way reads both files alike."""
    pairs = [[decode_image(file, each).tobytes() for each in (GREY, COLOUR)] for file in (data, plain)]
    thumbnails = [check_image(file).thumbnail for file in (data, plain)]
    return pairs[0] == pairs[1] and thumbnails[0] == thumbnails[1]


@pytest.mark.parametrize("kind", PICTURES)
def test_no_metadata_costs_an_image(kind):
    plain = encode(PICTURES[kind])

    for name, chunks in METADATA.items():
        for last in (False, True):
            assert same(with_chunks(plain, chunks, last=last), plain), (name, last)
    assert same(with_chunks(plain, b"".join(METADATA.values())), plain)


@pytest.mark.parametrize("kind", PICTURES)
@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_checksum_of_metadata_costs_no_image(kind, name):
    plain = encode(PICTURES[kind])

    for last in (False, True):
        assert same(with_chunks(plain, chunk(name, bytes(32), damaged=True), last=last), plain)


@pytest.mark.parametrize("name", [b"PLTE", b"tRNS", b"prVt", b"pLTE", b"iDAT"])
def test_damage_that_may_be_to_pixels_costs_the_image(name):
    plain = encode(PICTURES["colour"])

    with pytest.raises(ImageError) as caught:
        decode_image(with_chunks(plain, chunk(name, bytes(48), damaged=True)), COLOUR)
    assert caught.value.code == "corrupt"


ORIENTATIONS = {
    "EXIF": chunk(b"eXIf", EXIF),
    "XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
    "packed XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\x01\0\0\0" + zlib.compress(XMP)),
    "long packed XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\x01\0\0\0" + zlib.compress(XMP + b" " * 6_000_000)),
    "XMP in a text": chunk(b"tEXt", b"XML:com.adobe.xmp\0" + XMP),
    "EXIF in a text": chunk(b"tEXt", b"exif\0Exif\0\0" + EXIF),
    "a raw profile": chunk(b"tEXt", b"Raw profile type exif\0\nexif\n      34\n" + (b"Exif\0\0" + EXIF).hex().encode()),
    "a packed profile": chunk(
        b"zTXt",
        b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n      34\n" + (b"Exif\0\0" + EXIF).hex().encode()),
    ),
}


@pytest.mark.parametrize("place", ORIENTATIONS)
@pytest.mark.parametrize("last", [False, True])
def test_an_orientation_counts_wherever_it_stands_and_whatever_stands_beside_it(place, last):
    plain = encode(PICTURES["colour"])
    expected = decode_image(plain, COLOUR)[::-1, ::-1]

    for beside in (b"", METADATA["a damaged profile"], METADATA["many texts"], chunk(b"tEXt", b"a", damaged=True)):
        data = with_chunks(with_chunks(plain, ORIENTATIONS[place], last=last), beside)
        assert np.array_equal(decode_image(data, COLOUR), expected), place
        assert check_image(data).orientation == 3


def test_texts_that_unpack_to_much_are_unpacked_only_a_few_times():
    bomb = chunk(b"zTXt", b"exif\0\0" + zlib.compress(bytes(50_000_000), 9))
    data, _ = without_metadata(with_chunks(encode(PICTURES["grey"]), bomb * 200))

    assert len(data) < 8 * (4 << 20) + 10_000


def test_what_has_no_metadata_is_not_copied():
    data = encode(PICTURES["alpha"])

    assert without_metadata(data)[0] is data


def test_animations_are_remarked_and_show_their_first_frame():
    frames = [Image.new("L", (30, 20), value) for value in (10, 200, 90)]
    for format in ("PNG", "GIF", "WEBP", "AVIF"):
        options = {"lossless": True} if format == "WEBP" else {}
        for following, expected in (([], []), (frames[1:], [FURTHER_PAGES])):
            data = encode(frames[0], format, save_all=True, append_images=following, **options)
            remarks: list[str] = []
            pixels = decode_image(data, GREY, remarks=remarks)
            assert (remarks, list(check_image(data).remarks)) == (expected, expected), format
            assert np.abs(pixels.astype(int) - 10).max() <= 2, format


# Depth

RAMP = np.arange(600, dtype=np.int64).reshape(20, 30) * 255 // 599


def deep(values: np.ndarray, significant: int = 0, bits: int = 16) -> bytes:
    """A PNG of grey (H, W) or colours (H, W, C) of 16 bits."""
    channels = 1 if values.ndim == 2 else values.shape[2]
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = values.reshape(len(values), -1).astype(">u2").tobytes()
    size = len(rows) // len(values)
    lines = b"".join(b"\0" + rows[at : at + size] for at in range(0, len(rows), size))
    header = values.shape[1].to_bytes(4, "big") + values.shape[0].to_bytes(4, "big") + bytes((bits, colour, 0, 0, 0))
    sbit = chunk(b"sBIT", bytes([significant] * channels)) if significant else b""
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + sbit
    return start + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def check(data: bytes, expected: np.ndarray, *, remarks: list[str], tolerance: int = 1) -> None:
    told: list[str] = []
    found = decode_image(data, COLOUR, remarks=told).astype(int)
    colours = expected[..., None] if expected.ndim == 2 else expected
    assert np.abs(found - colours).max() <= tolerance, (found[..., 0], expected)
    assert (told, list(check_image(data).remarks)) == (remarks, remarks)


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("channels", [1, 3])
def test_fewer_bits_in_16_are_scaled_if_the_file_states_them_and_else_remarked(bits, channels):
    white = 2**bits - 1
    values = RAMP * white // 255
    values, expected = (np.stack([each] * 3, -1) if channels == 3 else each for each in (values, RAMP))

    check(deep(values, bits), expected, remarks=[])
    check(deep(values), expected * white // 65535, remarks=[UNCERTAIN_DEPTH])
    check(deep(expected * 257, bits), expected, remarks=[])  # scaled to the whole range, as PNG requires it
    check(deep(expected * 257), expected, remarks=[])


@pytest.mark.parametrize("bits", [10, 12])
def test_a_dark_picture_of_fewer_bits_that_is_scaled_as_png_requires_stays_dark(bits):
    few = RAMP * (2**bits - 1) // 255 // 64  # the darkest 64th

    check(deep(few << (16 - bits), bits), RAMP // 64, remarks=[])
    check(deep(np.rint(few * 65535 / (2**bits - 1)).astype(int), bits), RAMP // 64, remarks=[])
    check(deep(RAMP // 64 * 257, 16), RAMP // 64, remarks=[])


def test_alpha_of_16_bits_beside_grey_and_colours_is_heeded():
    alpha = np.full_like(RAMP, 32896)
    expected = (RAMP + 255) // 2

    check(deep(np.stack([RAMP * 257, alpha], -1)), expected, remarks=[], tolerance=2)
    check(deep(np.stack([RAMP * 257] * 3 + [alpha], -1)), expected, remarks=[], tolerance=2)


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_alpha_of_as_few_bits_as_its_colours_is_scaled_with_them(bits):
    white = 2**bits - 1
    colours = [RAMP * white // 255] * 3

    check(deep(np.stack([*colours, np.full_like(RAMP, white)], -1), bits), RAMP, remarks=[])
    check(deep(np.stack([*colours, np.full_like(RAMP, 65535)], -1), bits), RAMP, remarks=[])


def test_a_black_picture_of_16_bits_is_black_whatever_its_bits():
    check(deep(RAMP * 0), RAMP * 0, remarks=[])
    check(deep(np.stack([RAMP * 0] * 3, -1)), RAMP * 0, remarks=[])


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_transparent_grey_shows_the_background_at_every_depth(bits):
    levels = 2**bits
    values = np.arange(600).reshape(20, 30) % min(levels, 256) * (257 if bits == 16 else 1)
    if bits == 16:
        rows = values.astype(">u2").tobytes()
    else:
        unpacked = np.unpackbits(values.astype(np.uint8)[..., None], axis=-1)[..., 8 - bits :].reshape(20, -1)
        rows = np.packbits(unpacked, axis=1).tobytes()
    size = len(rows) // 20
    lines = b"".join(b"\0" + rows[at : at + size] for at in range(0, len(rows), size))
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", bytes([0, 0, 0, 30, 0, 0, 0, 20, bits, 0, 0, 0, 0]))
    end = chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    transparent = int(values.max()) if bits == 1 else int(values[0, 1])

    data = start + chunk(b"tRNS", transparent.to_bytes(2, "big")) + end
    found = decode_image(data, Preprocessing("RGB", 20, 30, background=(9, 99, 199))).astype(int)

    grey = np.rint(values * 255 / (levels - 1))[..., None].repeat(3, -1)
    expected = np.where((values == transparent)[..., None], (9, 99, 199), grey)
    assert np.abs(found - expected).max() <= 1


def test_a_transparent_colour_of_16_bits_shows_the_background_and_its_neighbours_do_not():
    values = np.full((20, 30, 3), (1000, 30_000, 60_000), np.int64)
    values[0, 1] += 1
    plain = deep(values)
    data = plain[:33] + chunk(b"tRNS", values[0, 0].astype(">u2").tobytes()) + plain[33:]

    found = decode_image(data, Preprocessing("RGB", 20, 30, background=(9, 99, 199)))

    assert found[0, 0].tolist() == found[19, 29].tolist() == [9, 99, 199]
    assert np.abs(found[0, 1].astype(int) - (4, 117, 233)).max() <= 1
