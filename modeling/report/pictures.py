"""Small pictures: thumbnails for the page, and a sheet of many with captions as one PNG."""

# Shapes: H height, W width, C channels (1 or 3).
import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from modeling.report.canvas import LIGHT, font_file
from modeling.report.content import Picture
from modeling.report.html import Html, element, shortened

THUMBNAIL_PX = 128
_TINY_PX = 64  # up to here pixels are shown as they are, hard-edged and without loss
_CELL_PX = 160
_CAPTION_PX = 46
_GAP_PX = 16
_COLUMNS = 6
_SHEET_COMPRESSION = 4  # of zlib's 1 to 9

Captioned = tuple[Picture | None, str, str]  # picture, then a line each in ink and in orange


def image_of(picture: Picture) -> Image.Image:
    """Pixels as an image, grey or colour."""
    pixels_HWC = np.ascontiguousarray(picture)
    return Image.fromarray(pixels_HWC[:, :, 0] if pixels_HWC.ndim == 3 and pixels_HWC.shape[2] == 1 else pixels_HWC)


def thumbnail(picture: Picture | None, alt: str) -> Html:
    """The picture as an `img` of at most 128 pixels a side that carries its own bytes; a blank where there is none."""
    if picture is None or not picture.size:
        return element("span", "no picture", class_="thumb blank")
    image = image_of(picture)
    tiny = max(image.size) <= _TINY_PX
    image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if tiny:
        image.save(buffer, "PNG", optimize=True)
    else:
        image.save(buffer, "JPEG", quality=82)
    source = data_uri(buffer.getvalue(), "png" if tiny else "jpeg")
    return element(
        "img", src=source, alt=alt, class_="thumb tiny" if tiny else "thumb", width=image.width, height=image.height
    )


def data_uri(content: bytes, kind: str) -> Html:
    """Bytes of an image as an address that holds them."""
    return Html(f"data:image/{kind};base64,{base64.b64encode(content).decode()}")


def montage(cells: Sequence[Captioned]) -> bytes:
    """Pictures beside each other, six in a row, each with two lines below it, as a PNG."""
    columns = min(len(cells), _COLUMNS)
    rows = -(-len(cells) // _COLUMNS)
    step = (_CELL_PX + _GAP_PX, _CELL_PX + _CAPTION_PX + _GAP_PX)
    sheet = Image.new("RGB", (columns * step[0] + _GAP_PX, rows * step[1] + _GAP_PX), LIGHT.sheet)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.truetype(str(font_file()), 13, layout_engine=ImageFont.Layout.BASIC)
    for place, (picture, first, second) in enumerate(cells):
        left, top = _GAP_PX + place % columns * step[0], _GAP_PX + place // columns * step[1]
        draw.rectangle((left, top, left + _CELL_PX - 1, top + _CELL_PX - 1), fill=LIGHT.grid)
        if picture is not None and picture.size:
            image = _filled(image_of(picture))
            sheet.paste(image, (left + (_CELL_PX - image.width) // 2, top + (_CELL_PX - image.height) // 2))
        for line, (caption, colour) in enumerate(((first, LIGHT.ink), (second, LIGHT.wrong))):
            at = (left, top + _CELL_PX + 6 + 18 * line)
            draw.text(at, _fitting(caption, font), fill=colour, font=font)
    buffer = io.BytesIO()
    # In full colour: photographs suffer from less. The strongest compression takes three times as long for 3 % of it.
    sheet.save(buffer, "PNG", compress_level=_SHEET_COMPRESSION)
    return buffer.getvalue()


def _filled(image: Image.Image) -> Image.Image:
    """The image as large as its cell allows."""
    scale = _CELL_PX / max(image.size)
    size = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
    tiny = max(image.size) <= _TINY_PX
    return image.convert("RGB").resize(size, Image.Resampling.NEAREST if tiny else Image.Resampling.LANCZOS)


def _fitting(caption: str, font: ImageFont.FreeTypeFont) -> str:
    """The caption on one line, short enough for its cell."""
    line = " ".join(caption.split()).encode("utf-8", "replace").decode()
    longest = len(line)
    while longest > 1 and font.getlength(shortened(line, longest)) > _CELL_PX:
        longest -= 1
    return shortened(line, longest)
