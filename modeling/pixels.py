"""From an opened Pillow image of any mode to the pixels that a model takes."""

# Shapes: H height, W width, C channels (1 or 3).
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from modeling.preprocessing import Preprocessing

Pixels = NDArray[np.uint8]

_LONGEST = 16  # shorter sides; no crop that a preprocessing may ask for reaches further
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


def fit(pixels_HWC: Pixels, preprocessing: Preprocessing) -> Pixels:
    """Upright pixels of the model's channels, resized (and cropped) by the preprocessing's rule: C-contiguous.

    Bilinear with antialiasing, by torch, whose kernel for bytes is 2.5 times as fast as Pillow's and differs from it
    by rounding alone. With `resize`, sizes and crop are rounded as torchvision's Resize and CenterCrop do.
    """
    height, width = preprocessing.height, preprocessing.width
    if preprocessing.resize is None:
        return np.ascontiguousarray(_scaled(pixels_HWC, height, width))
    pixels_HWC = _not_too_long(pixels_HWC)
    shorter = min(pixels_HWC.shape[:2])
    sides = [int(preprocessing.resize * side / shorter) for side in pixels_HWC.shape[:2]]
    scaled_HWC = _scaled(pixels_HWC, *sides)
    top, left = round((sides[0] - height) / 2), round((sides[1] - width) / 2)
    return np.ascontiguousarray(scaled_HWC[top : top + height, left : left + width])


def _not_too_long(pixels_HWC: Pixels) -> Pixels:
    """The middle of a strip, so that one of 1 x 60000 px never becomes an image of 64 x 3,840,000."""
    sides = pixels_HWC.shape[:2]
    top, left = (max(0, side - _LONGEST * min(sides)) // 2 for side in sides)
    return pixels_HWC[top : sides[0] - top, left : sides[1] - left]


def _scaled(pixels_HWC: Pixels, height: int, width: int) -> Pixels:
    if pixels_HWC.shape[:2] == (height, width):
        return pixels_HWC
    from torch import from_numpy  # slow to import, and wanted only where there are images to scale
    from torch.nn.functional import interpolate

    images_1CHW = from_numpy(np.require(pixels_HWC, requirements=["C", "W"])).permute(2, 0, 1)[None]
    scaled_1CHW = interpolate(images_1CHW, size=(height, width), mode="bilinear", antialias=True)
    scaled_HWC: Pixels = scaled_1CHW[0].permute(1, 2, 0).numpy()
    return scaled_HWC
