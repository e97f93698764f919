"""Converts Pillow images of 8 bits a channel to the model's channels, and scales pixels to the model's size."""

# Shapes: H height, W width, C channels (1 or 3).
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from modeling.images.preprocessing import Preprocessing

if TYPE_CHECKING:
    from torch import Tensor

Pixels = NDArray[np.uint8]
Size = tuple[int, int]
"""Width and height in px."""

_ROUND_UP = 1 + 1e-9  # torch rounds down the size that it computes from scale factors
_MAX_ASPECT_RATIO = 16  # pixels beyond it lie outside of every crop that a preprocessing can define
_MOST_STRETCHED = 1 << 26  # pixels of a wider image in between
_ALL = slice(None)
_BAND_PIXELS = 1 << 21  # converted at a time

_ORIENTATION = 0x0112  # the EXIF tag
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation of an opened image, 1 to 8; 1 (upright) if it has none or its metadata is broken."""
    try:
        value = image.getexif().get(_ORIENTATION)
    except Exception:  # broken metadata can raise anything; the pixels are still usable
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def turned(image: Image.Image, orientation: int) -> Image.Image:
    """The loaded image with an EXIF orientation applied."""
    method = _TRANSPOSE.get(orientation)
    return image if method is None else image.transpose(method)


def to_mode(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """The image as L or RGB; transparent pixels show the background."""
    if image.mode == preprocessing.mode and "transparency" not in image.info:
        return image
    if image.has_transparency_data:
        straight = image.convert({"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode))
        rgba = straight.convert("RGBA")
        opaque = Image.new("RGB", image.size, preprocessing.background)
        opaque.paste(rgba, mask=rgba.getchannel("A"))
        return opaque.convert(preprocessing.mode)
    if image.mode not in ("L", "1", "RGB") and preprocessing.mode == "L":
        image = image.convert("RGB")  # Pillow cannot convert every mode to L directly
    return image.convert(preprocessing.mode)


def pixels_of(image: Image.Image, preprocessing: Preprocessing) -> Pixels:
    """An upright image of 8 bits a channel as pixels of the model's channels: uint8 HWC."""
    shape = (image.height, image.width, preprocessing.channels)
    if image.width * image.height <= _BAND_PIXELS:
        return np.frombuffer(to_mode(image, preprocessing).tobytes(), np.uint8).reshape(shape)
    pixels_HWC = np.empty(shape, np.uint8)
    for top, band in bands_of(image):
        pixels_HWC[top : top + band.height] = np.asarray(to_mode(band, preprocessing)).reshape(-1, *shape[1:])
    return pixels_HWC


