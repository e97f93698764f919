"""Fonts to draw with: they come with packages that Pigeonhole needs anyway, so nothing is downloaded."""

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Face:
    """One cut of a font family; `file` is in matplotlib's font folder, None is the face inside Pillow."""

    family: str
    style: str
    file: str | None

    @property
    def name(self) -> str:
        return f"{self.family} {self.style}"

    def at(self, size_px: float) -> Font:
        """The face at a size in pixels an em, without ligatures: one character is one shape."""
        if self.file is None:
            return ImageFont.load_default(size_px)
        path = _font_folder() / self.file
        return ImageFont.truetype(str(path), size_px, layout_engine=ImageFont.Layout.BASIC)


@cache
def _font_folder() -> Path:
    """Found without importing matplotlib, which would write files to the user's home folder."""
    found = find_spec("matplotlib")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "mpl-data" / "fonts" / "ttf"


SANS = Face("DejaVu", "Sans", "DejaVuSans.ttf")
SANS_BOLD = Face("DejaVu", "Sans Bold", "DejaVuSans-Bold.ttf")
MONO = Face("DejaVu", "Sans Mono", "DejaVuSansMono.ttf")
