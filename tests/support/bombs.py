"""Small files whose headers promise much work or much memory; each is made in milliseconds."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

from tests.support.images import encode

HUGE = 9_400  # px of a side: 88 megapixels, just within the limit


def progressive_jpeg(num_scans: int, side: int = HUGE) -> bytes:
    """A grey JPEG with that many refinement scans of empty blocks beyond its own."""
    data = encode(Image.new("L", (16, 16), 128), "JPEG", progressive=True)
    tables = data.rfind(b"\xff\xc4")
    last_scan = data[tables if tables > data.rfind(b"\xff\xda") - 64 else data.rfind(b"\xff\xda") : -2]
    return _with_jpeg_side(data[:-2] + last_scan * num_scans + data[-2:], side)


def empty_scans_jpeg(num_scans: int, side: int = HUGE) -> bytes:
    """A sequential JPEG in colours, with scans of one channel each that hold nothing."""
    data = encode(Image.new("RGB", (16, 16), 128), "JPEG", subsampling=0)
    scan = data.rfind(b"\xff\xda")
    empty = b"".join(
        b"\xff\xda\x00\x08\x01" + bytes([1 + place % 3]) + b"\x00\x00\x3f\x00" for place in range(num_scans)
    )
    return _with_jpeg_side(data[:scan] + empty + data[-2:], side)


def _with_jpeg_side(data: bytes, side: int) -> bytes:
    frame = next(at for marker in (b"\xff\xc0", b"\xff\xc2") if (at := data.find(marker)) >= 0)
    return data[: frame + 5] + struct.pack(">HH", side, side) + data[frame + 9 :]


def exif_segments_jpeg(num_segments: int) -> bytes:
    data = encode(Image.new("L", (16, 16)), "JPEG")
    return data[:2] + b"\xff\xe1\x00\x20Exif\0\0".ljust(34, b"\0") * num_segments + data[2:]


def jpeg2000(side: int = HUGE, **options) -> bytes:
    """A code stream of RGBA in one tile."""
    data = encode(Image.new("RGBA", (16, 16)), "JPEG2000", no_jp2=True, **options)
    sides = struct.pack(">II", side, side)
    return data[:8] + sides + data[16:24] + sides + data[32:]


def tiff_with_tile(width: int, height: int) -> bytes:
    """A TIFF of one pixel in a tile of that size."""
    entries = [
        (256, 1),
        (257, 1),
        (258, 8),
        (259, 8),
        (262, 1),
        (277, 1),
        (322, width),
        (323, height),
        (324, 8),
        (325, 8),
    ]
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + table + bytes(4)


def tiff_with_table(num_strips: int) -> bytes:
    """A TIFF with a table of strips that all lie at the same place."""
    start = 8 + 2 + 8 * 12 + 4
    entries = [(256, 4, 1, 1), (257, 4, 1, num_strips), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    entries += [(273, 4, num_strips, start), (278, 4, 1, 1), (279, 4, num_strips, start)]
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + table + bytes(4) + struct.pack("<I", 8) * num_strips


def commented_pgm(num_comments: int) -> bytes:
    return b"P2\n4 4\n255\n" + b"#\n" * num_comments + b"7 " * 16


def headed_pgm(num_bytes: int) -> bytes:
    return b"P5\n#" + b"x" * num_bytes + b"\n4 4\n255\n" + bytes(16)


def icon(side: int) -> bytes:
    """An icon that says that it is small, with a PNG of that side."""
    png = png_of(side)
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(png), 22) + png


def png_of(side: int, num_texts: int = 0) -> bytes:
    """A grey PNG whose pixels are missing."""
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    texts = _chunk(b"tEXt", b"a\0") * num_texts
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + texts
        + _chunk(b"IDAT", zlib.compress(bytes(9)))
        + _chunk(b"IEND", b"")
    )


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def commented_gif(num_blocks: int) -> bytes:
    data = encode(Image.new("L", (4, 4)), "GIF")
    frame = data.index(b",", 13)
    return data[:frame] + b"!\xfe" + b"\x01x" * num_blocks + b"\0" + data[frame:]


def run_length_bmp(width: int) -> bytes:
    """A BMP one row high, with a code that skips 255 rows: Pillow allocates them."""
    header = struct.pack("<IiiHHIIiiII", 40, width, 1, 1, 8, 1, 4, 0, 0, 2, 2)
    return struct.pack("<2sIHHI", b"BM", 66, 0, 0, 62) + header + bytes(8) + b"\x00\x02\xff\xff"


def float_tiff(side: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((side, side), np.float32)).save(buffer, "TIFF", compression="tiff_deflate")
    return buffer.getvalue()
