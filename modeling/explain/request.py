"""Which panels to draw of a model, and the images for them. Needs no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from modeling.errors import ImageError, ModelingError
from modeling.explain.kinds import Kind
from modeling.images.decode import decode_image
from modeling.images.pixels import Pixels
from modeling.images.preprocessing import Preprocessing


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """An image file after the model's preprocessing (without normalisation)."""

    path: Path
    pixels_HWC: Pixels


@dataclass(frozen=True, slots=True)
class ExplainRequest:
    """Which panels to draw.

    show: which kinds; empty: those by default that suit the model and the images.
    labels: for Grad-CAM and ideal images; empty: the predicted ones, and for ideal images all if they are few.
    layer: dotted name, for feature maps and Grad-CAM; None: the first convolution and the architecture's own.
    seed: of ideal images and of the noise.
    """

    pictures: tuple[Picture, ...] = ()
    show: tuple[Kind, ...] = ()
    labels: tuple[str, ...] = ()
    layer: str | None = None
    seed: int = 0


def read_pictures(paths: Sequence[Path], preprocessing: Preprocessing) -> tuple[Picture, ...]:
    """The images at these paths, decoded with the model's preprocessing.

    Raises:
        ModelingError: one cannot be read; names it and says why.
    """
    return tuple(Picture(path, _read(path, preprocessing)) for path in paths)


def _read(path: Path, preprocessing: Preprocessing) -> Pixels:
    try:
        return decode_image(path.read_bytes(), preprocessing)
    except IsADirectoryError as err:
        raise ModelingError(f"{path} is a folder; name the image files in it") from err
    except OSError as err:
        raise ModelingError(f"{path} cannot be read ({err.strerror}); name an image file") from err
    except ImageError as err:
        raise ModelingError(f"{path} cannot be read as an image ({err}); leave it out or repair it") from err
