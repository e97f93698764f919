"""Small pictures of a manifest's images: read below its root, decoded within the limits of jobs, encoded anew.

Encoding anew leaves behind what a file says beside its pixels, such as where a photograph was taken.
"""

import base64
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from PIL import Image

from modeling.errors import ImageError
from modeling.images.decode import loaded_image
from modeling.images.loader import load_ahead, read_image_file
from modeling.images.pixels import to_mode
from modeling.images.preprocessing import Preprocessing
from orchestrator.contract.jobs.rows import Row
from orchestrator.jobs.row_images import image_file

_RGB = Preprocessing("RGB", 1, 1)
_TINY_PX = 64  # up to here pixels are kept as they are, without loss
_JPEG_QUALITY = 80
_NUM_AHEAD = 16  # pictures that are made before they are wanted


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """An encoded picture. kind: `jpeg` or `png`. Tiny ones have the image's own pixels."""

    data: bytes
    kind: str
    width: int
    height: int

    @property
    def is_tiny(self) -> bool:
        return self.kind == "png"

    @property
    def uri(self) -> str:
        """An address that holds the picture."""
        return f"data:image/{self.kind};base64,{base64.b64encode(self.data).decode()}"


@dataclass(frozen=True, slots=True)
class Shown:
    """A row's picture, or why there is none: an error code and its message."""

    thumbnail: Thumbnail | None = None
    code: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class ImageSource:
    """Where a manifest's images lie, and how large one may be, as for jobs."""

    root: str
    max_file_bytes: int
    max_pixels: int

    def show(self, row: Row, side: int) -> Shown:
        """The row's picture of at most `side` pixels a side; an image that the job could not use is not opened."""
        if not row.prediction.ok:
            return Shown(code=row.prediction.error_code or "", message=row.prediction.error or "")
        try:
            return Shown(_encoded(self._loaded(row.path, side), side))
        except ImageError as err:
            return Shown(code=err.code, message=err.message)
        except OSError as err:  # the storage is away
            return Shown(code="unreadable", message=err.strerror or str(err))
        except MemoryError:
            return Shown(code="too_large", message="there is too little memory now")

    def _loaded(self, path: str, side: int) -> Image.Image:
        data = read_image_file(image_file(self.root, path), max_bytes=self.max_file_bytes)
        with loaded_image(data, min_side=side, max_pixels=self.max_pixels) as loaded:
            picture = to_mode(loaded.picture, _RGB)
            picture.thumbnail((side, side), Image.Resampling.LANCZOS)
            return picture


def show_rows(source: ImageSource, rows: Iterable[Row], side: int) -> Iterator[Shown]:
    """The pictures of rows, in order, made by threads some rows ahead."""
    return load_ahead(rows, partial(source.show, side=side), num_ahead=_NUM_AHEAD)


def _encoded(picture: Image.Image, side: int) -> Thumbnail:
    buffer = io.BytesIO()
    if max(picture.size) <= min(_TINY_PX, side):
        picture.save(buffer, "PNG", optimize=True)
        return Thumbnail(buffer.getvalue(), "png", *picture.size)
    picture.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return Thumbnail(buffer.getvalue(), "jpeg", *picture.size)
