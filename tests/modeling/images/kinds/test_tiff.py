"""TIFFs of every sample type: right values, or `unsupported` with channels and type; and their pages."""

import struct
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from PIL import Image, ImageCms

from modeling.data.facts import check_image
from modeling.errors import ImageError
from modeling.images.decode import decode_image
from modeling.images.preprocessing import Preprocessing
from modeling.images.remarks import FURTHER_PAGES, UNCERTAIN_DEPTH
from tests.support.images import encode

GREY, COLOUR = Preprocessing("L", 8, 16), Preprocessing("RGB", 8, 16)
RAMP = np.arange(128, dtype=np.int64).reshape(8, 16) * 2  # 0, 2, ... 254: both dark and bright
RAMP[0, 0], RAMP[7, 15] = 0, 255
SHORT, LONG, FLOAT = 3, 4, 11  # types of tags
FORMATS = {"u": 1, "i": 2, "f": 3}


def tiff(
    data: bytes,
    bits: Sequence[int],
    kind: str,
    photometric: int | None = 1,
    *,
    order: str = "<",
    more: Mapping[int, tuple[int, Sequence[float]]] | None = None,
    big: bool = False,
    size: tuple[int, int] = (16, 8),
    pages: int = 1,
    subfile: int = 0,
) -> bytes:
    """A TIFF of a single strip. more: other tags: type and values. pages: how often the page is there."""
    start = 16 if big else 8
    tags = {
        256: (LONG, [size[0]]), 257: (LONG, [size[1]]), 258: (SHORT, bits), 259: (SHORT, [1]), 273: (LONG, [start]),
        277: (SHORT, [len(bits)]), 278: (LONG, [size[1]]), 279: (LONG, [len(data)]),
        339: (SHORT, [FORMATS[kind]] * len(bits)),
    }  # fmt: skip
    if photometric is not None:
        tags[262] = SHORT, [photometric]
    tags |= more or {}
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "H", 43 if big else 42)
    offset, count, entry = ("Q", "Q", "HHQ") if big else ("L", "H", "HHL")
    head += struct.pack(order + "HH", 8, 0) if big else b""
    at = start + len(data)
    body = head + struct.pack(order + offset, at) + data
    for page in range(pages):
        entries = dict(tags) | ({254: (LONG, [subfile])} if page else {})
        end = at + struct.calcsize(order + count) + len(entries) * (20 if big else 12) + (8 if big else 4)
        directory, values = struct.pack(order + count, len(entries)), b""
        for tag, (type_, numbers) in sorted(entries.items()):
            packed = struct.pack(f"{order}{len(numbers)}{ {SHORT: 'H', LONG: 'L', FLOAT: 'f'}[type_] }", *numbers)
            inline = 8 if big else 4
            if len(packed) > inline:
                place, packed, values = end + len(values), b"", values + packed
                packed = struct.pack(order + offset, place)
            directory += struct.pack(order + entry, tag, type_, len(numbers)) + packed.ljust(inline, b"\0")
        following = end + len(values)
        body += directory + struct.pack(order + offset, following if page + 1 < pages else 0) + values
        at = following
    return body


def grey_tiff(values: np.ndarray, photometric: int | None = 1, *, order: str = "<", **options) -> bytes:
    stored = values.astype(values.dtype.newbyteorder(order))
    return tiff(stored.tobytes(), [8 * stored.itemsize], stored.dtype.kind, photometric, order=order, **options)


def packed_12(values: np.ndarray) -> bytes:
    pairs = values.reshape(-1, 2)
    parts = pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255
    return np.stack(parts, -1).astype(np.uint8).tobytes()


def outcome(data: bytes) -> tuple[np.ndarray, list[str]]:
    """Grey pixels and the remarks; training, jobs and the scan agree."""
    remarks: list[str] = []
    pixels = decode_image(data, GREY, remarks=remarks)[..., 0].astype(int)
    assert np.array_equal(decode_image(data, COLOUR)[..., 1], pixels)
    assert list(check_image(data).remarks) == remarks
    return pixels, remarks