def bands_of(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Bands of rows and where they begin: converting a large image as a whole takes many times its memory."""
    num_rows = max(1, _BAND_PIXELS // image.width)
    if num_rows >= image.height:
        yield 0, image
        return
    for top in range(0, image.height, num_rows):
        yield top, image.crop((0, top, image.width, min(top + num_rows, image.height)))


def scale_to(pixels_HWC: Pixels, preprocessing: Preprocessing, full_size: Size | None = None) -> Pixels:
    """Upright pixels of the model's channels, resized (and cropped) as the preprocessing defines: C-contiguous.

    Bilinear with antialiasing, by torch, whose uint8 kernel is 2.5 times as fast as Pillow's and differs from it only
    by rounding. With `resize`, sizes and crop are rounded as torchvision's Resize and CenterCrop do.

    full_size: the image's full size if the pixels were decoded at reduced size; the last one may extend beyond it.
    """
    if pixels_HWC.shape == preprocessing.shape and preprocessing.resize is None:
        return np.ascontiguousarray(pixels_HWC)
    height, width = pixels_HWC.shape[:2]
    if full_size is None or max(full_size) > _MAX_ASPECT_RATIO * min(full_size):
        full_size = (width, height)
    factor = round(max(full_size) / max(height, width))
    scaling = scaling_of(full_size[1], full_size[0], preprocessing)
    if factor == 1:
        pixels_HWC = pixels_HWC[scaling.rows, scaling.columns]
        height, width = pixels_HWC.shape[:2]
        sides = float(height), float(width)
    else:
        sides = full_size[1] / factor, full_size[0] / factor
    scaled_HWC = _scaled(pixels_HWC, sides, scaling.height, scaling.width)
    return np.ascontiguousarray(scaled_HWC[scaling.crop_rows, scaling.crop_columns])


@dataclass(frozen=True, slots=True)
class Scaling:
    """How an upright image is scaled to a model's size: the pixels used, the size they get, and the crop of that."""

    rows: slice
    columns: slice
    height: int
    width: int
    crop_rows: slice
    crop_columns: slice


def scaling_of(height: int, width: int, preprocessing: Preprocessing) -> Scaling:
    """How an image of this size is scaled to the preprocessing's size."""
    if preprocessing.resize is None:
        return Scaling(_ALL, _ALL, preprocessing.height, preprocessing.width, _ALL, _ALL)
    rows, columns = (_central_part(side, min(height, width)) for side in (height, width))
    sides = rows.stop - rows.start, columns.stop - columns.start
    scaled_height, scaled_width = (int(preprocessing.resize * side / min(sides)) for side in sides)
    top = round((scaled_height - preprocessing.height) / 2)
    left = round((scaled_width - preprocessing.width) / 2)
    crop = slice(top, top + preprocessing.height), slice(left, left + preprocessing.width)
    return Scaling(rows, columns, scaled_height, scaled_width, *crop)


def _central_part(side: int, shorter: int) -> slice:
    """The middle of a long strip, so that an image of 1 x 60000 px is never scaled to 64 x 3,840,000 px."""
    margin = max(0, side - _MAX_ASPECT_RATIO * shorter) // 2
    return slice(margin, side - margin)


def _scaled(pixels_HWC: Pixels, sides: tuple[float, float], height: int, width: int) -> Pixels:
    """Scaled to height x width. sides: the part of the pixels' height and width that belongs to the image."""
    if pixels_HWC.shape[:2] == (height, width):
        return pixels_HWC
    if pixels_HWC.shape[1] < width and pixels_HWC.shape[0] * width > _MOST_STRETCHED:
        # torch scales the width first: a column of a million pixels would take hundreds of times its memory and time
        shrunk_HWC = _scaled(pixels_HWC, (sides[0], pixels_HWC.shape[1]), height, pixels_HWC.shape[1])
        return _scaled(shrunk_HWC, (height, sides[1]), height, width)
    from torch import from_numpy  # slow to import, and needed only for images that must be scaled

    # reshape, not [None]: torch recognises (and keeps) the channels-last layout by the strides of all dimensions.
    # NumPy transposes: every call of torch releases the GIL and then waits for it among many threads.
    image_1HWC = np.require(pixels_HWC, requirements=["C", "W"]).reshape(1, *pixels_HWC.shape)
    image_1CHW = from_numpy(image_1HWC.transpose(0, 3, 1, 2))
    scaled_HWC: Pixels = interpolated(image_1CHW, height, width, sides).numpy()[0].transpose(1, 2, 0)
    assert scaled_HWC.shape[:2] == (height, width), "a reduced image has at least twice the pixels that are needed"
    return scaled_HWC


def interpolated(images_NCHW: "Tensor", height: int, width: int, sides: tuple[float, float] | None = None) -> "Tensor":
    """Images of floats or bytes scaled to height x width: bilinear with antialiasing, on their device.

    A result 1 px wide is computed lying down: for it, torch's kernels for floats, and for bytes on a processor without
    AVX2, read one pixel of every column. The lying images are copied: those with AVX2 misread unusual strides.

    sides: the part of the images' height and width that belongs to them; None: all.
    """
    from torch import channels_last
    from torch.nn.functional import interpolate

    if width == 1 < height:
        lying_NCWH = images_NCHW.transpose(2, 3).clone(memory_format=channels_last)
        return interpolated(lying_NCWH, width, height, sides and (sides[1], sides[0])).transpose(2, 3)
    if sides is None or sides == images_NCHW.shape[2:]:
        return interpolate(images_NCHW, size=(height, width), mode="bilinear", antialias=True)
    factors = (_ROUND_UP * height / sides[0], _ROUND_UP * width / sides[1])
    return interpolate(images_NCHW, scale_factor=factors, mode="bilinear", antialias=True)
