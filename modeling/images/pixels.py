"""From an opened Pillow image of any mode to the pixels that a model takes."""

# Shapes: H height, W width, C channels (1 or 3).
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from modeling.images.preprocessing import Preprocessing

Pixels = NDArray[np.uint8]
Size = tuple[int, int]
"""Width and height in px."""

_NOT_LESS = 1 + 1e-9  # torch rounds the size that factors make down
_LONGEST = 16  # shorter sides; no crop that a preprocessing may ask for reaches further
_ALL = slice(None)
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


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation of an opened image, 1 to 8; 1, upright, where it has none or its metadata are broken."""
    try:
        value = image.getexif().get(_ORIENTATION)
    except Exception:  # broken metadata raise anything, and the pixels are fine all the same
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def upright(image: Image.Image) -> Image.Image:
    """The loaded image turned as its EXIF orientation says; as it is where the EXIF data are broken."""
    method = _TRANSPOSE.get(orientation_of(image))
    return image if method is None else image.transpose(method)


def to_mode(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """The image as L or RGB with 8 bits a channel: nothing clipped, transparency over the background."""
    if image.mode == preprocessing.mode and "transparency" not in image.info:
        return image
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


def pixels_of(image: Image.Image, preprocessing: Preprocessing) -> Pixels:
    """An upright image of any mode as pixels of the model's channels: uint8 HWC, not to be written to."""
    image = to_mode(image, preprocessing)
    return np.frombuffer(image.tobytes(), np.uint8).reshape(image.height, image.width, preprocessing.channels)


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


def scale_to(pixels_HWC: Pixels, preprocessing: Preprocessing, whole: Size | None = None) -> Pixels:
    """Upright pixels of the model's channels, resized (and cropped) by the preprocessing's rule: C-contiguous.

    Bilinear with antialiasing, by torch, whose kernel for bytes is 2.5 times as fast as Pillow's and differs from it
    by rounding alone. With `resize`, sizes and crop are rounded as torchvision's Resize and CenterCrop do.

    whole: the image's own size, where its pixels are those of a fraction, the last of which may reach beyond it.
    """
    if pixels_HWC.shape == preprocessing.shape and preprocessing.resize is None:
        return np.ascontiguousarray(pixels_HWC)
    height, width = pixels_HWC.shape[:2]
    if whole is None or max(whole) > _LONGEST * min(whole):
        whole = (width, height)
    factor = round(max(whole) / max(height, width))
    scaling = scaling_of(whole[1], whole[0], preprocessing)
    if factor == 1:
        pixels_HWC = pixels_HWC[scaling.rows, scaling.columns]
        height, width = pixels_HWC.shape[:2]
        sides = float(height), float(width)
    else:
        sides = whole[1] / factor, whole[0] / factor
    scaled_HWC = _scaled(pixels_HWC, sides, scaling.height, scaling.width)
    return np.ascontiguousarray(scaled_HWC[scaling.crop_rows, scaling.crop_columns])


@dataclass(frozen=True, slots=True)
class Scaling:
    """How an upright image becomes one of a model's size: what is taken of it, scaled to what, and what of that."""

    rows: slice
    columns: slice
    height: int
    width: int
    crop_rows: slice
    crop_columns: slice


def scaling_of(height: int, width: int, preprocessing: Preprocessing) -> Scaling:
    """How an image of this size is scaled to the preprocessing's."""
    if preprocessing.resize is None:
        return Scaling(_ALL, _ALL, preprocessing.height, preprocessing.width, _ALL, _ALL)
    rows, columns = (_not_too_long(side, min(height, width)) for side in (height, width))
    sides = rows.stop - rows.start, columns.stop - columns.start
    scaled_height, scaled_width = (int(preprocessing.resize * side / min(sides)) for side in sides)
    top = round((scaled_height - preprocessing.height) / 2)
    left = round((scaled_width - preprocessing.width) / 2)
    crop = slice(top, top + preprocessing.height), slice(left, left + preprocessing.width)
    return Scaling(rows, columns, scaled_height, scaled_width, *crop)


def _not_too_long(side: int, shorter: int) -> slice:
    """The middle of a strip, so that one of 1 x 60000 px never becomes an image of 64 x 3,840,000."""
    margin = max(0, side - _LONGEST * shorter) // 2
    return slice(margin, side - margin)


def _scaled(pixels_HWC: Pixels, sides: tuple[float, float], height: int, width: int) -> Pixels:
    """Scaled to height x width. sides: how much of the pixels' height and width is the image's."""
    if pixels_HWC.shape[:2] == (height, width):
        return pixels_HWC
    from torch import from_numpy  # slow to import, and wanted only where there are images to scale
    from torch.nn.functional import interpolate

    # Reshaped, not [None]: torch takes pixels for channels last, and leaves them so, by the strides of all dimensions.
    # Turned by NumPy: each call of torch lets go of the interpreter's lock, and waits for it among many threads.
    image_1HWC = np.require(pixels_HWC, requirements=["C", "W"]).reshape(1, *pixels_HWC.shape)
    image_1CHW = from_numpy(image_1HWC.transpose(0, 3, 1, 2))
    if sides == pixels_HWC.shape[:2]:
        scaled_1CHW = interpolate(image_1CHW, size=(height, width), mode="bilinear", antialias=True)
    else:
        factors = (_NOT_LESS * height / sides[0], _NOT_LESS * width / sides[1])
        scaled_1CHW = interpolate(image_1CHW, scale_factor=factors, mode="bilinear", antialias=True)
    scaled_HWC: Pixels = scaled_1CHW.numpy()[0].transpose(1, 2, 0)
    assert scaled_HWC.shape[:2] == (height, width), "a fraction has twice the pixels that are wanted, and more"
    return scaled_HWC
