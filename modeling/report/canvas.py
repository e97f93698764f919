"""What every plot shares: two themes, plain axes, and bytes that depend on the drawing alone.

Figures are matplotlib's objects without pyplot, styled one by one: no global state, so any thread may draw.
"""

# Shapes: H height, W width, 4 for RGBA.
import io
import unicodedata
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 200  # twice what a page shows, for dense screens and print
_COLOURS = 128  # of a PNG: a plot has few, and its file a third of the size
_MISSING = "\u25a1"  # a box, for what the font cannot show


@dataclass(frozen=True, slots=True)
class Theme:
    """Colours of one scheme. Blue and orange can be told apart with every common kind of colour blindness.

    sheet: the background, the same as the page's card. right: right answers, and the model's own line; pale: the
    same for few images. wrong: mistakes. chosen: the operating point.
    """

    name: str
    sheet: str
    ink: str
    faint: str
    grid: str
    right: str
    pale: str
    wrong: str
    chosen: str


@dataclass(frozen=True, slots=True)
class Plot:
    """One plot as PNG bytes, for a light and for a dark page. `width` is its natural one on a page, in CSS pixels."""

    name: str
    light: bytes
    dark: bytes
    width: int


LIGHT = Theme("light", "#fffefa", "#262a30", "#62666b", "#e6e0d3", "#1d5fa6", "#b9cee4", "#c2500c", "#1f3349")
DARK = Theme("dark", "#1c232d", "#e8e6e0", "#a3a9b2", "#343d4a", "#6fb1f2", "#3b5876", "#ff9a5c", "#f0d9a0")
THEMES = (LIGHT, DARK)


def new_figure(width: float, height: float, theme: Theme) -> "Figure":
    """An empty figure of that size in inches, which lays itself out."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=_DPI, facecolor=theme.sheet, layout="constrained")


def style_axes(axes: "Axes", theme: Theme, *, grid: str | None = "y") -> None:
    """Axes with a faint grid behind, and no line but the lower axis."""
    axes.set_facecolor(theme.sheet)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(theme.faint)
    axes.tick_params(colors=theme.faint, labelsize=9, length=0, pad=5)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(theme.faint)
        label.set_fontsize(9.5)
    axes.title.set_color(theme.ink)
    axes.title.set_fontsize(10.5)
    axes.set_axisbelow(True)
    if grid == "y":
        axes.grid(axis="y", color=theme.grid, linewidth=0.8)
    elif grid == "both":
        axes.grid(color=theme.grid, linewidth=0.8)


def lay_out_like(figure: "Figure", drawn: "Figure") -> None:
    """Copy the axes' places from a figure that was drawn: layout costs as much as drawing.

    Only for figures that differ in their theme alone.
    """
    figure.set_layout_engine("none")
    for axes, laid_out in zip(figure.axes, drawn.axes, strict=True):
        axes.set_position(laid_out.get_position(original=True), which="original")


def percent_axis(axis: str, axes: "Axes") -> None:
    """Show shares on an axis as per cent, with as many digits as its range needs."""
    from matplotlib.ticker import FuncFormatter

    low, high = sorted(axes.get_xlim() if axis == "x" else axes.get_ylim())
    digits = 0 if high - low > 0.05 else 1 if high - low > 0.005 else 2
    chosen = axes.xaxis if axis == "x" else axes.yaxis
    chosen.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.{digits}f} %"))


def drawable(text: str) -> str:
    """A label as the plots' font can show it, on one line."""
    return "".join(_shown(char) for char in text)


def png_of(figure: "Figure") -> bytes:
    """The figure as a PNG of few colours; the same figure gives the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels_HW4 = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    return encode_png(Image.fromarray(pixels_HW4).convert("RGB"))


def encode_png(image: Image.Image) -> bytes:
    """An image as a PNG of at most 128 colours; its background (the colour of its corner) stays exact."""
    buffer = io.BytesIO()
    few = image.quantize(_COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    _keep_ground(few, image)
    few.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _keep_ground(few: Image.Image, image: Image.Image) -> None:
    """Restore the corner's exact colour: the background of a plot must match the page."""
    palette, place = few.getpalette() or [], int(np.asarray(few)[0, 0])
    palette[3 * place : 3 * place + 3] = np.asarray(image)[0, 0].tolist()
    few.putpalette(palette)


def font_file() -> Path:
    """The font of the plots, which comes with matplotlib."""
    from matplotlib import get_data_path

    return Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


def _shown(char: str) -> str:
    if unicodedata.category(char).startswith("C"):
        return _MISSING
    return char if ord(char) in _characters() else _MISSING


@cache
def _characters() -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(str(font_file())).get_charmap())
