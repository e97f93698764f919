"""JPEGs of rarer kinds, and how they end: the same by every decoder, at every scale, and for scan and jobs."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from modeling.data.facts import check_image
from modeling.errors import ImageError
from modeling.images.decode import decode_image
from modeling.images.preprocessing import Preprocessing
from modeling.images.remarks import FURTHER_PAGES
from modeling.inference.nvjpeg import NvJpeg
from tests.support.images import encode
from tests.support.pictures import photo

END, SCAN = b"\xff\xd9", b"\xff\xda"
FULL, SMALL, GREY = Preprocessing("RGB", 200, 240), Preprocessing("RGB", 20, 24), Preprocessing("L", 20, 24)


def outcome(data: bytes, preprocessing: Preprocessing) -> bytes | str:
    """The pixels, or the code of the error, in which the scan must agree."""
    try:
        found: bytes | str = decode_image(data, preprocessing).tobytes()
    except ImageError as err:
        found = err.code
    try:
        check_image(data)
        scanned = "ok"
    except ImageError as err:
        scanned = err.code
    assert scanned == (found if isinstance(found, str) else "ok")
    return found


def outcomes(data: bytes) -> list[bytes | str]:
    return [outcome(data, preprocessing) for preprocessing in (FULL, SMALL, GREY)]


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content


def segments_of(data: bytes) -> dict[int, bytes]:
    """The contents of the segments before the pixels by marker, those of one marker one after another."""
    found: dict[int, bytes] = {}
    at = 2
    while True:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        found[marker] = found.get(marker, b"") + data[at + 4 : at + 2 + length]
        at += 2 + length
        if marker == 0xDA:
            return found | {0: data[at : data.rindex(END)]}


def with_scans(planes: list[Image.Image]) -> bytes:
    """A sequential JPEG of three components with a scan for each."""
    parts = [segments_of(encode(plane, "JPEG", quality=90)) for plane in planes]
    frame = parts[0][0xC0][:5] + bytes([3]) + b"".join(bytes([n, 0x11, 0]) for n in (1, 2, 3))
    scans = [segment(0xDA, bytes([1, n, 0, 0, 63, 0])) + part[0] for n, part in enumerate(parts, 1)]
    head = segment(0xDB, parts[0][0xDB]) + segment(0xC0, frame) + segment(0xC4, parts[0][0xC4])
    return b"\xff\xd8" + head + b"".join(scans) + END


PICTURE = photo(1, (240, 200))
KINDS = {
    "baseline": encode(PICTURE, "JPEG", quality=90),
    "progressive": encode(PICTURE, "JPEG", quality=90, progressive=True),
    "grey": encode(PICTURE.convert("L"), "JPEG", quality=90),
    "grey progressive": encode(PICTURE.convert("L"), "JPEG", quality=90, progressive=True),
    "restart markers": encode(PICTURE, "JPEG", quality=90, restart_marker_rows=2),
    "scans": with_scans(list(PICTURE.convert("YCbCr").split())),
    "CMYK": encode(PICTURE.convert("CMYK"), "JPEG", quality=90),
    "CMYK progressive": encode(PICTURE.convert("CMYK"), "JPEG", quality=90, progressive=True),
    "RGB": encode(PICTURE, "JPEG", quality=90, keep_rgb=True),
}
SEVERAL_SCANS = ["progressive", "grey progressive", "scans", "CMYK progressive"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_that_lacks_only_its_end_marker_is_whole(kind):
    data = KINDS[kind]
    whole = outcomes(data)

    assert not [found for found in whole if isinstance(found, str)]
    for same in (data[:-2], data[:-1], data + b"more" * 999, data + data[:-2], data[:-2] + b"\xff" + END):
        assert outcomes(same) == whole


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_missing_pixels_are_missing_with_an_end_marker_and_without(kind, share):
    cut = KINDS[kind][: int(len(KINDS[kind]) * share)]

    for data in (cut, cut + END, cut + END + b"more" * 999):
        assert outcomes(data) == ["truncated"] * 3


@pytest.mark.parametrize("kind", SEVERAL_SCANS)
def test_missing_scans_are_missing_although_those_that_are_there_are_whole(kind):
    data = KINDS[kind]
    scans = [at for at in range(len(data)) if data.startswith(SCAN, at)]
    assert len(scans) > 2

    for at in scans[1:]:
        tables = data.rfind(b"\xff\xc4", 0, at)  # the scan's own stand between it and the scan before
        cut = data[: tables if tables > scans[0] and SCAN not in data[tables:at] else at]
        assert outcomes(cut) == ["truncated"] * 3
        assert outcomes(cut + END) == ["truncated"] * 3


def test_a_missing_part_between_restart_markers_is_missing():
    data = KINDS["restart markers"]
    markers = [at for at in range(len(data)) if data[at] == 0xFF and 0xD0 <= data[at + 1] <= 0xD7]

    assert outcomes(data[: markers[2]] + data[markers[4] :]) == ["truncated"] * 3


@pytest.mark.parametrize("kind", ["baseline", "progressive", "grey", "restart markers"])
def test_a_device_leaves_unfinished_files_to_the_cores(kind):
    data = KINDS[kind]
    last = data.rindex(SCAN)
    unfinished = [data[: len(data) // 2], data[: len(data) // 2] + END, data[:-2]]
    if kind in SEVERAL_SCANS:
        unfinished.append(data[:last] + END)

    found = NvJpeg(SMALL, torch.device("cpu"))([*unfinished, data], 10**6)

    assert [pixels is None for pixels in found] == [True] * len(unfinished) + [False]


def without_adobe(data: bytes) -> bytes:
    at = data.index(b"\xff\xee")
    return data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]


@pytest.mark.parametrize("side", [64, 500, 1000, 2000])
@pytest.mark.parametrize("progressive", [False, True])
def test_cmyk_is_inverted_exactly_if_adobes_marker_is_there(side, progressive):
    ink = np.full((side, side, 4), (200, 100, 30, 10), np.uint8)
    inks, inverse = (Image.frombytes("CMYK", (side, side), each.tobytes()) for each in (ink, 255 - ink))
    options = {"quality": 95, "progressive": progressive}
    expected = np.array(inks.convert("RGB").getpixel((0, 0)))

    for preprocessing in (Preprocessing("RGB", 28, 28), Preprocessing("RGB", 64, 64, resize=64)):
        marked = decode_image(encode(inks, "JPEG", **options), preprocessing)
        plain = decode_image(without_adobe(encode(inverse, "JPEG", **options)), preprocessing)
        assert np.abs(marked - expected).max() <= 3
        assert np.abs(plain - expected).max() <= 3
    check_image(without_adobe(encode(inverse, "JPEG", **options)))


def test_ycck_is_cmyk_with_its_colours_apart():
    """Pillow writes no YCCK: a CMYK file whose marker says that it is gives what the formula says."""
    y, cb, cr, k = 150, 100, 140, 20
    stored = Image.frombytes("CMYK", (64, 64), bytes((255 - y, 255 - cb, 255 - cr, 255 - k)) * 4096)
    data = bytearray(encode(stored, "JPEG", quality=100))
    data[data.index(b"Adobe") + 11] = 2  # the transform

    found = decode_image(bytes(data), Preprocessing("RGB", 64, 64))

    red, green, blue = y + 1.402 * (cr - 128), y - 0.344 * (cb - 128) - 0.714 * (cr - 128), y + 1.772 * (cb - 128)
    inks = tuple(round(255 - (255 - value)) for value in (red, green, blue))  # C, M, Y as stored: inverted
    pixel = Image.new("CMYK", (1, 1), (*inks, 255 - k)).convert("RGB").getpixel((0, 0))
    assert np.abs(found - np.array(pixel)).max() <= 3


def lossless(grey: np.ndarray) -> bytes:
    """A lossless JPEG (SOF3) of 8 bits: each difference from the left neighbour, the first ones from above."""
    before = np.roll(grey, 1, axis=1)
    before[1:, 0], before[0, 0] = grey[:-1, 0], 128
    bits = []
    for difference in (grey - before).ravel().tolist():
        size = abs(difference).bit_length()
        bits.append(f"{size:04b}")  # nine codes of four bits
        if size:
            bits.append(f"{difference if difference > 0 else difference + (1 << size) - 1:0{size}b}")
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    pixels = int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\0")
    height, width = grey.shape
    frame = bytes([8]) + height.to_bytes(2, "big") + width.to_bytes(2, "big") + bytes([1, 1, 0x11, 0])
    codes = bytes([0, 0, 0, 0, 9, *[0] * 12, *range(9)])
    scan = segment(0xC3, frame) + segment(0xC4, codes) + segment(0xDA, bytes([1, 1, 0, 1, 0, 0]))
    return b"\xff\xd8" + scan + pixels + END


@pytest.mark.parametrize("scale", [1, 3, 9])
def test_a_lossless_jpeg_is_read_at_every_size_although_it_has_no_fractions(scale):
    grey = np.asarray(PICTURE.convert("L").resize((24 * scale, 20 * scale)), dtype=np.int64)
    data = lossless(grey)

    check_image(data)
    found = decode_image(data, GREY)[..., 0]

    expected = decode_image(encode(Image.fromarray(grey.astype(np.uint8))), GREY)[..., 0]
    assert np.array_equal(found, expected)
    with pytest.raises(ImageError, match="truncated"):
        decode_image(data[: len(data) // 2], GREY)


@pytest.mark.parametrize(("bits", "channels"), [(12, 3), (12, 1), (8, 2), (16, 3)])
def test_other_bits_and_channels_are_unsupported_and_named(bits, channels):
    frame = bytes([bits, 0, 8, 0, 8, channels]) + b"".join(bytes([n, 0x11, 0]) for n in range(1, channels + 1))
    data = b"\xff\xd8" + segment(0xC1, frame) + segment(0xDA, bytes([1, 1, 0, 0, 63, 0])) + b"pixels" + END

    with pytest.raises(ImageError) as caught:
        decode_image(data, GREY)

    assert caught.value.code == "unsupported"
    assert f"{channels} channel" in caught.value.message
    assert f"of {bits} bits" in caught.value.message


def test_further_pictures_in_a_jpeg_are_remarked_by_every_way():
    data = encode(PICTURE, "MPO", save_all=True, append_images=[photo(2, (240, 200))])

    for preprocessing, file in itertools.product((FULL, GREY), (data, KINDS["baseline"])):
        remarks: list[str] = []
        decode_image(file, preprocessing, remarks=remarks)
        assert remarks == ([FURTHER_PAGES] if file is data else [])
        assert list(check_image(file).remarks) == remarks
    assert NvJpeg(SMALL, torch.device("cpu"))([data], 10**6) == [None]
