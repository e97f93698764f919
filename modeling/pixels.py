"""From an opened Pillow image of any mode to the pixels that a model takes."""

# Shapes: H height, W width, C channels (1 or 3).
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from modeling.preprocessing import Preprocessing

Pixels = NDArray[np.uint8]

_REDUCING_GAP = 4.0  # box-reduce to 4x first: Pillow finds no difference from 3 up, and it bounds the filter's memory
_FULL_SCALES = (1.0, 255.0, 65535.0)

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


def upright(image: Image.Image) -> Image.Image:
    """The loaded image turned as its EXIF orientation says; as it is where the EXIF data are broken."""
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # broken metadata raise anything, and the pixels are fine all the same
        return image
    method = _TRANSPOSE.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


def to_mode(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """The image as L or RGB with 8 bits a channel: nothing clipped, transparency over the background."""
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_to_8_bit(np.asarray(image))).convert(preprocessing.mode)
    if image.has_transparency_data:
        straight = image.convert({"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode))
        rgba = straight.convert("RGBA")
        opaque = Image.new("RGB", image.size, preprocessing.background)
        opaque.paste(rgba, mask=rgba.getchannel("A"))
        return opaque.convert(preprocessing.mode)
    if image.mode not in ("L", "1", "RGB") and preprocessing.mode == "L":
        image = image.convert("RGB")  # not every mode has a direct way to L
    return image.convert(preprocessing.mode)


def _to_8_bit(values_HW: NDArray[Any]) -> Pixels:
    """Grey values of 16 bits, 32 bits or float, scaled to 0..255.

    16-bit values span 0..65535. Wider ones do not say what white is: floats within 0..1 or 0..255 and
    anything within 0..65535 are taken to span that, others their own minimum to maximum.
    """
    if values_HW.dtype.kind == "u" and values_HW.dtype.itemsize == 2:
        return ((values_HW.astype(np.uint32) + 128) // 257).astype(np.uint8)
    finite = np.nan_to_num(values_HW.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(finite.min()), float(finite.max())
    scales = _FULL_SCALES if values_HW.dtype.kind == "f" else _FULL_SCALES[2:]
    if low >= 0 and high <= scales[-1]:
        low, high = 0.0, next(scale for scale in scales if high <= scale)
    scaled = (finite - low) * (255.0 / (high - low) if high > low else 0.0)
    return np.rint(scaled).clip(0, 255).astype(np.uint8)


def fit(image: Image.Image, preprocessing: Preprocessing) -> Pixels:
    """An L or RGB image resized (and cropped) by the preprocessing's rule: uint8 HWC, C-contiguous."""
    size = (preprocessing.width, preprocessing.height)
    if image.size != size or preprocessing.resize is not None:
        # Cut and scale in one step: a strip of 1 x 60000 px never becomes an image of 64 x 3,840,000.
        box = _crop_box(image.size, preprocessing)
        image = image.resize(size, Image.Resampling.BILINEAR, box=box, reducing_gap=_REDUCING_GAP)
    return np.array(image, dtype=np.uint8, order="C").reshape(preprocessing.shape)


def _crop_box(size: tuple[int, int], preprocessing: Preprocessing) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of the source pixels that the model sees."""
    width, height = size
    if preprocessing.resize is None:
        return (0, 0, width, height)
    scale = min(width, height) / preprocessing.resize
    left = max(0.0, (width - preprocessing.width * scale) / 2)
    top = max(0.0, (height - preprocessing.height * scale) / 2)
    return (left, top, width - left, height - top)