def check(data: bytes, expected: np.ndarray = RAMP, *, remarks: Sequence[str] = (), tolerance: int = 0) -> None:
    found, told = outcome(data)
    assert np.abs(found - expected).max() <= tolerance, (found, expected)
    assert told == list(remarks)


def refusal(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        decode_image(data, GREY)
    with pytest.raises(ImageError) as by_scan:
        check_image(data)
    assert str(by_scan.value) == str(caught.value)
    return str(caught.value)


BRIGHT = RAMP // 2 + 128  # of values that fill the upper half of a range: they tell the whole range from its own


@pytest.mark.parametrize(("order", "big"), [("<", False), (">", False), ("<", True)])
@pytest.mark.parametrize("grey", [RAMP, BRIGHT], ids=["ramp", "bright"])
def test_every_sample_type_that_is_read_has_its_right_values(order, big, grey):
    options = {"order": order, "big": big}

    check(grey_tiff(grey.astype(np.uint8), **options), grey)
    check(grey_tiff(grey.astype(np.uint16) * 257, **options), grey)
    check(grey_tiff((grey / 255).astype(np.float32), **options), grey)
    check(grey_tiff(grey.astype(np.float32), **options), grey)
    check(grey_tiff((grey * 257).astype(np.float32), **options), grey)
    check(grey_tiff((grey * 128.498).astype(np.int16), **options), grey, tolerance=1)


@pytest.mark.parametrize("grey", [RAMP, BRIGHT], ids=["ramp", "bright"])
def test_signs_and_32_bits_are_heeded(grey):
    signed = grey_tiff((grey - 128).astype(np.int8))
    wide = grey_tiff(grey.astype(np.uint32) * 16843009)

    check(signed, grey, remarks=[] if grey is RAMP else [UNCERTAIN_DEPTH])
    check(wide, grey)
    check(grey_tiff((grey * 257).astype(np.uint32)), grey)
    check(grey_tiff((grey * 257).astype(np.int32)), grey)


def test_where_0_is_white_the_values_are_inverted():
    for order in ("<", ">"):
        check(grey_tiff((255 - RAMP).astype(np.uint8), 0, order=order))
        check(grey_tiff(1 - (RAMP / 255).astype(np.float32), 0, order=order))
    check(grey_tiff((255 - RAMP).astype(np.uint16) * 257, 0))
    bits = (RAMP > 127).astype(np.uint8)
    check(tiff(np.packbits(1 - bits, axis=1).tobytes(), [1], "u", 0), bits * 255)
    check(tiff(np.packbits(bits, axis=1).tobytes(), [1], "u", 1), bits * 255)
    assert refusal(grey_tiff(RAMP.astype(np.uint16), 0, order=">")) == (
        "unsupported: TIFF with 1 channel of 16 bits (unsigned; grey, 0 is white) is not supported; "
        "convert to 8 or 16 bits"
    )


def test_packed_12_bits_are_read():
    check(tiff(packed_12(RAMP * 4095 // 255), [12], "u"), tolerance=1)
    check(tiff(packed_12(RAMP // 8), [12], "u"), RAMP // 8 * 255 // 4095, tolerance=1)  # dark, and known to be so


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("kind", [np.uint16, np.int16, np.uint32])
def test_fewer_bits_than_the_type_has_are_scaled_if_the_file_states_them_and_else_remarked(bits, kind):
    values = (RAMP * (2**bits - 1) // 255).astype(kind)
    white = 2**bits - 1

    check(grey_tiff(values, more={281: (SHORT, [white])}), tolerance=1)
    check(grey_tiff(values, more={341: (SHORT, [white])}), tolerance=1)
    whole = 32767 if kind is np.int16 else 65535
    check(grey_tiff(values), values.astype(int) * 255 // whole, remarks=[UNCERTAIN_DEPTH], tolerance=1)
    found = (SHORT, [int(values.max()) - 3])  # a maximum that was found, not one that is possible
    assert outcome(grey_tiff(values, more={281: found}))[1] == [UNCERTAIN_DEPTH]


def test_a_microscope_states_its_bits_in_words():
    words = b'<OME><Pixels SignificantBits="12"/></OME>\0'
    image = Image.fromarray((RAMP * 16).astype(np.uint16))

    check(encode(image, "TIFF", tiffinfo={270: words.decode()}), RAMP * 16 * 255 // 4095, tolerance=1)


def test_colours_of_16_bits_that_never_exceed_14_are_remarked():
    deep = np.stack([RAMP] * 3, -1).astype("<u2")

    check(tiff((deep * 257).tobytes(), [16] * 3, "u", 2))
    check(tiff((deep * 16).tobytes(), [16] * 3, "u", 2), RAMP // 16, remarks=[UNCERTAIN_DEPTH])
    check(tiff((deep * 0).tobytes(), [16] * 3, "u", 2), RAMP * 0)


@pytest.mark.parametrize("white", [1.0, 255.0, 65535.0])
@pytest.mark.parametrize("beyond", [1.0, 1.001, 1.3, 1.9])
def test_floats_a_little_beyond_white_or_below_black_are_clipped(white, beyond):
    values = (RAMP / 255 * white).astype(np.float32)
    values[7, 15], values[0, 0] = white * beyond, -0.05 * white * (beyond > 1)

    check(grey_tiff(values))


def test_a_few_outliers_do_not_decide_the_range():
    values = np.tile((RAMP / 255).astype(np.float32), (8, 8))
    expected = np.tile(RAMP, (8, 8))
    for outlier in (50.0, 1e30, np.inf):
        values[3, 3], expected[3, 3] = outlier, 255
        found = decode_image(grey_tiff(values, size=(128, 64)), Preprocessing("L", 64, 128))[..., 0]
        assert np.array_equal(found, expected), outlier


def test_values_that_are_no_numbers_are_black_and_infinite_ones_black_or_white():
    values = (RAMP / 255).astype(np.float32)
    values[0, :3] = np.nan, np.inf, -np.inf
    expected = RAMP.copy()
    expected[0, :3] = 0, 255, 0

    check(grey_tiff(values), expected)
    check(grey_tiff(np.full((8, 16), np.nan, np.float32)), RAMP * 0)


def test_floats_of_no_known_range_span_their_own_and_dark_ones_are_remarked():
    centred = grey_tiff((RAMP - 127.5).astype(np.float32))
    dark = grey_tiff((RAMP / 255 * 20).astype(np.float32))

    check(centred, remarks=[UNCERTAIN_DEPTH], tolerance=1)
    check(dark, RAMP * 20 // 255, remarks=[UNCERTAIN_DEPTH], tolerance=1)
    check(grey_tiff((RAMP / 255 * 4095).astype(np.float32), more={341: (FLOAT, [4095.0])}))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (grey_tiff(RAMP.astype(np.float16)), "1 channel of 16 bits (float; grey)"),
        (grey_tiff(RAMP.astype(np.float64)), "1 channel of 64 bits (float; grey)"),
        (grey_tiff(RAMP.astype(np.uint64)), "1 channel of 64 bits (unsigned; grey)"),
        (tiff(bytes(512), [16, 16], "u", more={338: (SHORT, [2])}), "2 channels of 16 bits (unsigned; grey)"),
        (tiff(bytes(1536), [32] * 3, "f", 2), "3 channels of 32 bits (float; RGB)"),
        (tiff(bytes(1536), [32] * 3, "u", 2), "3 channels of 32 bits (unsigned; RGB)"),
        (tiff(bytes(768), [16] * 3, "i", 2), "3 channels of 16 bits (signed; RGB)"),
        (tiff(bytes(640), [8] * 5, "u", 1, more={338: (SHORT, [0] * 4)}), "5 channels of 8 bits (unsigned; grey)"),
        (tiff(bytes(1024), [64], "f", 1, more={339: (SHORT, [6])}), "1 channel of 64 bits (complex; grey)"),
        (tiff(bytes(128), [8], "u", 1, more={259: (SHORT, [34887])}), "its compression 34887 is unknown"),
        (tiff(bytes(128), [8], "u", 1, more={259: (SHORT, [50001])}), "its compression is WebP"),
        (tiff(bytes(768), [16] * 3, "u", 2, more={284: (SHORT, [2])}), "its channels are stored one after another"),
        (tiff(bytes(192), [8] * 3, "u", 6), "its chroma is subsampled without compression"),
        (tiff(bytes(512), [8] * 4, "u", 5, more={332: (SHORT, [2])}), "its inks are not CMYK"),
        (tiff(bytes(384), [8] * 3, "u", 9), "3 channels of 8 bits (unsigned; ICC Lab)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_read_is_unsupported_and_says_channels_and_type(data, words):
    refused = refusal(data)

    assert refused.startswith("unsupported: TIFF with ")
    assert words in refused


def test_what_pillow_cannot_open_for_its_header_is_unsupported_too():
    assert refusal(grey_tiff(RAMP.astype(np.uint8), order=">", big=True)) == (
        "unsupported: big-endian BigTIFF files are not supported; convert to little-endian ones"
    )


def test_tags_that_make_no_sense_are_damage():
    for damaged in (tiff(bytes(128), [0], "u"), tiff(bytes(128), [8], "u", 77), tiff(bytes(128), [200], "u")):
        assert refusal(damaged).startswith("corrupt")


COLOURS = np.stack([RAMP, RAMP[::-1], RAMP // 2], -1).astype(np.uint8)


def colours_of(data: bytes) -> np.ndarray:
    return decode_image(data, COLOUR).astype(int)


def test_colours_come_out_right_however_they_are_stored():
    planes = np.ascontiguousarray(COLOURS.transpose(2, 0, 1))
    alpha = np.full((8, 16, 1), 128, np.uint8)
    associated = np.concatenate([COLOURS // 2, alpha], -1)
    straight = np.concatenate([COLOURS, alpha], -1)
    inks = np.concatenate([255 - COLOURS, np.zeros_like(alpha)], -1)
    on_white = COLOURS.astype(int) // 2 + 127

    strips = {273: (LONG, [8, 136, 264]), 279: (LONG, [128] * 3), 284: (SHORT, [2])}
    assert np.array_equal(colours_of(tiff(COLOURS.tobytes(), [8] * 3, "u", 2)), COLOURS)
    assert np.array_equal(colours_of(tiff(planes.tobytes(), [8] * 3, "u", 2, more=strips)), COLOURS)
    assert np.array_equal(colours_of(tiff((COLOURS * np.uint16(257)).tobytes(), [16] * 3, "u", 2)), COLOURS)
    assert np.array_equal(colours_of(tiff(inks.tobytes(), [8] * 4, "u", 5)), COLOURS)
    for extra, pixels in ((1, associated), (2, straight)):
        found = colours_of(tiff(pixels.tobytes(), [8] * 4, "u", 2, more={338: (SHORT, [extra])}))
        assert np.abs(found - on_white).max() <= 2


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd"])
def test_compressions_do_not_change_the_values(compression):
    if compression == "zstd" and not _has_zstd():
        pytest.skip("this build of libtiff has no zstd")
    for pixels in (RAMP.astype(np.uint8), (RAMP * 257).astype(np.uint16), (RAMP / 255).astype(np.float32)):
        check(encode(Image.fromarray(pixels), "TIFF", compression=compression))
    assert np.array_equal(colours_of(encode(Image.fromarray(COLOURS), "TIFF", compression=compression)), COLOURS)


@pytest.mark.parametrize("compression", [8, 32773], ids=["deflate", "packbits"])
@pytest.mark.parametrize("order", "<>")
def test_compressed_values_of_every_type_come_out_right_in_both_byte_orders(order, compression):
    for values in (
        (BRIGHT * 257).astype(np.uint16),
        (BRIGHT * 128.498).astype(np.int16),
        (BRIGHT * 257).astype(np.int32),
        (BRIGHT / 255).astype(np.float32),
    ):
        stored = values.astype(values.dtype.newbyteorder(order))
        data = zlib.compress(stored.tobytes()) if compression == 8 else packed_runs(stored)
        more = {259: (SHORT, [compression])}
        check(tiff(data, [8 * stored.itemsize], stored.dtype.kind, order=order, more=more), BRIGHT, tolerance=1)


def packed_runs(values: np.ndarray) -> bytes:
    return b"".join(bytes([len(row.tobytes()) - 1]) + row.tobytes() for row in values)


def test_tiles_come_out_right_beyond_the_edges_of_the_image():
    padded = np.pad((RAMP * 257).astype("<u2"), ((0, 8), (0, 16)), constant_values=7)
    tiles = np.concatenate([padded[:, :16], padded[:, 16:]]).tobytes()  # the second one is cut away
    more = {322: (SHORT, [16]), 323: (SHORT, [16]), 324: (LONG, [8]), 325: (LONG, [512])}

    check(tiff(tiles, [16], "u", more=more))


def test_separate_planes_of_16_bits_are_right_or_unsupported():
    planes = np.ascontiguousarray((COLOURS * np.uint16(257)).transpose(2, 0, 1))
    strips = {273: (LONG, [8, 264, 520]), 279: (LONG, [256] * 3), 284: (SHORT, [2])}

    assert "stored one after another" in refusal(tiff(planes.tobytes(), [16] * 3, "u", 2, more=strips))


def _has_zstd() -> bool:
    try:
        encode(Image.new("L", (1, 1)), "TIFF", compression="zstd")
    except OSError:
        return False
    return True


def test_lab_is_shown_in_rgb():
    lab = ImageCms.applyTransform(
        Image.fromarray(COLOURS),
        ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"),
    )

    found = colours_of(encode(lab, "TIFF"))

    assert np.abs(found - COLOURS).mean() < 4
    assert np.abs(colours_of(encode(Image.new("LAB", (16, 8), (255, 128, 128)), "TIFF")) - 255).max() <= 2


def test_a_palette_of_8_bits_where_16_are_required_is_not_black():
    shades = [value for channel in (1, 2, 3) for value in (np.arange(256) // channel).tolist()]
    right, short = ([value * factor for value in shades] for factor in (256, 1))
    indices = RAMP.astype(np.uint8).tobytes()

    for palette in (right, short):
        found = colours_of(tiff(indices, [8], "u", 3, more={320: (SHORT, palette)}))
        assert np.array_equal(found, np.stack([RAMP, RAMP // 2, RAMP // 3], -1))


@pytest.mark.parametrize("big", [False, True], ids=["classic", "big"])
def test_further_pages_are_remarked_but_thumbnails_and_masks_are_none(big):
    page = RAMP.astype(np.uint8).tobytes()

    check(tiff(page, [8], "u", big=big))
    check(tiff(page, [8], "u", big=big, pages=2), remarks=[FURTHER_PAGES])
    check(tiff(page, [8], "u", big=big, pages=3, subfile=1))
    check(tiff(page, [8], "u", big=big, pages=2, subfile=4))
    check(tiff(page, [8], "u", big=big, pages=3, subfile=2), remarks=[FURTHER_PAGES])


def test_pages_in_a_circle_are_looked_at_once_each_and_not_for_ever():
    data = bytearray(tiff(RAMP.astype(np.uint8).tobytes(), [8], "u", pages=2, subfile=1))
    first = int.from_bytes(data[4:8], "little")
    data[-4:] = first.to_bytes(4, "little")

    found, _ = outcome(bytes(data))

    assert np.array_equal(found, RAMP)
