"""HEIC: what is read with the extra, what is refused by the boxes of a file, and what is said without the extra."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from modeling.data.facts import check_image
from modeling.errors import ImageError
from modeling.images import decode
from modeling.images.decode import decode_image
from modeling.images.formats import HEIF, unsupported_format
from modeling.images.heif import heif_pixels
from modeling.images.preprocessing import Preprocessing

RGB = Preprocessing("RGB", 24, 32)


def box(kind: bytes, *content: bytes) -> bytes:
    inner = b"".join(content)
    return struct.pack(">I4s", 8 + len(inner), kind) + inner


def made(
    items: dict[int, bytes],
    sizes: list[tuple[int, int]],
    *,
    tiles: tuple[int, ...] = (),
    auxiliary: tuple[int, ...] = (),
) -> bytes:
    """A HEIC file whose main image is item 1, without pixels; item N has the size N - 1, or the last one."""
    infos = [box(b"infe", b"\2\0\0\0", struct.pack(">HH", number, 0), kind, b"\0") for number, kind in items.items()]
    ispe = [box(b"ispe", b"\0\0\0\0", struct.pack(">II", *size)) for size in sizes]
    properties = [struct.pack(">HBB", number, 1, min(number, len(sizes))) for number in items]
    refs = [box(b"auxl", struct.pack(">HHH", number, 1, 1)) for number in auxiliary]
    if tiles:
        refs.append(box(b"dimg", struct.pack(f">HH{len(tiles)}H", 1, len(tiles), *tiles)))
    meta = box(
        b"meta", b"\0\0\0\0",
        box(b"pitm", b"\0\0\0\0", struct.pack(">H", 1)),
        box(b"iinf", b"\0\0\0\0", struct.pack(">H", len(infos)), *infos),
        box(b"iref", b"\0\0\0\0", *refs),
        box(b"iprp", box(b"ipco", *ispe), box(b"ipma", b"\0\0\0\0", struct.pack(">I", len(items)), *properties)),
    )  # fmt: skip
    return box(b"ftyp", b"heic\0\0\0\0mif1heic") + meta + box(b"mdat", b"\0" * 20)


def refused(call, *arguments, **options) -> str:
    with pytest.raises(ImageError) as caught:
        call(*arguments, **options)
    return str(caught.value)


# By the boxes alone


def test_an_image_costs_its_pixels_its_tiles_and_its_alpha():
    grid = {1: b"grid", 2: b"hvc1", 3: b"hvc1"}

    assert unsupported_format(made({1: b"hvc1"}, [(40, 30)])) == HEIF
    assert heif_pixels(made({1: b"hvc1"}, [(40, 30)])) == 1200
    assert heif_pixels(made({1: b"hvc1", 2: b"hvc1"}, [(40, 30), (20, 10)], auxiliary=(2,))) == 1400
    assert heif_pixels(made(grid, [(40, 30), (20, 30)], tiles=(2, 3))) == 1200
    assert heif_pixels(made(grid, [(40, 30), (20, 30)], tiles=(2,) * 60_000)) == 60_000 * 600


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (made({1: b"iovl", 2: b"hvc1"}, [(9, 9)], tiles=(2, 2)), "unsupported: a HEIF image of kind 'iovl'"),
        (made({1: b"iden", 2: b"hvc1"}, [(9, 9)], tiles=(2,)), "unsupported: a HEIF image of kind 'iden'"),
        (made({1: b"grid", 2: b"grid"}, [(9, 9)], tiles=(2, 2)), "unsupported: a HEIF image of kind 'grid'"),
        (made({1: b"av01"}, [(9, 9)]), "unsupported: a HEIF image of kind 'av01'"),
        (made({2: b"hvc1"}, [(9, 9)]), "corrupt: the HEIC file has no main image"),
        (made({}, [])[:24] + box(b"moov"), "unsupported: a HEIF film without a still image"),
        (made({}, [])[:24], "truncated: the HEIC file ends before its images are named"),
        (made({1: b"hvc1"}, [(9, 9)])[:-1], "truncated: the file ends too early"),
        (made({1: b"hvc1"}, [(9, 9)]) + box(b"meta", b"\0\0\0\0", b"\0\0\0\2pitm"), "corrupt: the HEIC box b'pitm'"),
        (made({1: b"hvc1"}, [(9, 9)]) + box(b"iref", b"\0\0\0\0", box(b"dimg", b"\0\1\1\1")), "corrupt: a HEIC file"),
        (made({1: b"hvc1"}, [(9, 9)]) + box(b"ispe", b"\0\0\0\0\0"), "corrupt: a box of the HEIC file ends too early"),
        (made({1: b"hvc1"}, [(9, 9)]) + box(b"free") * 10_001, "unsupported: a HEIC file of more than 10,000 boxes"),
        (
            made({1: b"hvc1"}, [(9, 9)]) + box(b"ipma", struct.pack(">II", 0, 10_001), b"\0\1\0" * 10_001),
            "unsupported: a HEIC file of more than 10,000 boxes",
        ),
    ],
)  # fmt: skip
def test_what_is_no_photograph_or_damaged_is_refused_before_the_decoder_sees_it(data, message):
    assert refused(heif_pixels, data).startswith(message)


def test_without_the_extra_the_message_names_the_command(monkeypatch):
    monkeypatch.setattr(decode, "heif_version", lambda: "")

    message = refused(decode_image, made({1: b"hvc1"}, [(40, 30)]), RGB)

    assert message == (
        "unsupported: HEIC files are read with an extra: pip install 'pigeonhole[heic]', in a container "
        "PIGEONHOLE_HEIC=1 when its image is built; or convert them to JPEG"
    )


# With the extra


def photograph(size=(64, 48)) -> Image.Image:
    """Red on the left, blue on the right, dark at the top."""
    width, height = size
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[:, : width // 2, 0] = pixels[:, width // 2 :, 2] = np.linspace(60, 250, height, dtype=np.uint8)[:, None]
    return Image.fromarray(pixels)


def encoded(image: Image.Image, **options) -> bytes:
    heif = pytest.importorskip("pillow_heif", reason="the extra heic is not installed")
    buffer = io.BytesIO()
    heif.from_pillow(image).save(buffer, quality=90, **options)
    return buffer.getvalue()


def close(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and float(np.abs(a.astype(int) - b.astype(int)).mean()) < 6


def test_a_photograph_has_the_pixels_of_its_png():
    image = photograph()
    buffer = io.BytesIO()
    image.save(buffer, "PNG")

    pixels = decode_image(encoded(image), RGB)

    assert close(pixels, decode_image(buffer.getvalue(), RGB))
    facts = check_image(encoded(image))
    assert (facts.size, facts.mode, facts.format, facts.orientation) == ((64, 48), "RGB", "HEIF", 1)


def test_the_orientation_is_applied_once():
    image = photograph()
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(image, exif=exif.tobytes())

    assert check_image(data).size == (48, 64)
    upright = decode_image(data, Preprocessing("RGB", 64, 48))
    assert close(upright, np.asarray(photograph().transpose(Image.Transpose.ROTATE_270)))


def test_tiles_and_alpha_are_read():
    image = photograph((256, 192))
    tiled = encoded(image, tile_size=64)
    alpha = image.copy()
    alpha.putalpha(Image.new("L", image.size, 0))

    assert heif_pixels(tiled) == 256 * 192
    assert close(decode_image(tiled, RGB), decode_image(encoded(image), RGB))
    assert decode_image(encoded(alpha), Preprocessing("RGB", 24, 32, background=(9, 9, 9))).max() <= 12


def test_pixels_are_limited_by_the_header_and_a_larger_coded_image_is_not_decoded():
    data = encoded(photograph())
    at = data.index(b"ispe") + 8
    bomb = data[:at] + struct.pack(">II", 16, 16) + data[at + 8 :]
    huge = data[:at] + struct.pack(">II", 60_000, 60_000) + data[at + 8 :]

    assert refused(decode_image, data, RGB, max_pixels=3000).startswith("too_large: 64 x 48 pixels are more than")
    assert refused(decode_image, huge, RGB).startswith(("too_large: ", "too_slow: "))
    assert refused(decode_image, bomb, RGB).startswith("corrupt: ")


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6, 0.95])
def test_a_cut_file_is_an_error_of_the_image(share):
    data = encoded(photograph())

    assert refused(decode_image, data[: int(share * len(data))], RGB).split(":")[0] in ("truncated", "corrupt")


def test_damaged_files_are_errors_of_the_image_or_images():
    data, random = encoded(photograph()), np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(data)
        for place in random.integers(0, len(data), 4).tolist():
            damaged[place] = int(random.integers(0, 256))
        try:
            assert decode_image(bytes(damaged), RGB).shape == (24, 32, 3)
        except ImageError as err:
            assert err.code in ("truncated", "corrupt", "unsupported", "too_large", "not_an_image", "too_slow")  # noqa: PT017
