"""Plain PNGs have a fast way of their own, which answers as Pillow does."""

import zlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from modeling.errors import ImageError
from modeling.images import png
from modeling.images.decode import decode_image
from modeling.images.preprocessing import Preprocessing
from tests.support.images import encode, real_data

GREY, COLOUR = Preprocessing("L", 20, 30), Preprocessing("RGB", 20, 30)
PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
PICTURE = Image.fromarray(PIXELS)
PLAIN = encode(PICTURE.convert("L"))


def with_text(**texts: str) -> PngInfo:
    info = PngInfo()
    for key, text in texts.items():
        info.add_text(key.replace("_", " "), text)
    return info


def chunk(name: bytes, content: bytes, *, damaged: bool = False) -> bytes:
    checksum = zlib.crc32(name + content) ^ damaged
    return len(content).to_bytes(4, "big") + name + content + checksum.to_bytes(4, "big")


def with_chunk(name: bytes, content: bytes, *, damaged: bool = False, into: bytes = PLAIN) -> bytes:
    """The plain picture with another chunk after its header."""
    return into[:33] + chunk(name, content, damaged=damaged) + into[33:]


def with_header(
    width: int = 30, height: int = 20, rest: bytes = PLAIN[24:29], *, damaged: bool = False, length: int = 13
) -> bytes:
    """The plain picture with another header: of another length, perhaps, or with a wrong checksum.

    rest: bit depth, colour type, and the methods of compression, filtering and interlacing.
    """
    content = width.to_bytes(4, "big") + height.to_bytes(4, "big") + rest + bytes(9)
    return PLAIN[:8] + chunk(b"IHDR", content[:length], damaged=damaged) + PLAIN[33:]


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


PLAIN_ONES = {
    "grey": PLAIN,
    "colour": encode(PICTURE),
    "of a scanner": encode(PICTURE, dpi=(300, 300), pnginfo=with_text(Software="scan", Comment="exif")),
    "with a gamma": with_chunk(b"gAMA", (100_000).to_bytes(4, "big")),
    "of ImageMagick": with_chunk(b"tEXt", b"date:create\x002026-11-26", into=with_chunk(b"sRGB", b"\0")),
}
ODD_ONES = {
    "palette": encode(PICTURE.quantize(16)),
    "black and white": encode(PICTURE.convert("1")),
    "16 bits": encode(Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257)),
    "alpha": encode(PICTURE.convert("RGBA")),
    "a transparent colour": encode(PICTURE, transparency=(1, 2, 3)),
    "turned": encode(PICTURE, exif=turned()),
    "packed text": with_chunk(b"zTXt", b"a\0\0" + zlib.compress(b"b")),
    "an orientation in a text": encode(PICTURE, pnginfo=with_text(Raw_profile_type_exif="\nexif\n      4\n00000000")),
    "frames": encode(PICTURE, save_all=True, append_images=[PICTURE.convert("L").convert("RGB")]),
    "more after its end": PLAIN + b"x",
    "cut short": PLAIN[:-30],
    "cut in its end": PLAIN[:-2],
    "a header alone": PLAIN[:33],
    "a damaged chunk": with_chunk(b"tEXt", b"a\0b", damaged=True),
    "an unknown chunk": with_chunk(b"prVt", b"a"),
    "a colour profile": encode(PICTURE, icc_profile=b"a profile"),
    "a gamma that is too short": with_chunk(b"gAMA", b"\0\1"),
    "two gammas": with_chunk(b"gAMA", bytes(4), into=with_chunk(b"gAMA", bytes(4))),
    "pixels in two places": with_chunk(b"IDAT", b"", into=with_chunk(b"gAMA", bytes(4))),
    "EXIF in a text": with_chunk(b"tEXt", b"exif\0II*\0" + bytes(20)),
    "XMP in a text": with_chunk(b"tEXt", b'XML:com.adobe.xmp\0<a tiff:Orientation="3"/>'),
    "a text that Pillow takes for a fact": with_chunk(b"tEXt", b"transparency\0a"),
    "no width": with_header(0, 20),
}


def outcome(data: bytes, preprocessing: Preprocessing) -> bytes | tuple[str, str]:
    try:
        return decode_image(data, preprocessing, max_pixels=100_000).tobytes()
    except ImageError as err:
        return err.code, err.message


