"""The reference from encoded bytes to a network's pixels, by Pillow alone: the fast path is compared with it."""

# Shapes: H height, W width, C channels.
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from modeling.images.preprocessing import Preprocessing


def reference_decode(data: bytes, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Pixels HWC: the whole file decoded, turned upright, then torchvision's Resize and CenterCrop, by Pillow."""
    with Image.open(io.BytesIO(data)) as opened:
        image = ImageOps.exif_transpose(opened).convert(preprocessing.mode)
    size = (preprocessing.width, preprocessing.height)
    if preprocessing.resize is None:
        return np.asarray(image.resize(size, Image.Resampling.BILINEAR))
    shorter = min(image.size)
    sides = [int(preprocessing.resize * side / shorter) for side in image.size]
    image = image.resize((sides[0], sides[1]), Image.Resampling.BILINEAR)
    left, top = (round((side - wanted) / 2) for side, wanted in zip(sides, size, strict=True))
    return np.asarray(image.crop((left, top, left + size[0], top + size[1])))
