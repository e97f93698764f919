"""What one image is: whether its file decodes, its size, mode and orientation, and a thumbnail to compare it by."""

# Shapes: N images, H height, W width, C channels (of thumbnails 3: YCbCr), S side of a thumbnail.
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from modeling.images.decode import loaded_image
from modeling.images.formats import MAX_PIXELS
from modeling.images.pixels import Pixels, orientation_of, to_mode, upright
from modeling.images.preprocessing import Preprocessing

GREY_SIDE, COLOUR_SIDE = 32, 8  # px of a thumbnail's luma, and of its two chromas
THUMBNAIL_BYTES = GREY_SIDE**2 + 2 * COLOUR_SIDE**2
_NO_COLOUR = bytes([128]) * (2 * COLOUR_SIDE**2)
_NEEDED = 4 * GREY_SIDE  # px a side from which a thumbnail is made
_GREY_TOLERANCE = 2  # of 255: what JPEG makes of a grey image's chroma
_FIRST_SIDEWAYS = 5  # orientations from here on swap width and height
_RGB = Preprocessing("RGB", GREY_SIDE, GREY_SIDE)
_YCBCR = np.array(  # of RGB, as JFIF has it (ITU-T T.871)
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], dtype=np.float32
)
_CHUNK_PIXELS = 1 << 19  # turned to floats at a time


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What a decoded image is.

    size: width and height in px, as a viewer shows it.
    mode: Pillow's, such as RGB, L, CMYK or P. format: Pillow's, such as JPEG.
    orientation: of EXIF, 1 to 8; 1 where there is none. frames: 1 but for animations and pages.
    grey: whether it shows no colour.
    thumbnail: 32 x 32 of luma, then 8 x 8 of each chroma (YCbCr), stretched over the whole upright image.
    """

    size: tuple[int, int]
    mode: str
    format: str
    orientation: int
    frames: int
    grey: bool
    thumbnail: bytes


def check_image(data: bytes, max_pixels: int = MAX_PIXELS) -> ImageFacts:
    """Decode one encoded image to its end and say what it is.

    Raises:
        ImageError: as `decode_image` does.
    """
    with loaded_image(data, needed=_NEEDED, max_pixels=max_pixels) as (image, (width, height)):
        orientation = orientation_of(image)
        thumbnail, grey = _thumbnail(upright(image))
        return ImageFacts(
            size=(height, width) if orientation >= _FIRST_SIDEWAYS else (width, height),
            mode=image.mode,
            format=image.format or "?",
            orientation=orientation,
            frames=_num_frames(image),
            grey=grey,
            thumbnail=thumbnail,
        )


def _thumbnail(image: Image.Image) -> tuple[bytes, bool]:
    """The thumbnail of an upright image, and whether the image is grey."""
    small = to_mode(image, _RGB).resize((GREY_SIDE, GREY_SIDE), Image.Resampling.BOX)
    luma, *chromas = small.convert("YCbCr").split()
    side = (COLOUR_SIDE, COLOUR_SIDE)
    colours = [np.asarray(chroma.resize(side, Image.Resampling.BOX)) for chroma in chromas]
    return luma.tobytes() + b"".join(colour.tobytes() for colour in colours), _is_grey(small)


def _is_grey(small: Image.Image) -> bool:
    """Whether the channels of an RGB image are all the same, but for what JPEG makes of them."""
    pixels_HWC = np.asarray(small, dtype=np.int16)
    return int(np.ptp(pixels_HWC, axis=2).max()) <= _GREY_TOLERANCE


def _num_frames(image: Image.Image) -> int:
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # later frames may be broken; only the first is read
        return 1


def check_pixels(pixels_NHWC: Pixels) -> Iterator[ImageFacts]:
    """What images held as pixels are; all of them are readable, and none is turned."""
    height, width, channels = pixels_NHWC.shape[1:]
    mode = "L" if channels == 1 else "RGB"
    step = max(1, _CHUNK_PIXELS // (height * width))
    for start in range(0, len(pixels_NHWC), step):
        chunk_NHWC = pixels_NHWC[start : start + step]
        planes_CNHW = np.ascontiguousarray(np.moveaxis(chunk_NHWC, 3, 0))
        grey_N = np.ptp(planes_CNHW, axis=0).max(axis=(1, 2)) <= _GREY_TOLERANCE
        for grey, thumbnail in zip(grey_N.tolist(), _pixel_thumbnails(planes_CNHW), strict=True):
            yield ImageFacts((width, height), mode, "pixels", 1, 1, grey=grey, thumbnail=thumbnail)


def _pixel_thumbnails(planes_CNHW: Pixels) -> Iterator[bytes]:
    """The thumbnail of each image; by exact areas, which Pillow's box filter only nears."""
    ycbcr_CNHW = planes_CNHW.astype(np.float32)
    if len(planes_CNHW) == 3:
        ycbcr_CNHW = np.tensordot(_YCBCR, ycbcr_CNHW, axes=1)
        ycbcr_CNHW[1:] += 128
    luma_NSS = _areas(ycbcr_CNHW[0], GREY_SIDE)
    if len(planes_CNHW) == 1:
        yield from (luma_SS.tobytes() + _NO_COLOUR for luma_SS in luma_NSS)
        return
    chromas_CNSS = _areas(ycbcr_CNHW[1:], COLOUR_SIDE)
    for number, luma_SS in enumerate(luma_NSS):
        yield luma_SS.tobytes() + chromas_CNSS[:, number].tobytes()


def _areas(planes: NDArray[np.float32], side: int) -> NDArray[np.uint8]:
    """Planes (..., H, W) averaged to (..., side, side), or stretched."""
    rows_SH, columns_SW = (_area_weights(size, side) for size in planes.shape[-2:])
    return np.rint(rows_SH @ planes @ columns_SW.T).clip(0, 255).astype(np.uint8)


def _area_weights(size: int, side: int) -> NDArray[np.float32]:
    """How much each of `size` px counts in each of `side`: by what the one covers of the other."""
    edges, at = np.linspace(0, size, side + 1), np.arange(size)
    covered = np.minimum(edges[1:, None], at + 1) - np.maximum(edges[:-1, None], at)
    weights: NDArray[np.float32] = (covered.clip(0) * side / size).astype(np.float32)
    return weights