@pytest.fixture
def by_pillow(monkeypatch):
    """What comes of an image where there is no fast way."""

    def answer(data: bytes, preprocessing: Preprocessing) -> bytes | tuple[str, str]:
        with monkeypatch.context() as patched:
            patched.setattr("modeling.images.decode.plain_png_size", lambda data, *, grey: None)
            return outcome(data, preprocessing)

    return answer


@pytest.mark.parametrize("kind", PLAIN_ONES)
def test_plain_ones_take_the_fast_way_to_the_same_pixels(by_pillow, kind):
    data = PLAIN_ONES[kind]

    assert png.plain_png_size(data, grey=False) == (30, 20)
    assert outcome(data, COLOUR) == by_pillow(data, COLOUR)
    assert outcome(data, GREY) == by_pillow(data, GREY)


def test_colours_become_grey_by_pillows_weights():
    assert png.plain_png_size(PLAIN_ONES["colour"], grey=True) is None
    assert png.plain_png_size(PLAIN, grey=True) == (30, 20)


@pytest.mark.parametrize("kind", ODD_ONES)
def test_odd_and_broken_ones_are_left_to_pillow(kind):
    assert png.plain_png_size(ODD_ONES[kind], grey=False) is None


def test_damaged_pixels_are_named_as_pillow_names_them(by_pillow):
    place = PLAIN.index(b"IDAT") + 20
    damaged = PLAIN[:place] + bytes([PLAIN[place] ^ 1]) + PLAIN[place + 1 :]

    assert png.plain_png_size(damaged, grey=True) == (30, 20)
    assert png.decode_plain_png(damaged, grey=True) is None
    assert outcome(damaged, GREY) == by_pillow(damaged, GREY)
    assert outcome(damaged, GREY)[0] == "corrupt"


def test_a_size_beyond_the_limit_is_refused_before_anything_is_decoded(monkeypatch):
    monkeypatch.setattr("modeling.images.decode.decode_plain_png", lambda *_, **__: pytest.fail("decoded"))

    assert outcome(with_header(40_000, 40_000), GREY) == (
        "too_large",
        "40000 x 40000 pixels are more than the limit of 100000",
    )


SIZES = {
    "its own": (30, 20),
    "no width": (0, 20),
    "no height": (30, 0),
    "above the limit": (317, 316),
    "wide": (2**31 - 1, 20),
    "wide without a height": (2**31 - 1, 0),
    "above Pillow's limit": (40_000, 40_000),
    "above what a PNG may have": (2**32 - 1, 2**32 - 1),
}
HEADERS = {
    "as it is": {},
    "4 bits": {"rest": bytes((4, 0, 0, 0, 0))},
    "3 bits": {"rest": bytes((3, 0, 0, 0, 0))},
    "16 bits": {"rest": bytes((16, 0, 0, 0, 0))},
    "colours": {"rest": bytes((8, 2, 0, 0, 0))},
    "a palette": {"rest": bytes((8, 3, 0, 0, 0))},
    "an unknown colour type": {"rest": bytes((8, 1, 0, 0, 0))},
    "an unknown compression": {"rest": bytes((8, 0, 1, 0, 0))},
    "an unknown filter": {"rest": bytes((8, 0, 0, 1, 0))},
    "the filter of MNG": {"rest": bytes((8, 0, 0, 64, 0))},
    "interlaced": {"rest": bytes((8, 0, 0, 0, 1))},
    "an unknown interlacing": {"rest": bytes((8, 0, 0, 0, 2))},
    "all unknown": {"rest": bytes((255, 255, 255, 255, 255))},
    "a wrong checksum": {"damaged": True},
    "an unknown filter and a wrong checksum": {"rest": bytes((8, 0, 0, 1, 0)), "damaged": True},
    "too short": {"length": 12},
    "a size alone": {"length": 8},
    "empty": {"length": 0},
    "too long": {"length": 14},
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("header", HEADERS)
def test_a_broken_header_of_any_size_is_named_as_pillow_names_it(header, size):
    data = with_header(*SIZES[size], **HEADERS[header])

    for length in (None, 40, 33, 31, 28, 26):  # whole, and cut behind and within the header
        assert_both_ways_say_the_same(data[:length], GREY)
        assert_both_ways_say_the_same(data[:length], COLOUR)


def test_a_header_that_is_broken_and_too_large_is_broken():
    assert outcome(with_header(2**31 - 1, **HEADERS["an unknown filter"]), GREY)[0] == "corrupt"
    assert outcome(with_header(2**31 - 1, **HEADERS["a wrong checksum"]), GREY)[0] == "corrupt"
    assert outcome(with_header(2**31 - 1, **HEADERS["an unknown compression"]), GREY)[0] == "too_large"


NAMES = [b"tEXt", b"gAMA", b"cHRM", b"pHYs", b"sRGB", b"iCCP", b"IDAT", b"IEND", b"tRNS", b"eXIf", b"bKGD", b"zzZz"]
TEXTS = [b"", b"Software\0", b"exif\0", b"Raw profile type exif\0", b"date:create\0", b"transparency\0", b"\0\0\0\1"]
SIDES = st.sampled_from([0, 1, 20, 30, 316, 317, 40_000, 2**31 - 1, 2**31, 2**32 - 1]) | st.integers(0, 2**32 - 1)


@settings(max_examples=3 * settings.default.max_examples)
@given(
    kind=st.sampled_from(sorted(PLAIN_ONES)),
    more=st.lists(
        st.tuples(st.sampled_from(NAMES), st.sampled_from(TEXTS), st.binary(max_size=33), st.integers(0, 9)),
        max_size=3,
    ),
    flips=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 10_000), st.integers(0, 7)), max_size=2),
    length=st.one_of(st.none(), st.integers(0, 10_000)),
    preprocessing=st.sampled_from([GREY, COLOUR]),
)
@example(kind="grey", more=[], flips=[(0, 0, 0), (0, 11, 0)], length=None, preprocessing=GREY)  # huge, and no filter
def test_whatever_the_chunks_are_both_ways_say_the_same(kind, more, flips, length, preprocessing):
    """Chunks added, bits flipped in their content, with checksums that are right; and the file cut."""
    chunks = chunks_of(PLAIN_ONES[kind])
    for name, start, content, place in more:
        chunks.insert(1 + place % len(chunks), (name, start + content))
    for number, place, bit in flips:
        name, content = chunks[number % len(chunks)]
        if content:
            changed = bytearray(content)
            changed[place % len(changed)] ^= 1 << bit
            chunks[number % len(chunks)] = (name, bytes(changed))

    data = (PLAIN[:8] + b"".join(chunk(*each) for each in chunks))[:length]

    assert_both_ways_say_the_same(data, preprocessing)


@settings(max_examples=3 * settings.default.max_examples)
@given(
    width=st.just(30) | SIDES,
    height=st.just(20) | SIDES,
    rest=st.tuples(
        st.sampled_from([8, 8, 0, 1, 2, 4, 16, 255]), st.integers(0, 7), *[st.sampled_from([0, 0, 1, 2, 64, 255])] * 3
    ).map(bytes),
    damaged=st.booleans(),
    length=st.sampled_from([13, 13, 13, 0, 4, 12, 14]),
    preprocessing=st.sampled_from([GREY, COLOUR]),
)
@example(width=2**24 + 30, height=20, rest=bytes((8, 0, 0, 1, 0)), damaged=False, length=13, preprocessing=GREY)
def test_whatever_the_header_says_both_ways_say_the_same(width, height, rest, damaged, length, preprocessing):
    assert_both_ways_say_the_same(with_header(width, height, rest, damaged=damaged, length=length), preprocessing)


def assert_both_ways_say_the_same(data: bytes, preprocessing: Preprocessing) -> None:
    """But for the words of too large a size: where it is above Pillow's own limit, Pillow does not name the sides."""
    fast = outcome(data, preprocessing)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("modeling.images.decode.plain_png_size", lambda data, *, grey: None)
        slow = outcome(data, preprocessing)
    assert fast == slow or fast[0] == slow[0] == "too_large"


def chunks_of(data: bytes) -> list[tuple[bytes, bytes]]:
    """Name and content of each chunk."""
    found, at = [], 8
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def test_the_real_odd_pngs_are_judged_as_pillow_judges_them(by_pillow):
    files = [path for path in sorted(real_data("pathological").rglob("*")) if path.is_file()]
    pngs = [data for path in files if (data := path.read_bytes()).startswith(b"\x89PNG")]

    plain = [data for data in pngs if png.plain_png_size(data, grey=False)]

    assert len(plain) > 100
    for data in plain:
        assert outcome(data, COLOUR) == by_pillow(data, COLOUR)
