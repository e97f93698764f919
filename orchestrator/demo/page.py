"""The demo's page: a notice of a sorting office, in fonts that the classifier was not trained on, and scanned."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from orchestrator.demo.fonts import AILERON, BOLD, ROMAN
from orchestrator.demo.scan import Scanner, scan
from orchestrator.drawing.fonts import Face

MARGIN_PX = 90
TRACKING_EM = 0.06  # slightly open, as notices are; letters that touch cannot be cut apart without reading


@dataclass(frozen=True)
class Line:
    """One printed line: its text, face, size, and distance from the line above."""

    text: str
    face: Face
    size_px: int  # an em; 38 is 11 point at 250 dpi
    above_px: int  # from the baseline above to this one


@dataclass(frozen=True)
class Page:
    """A scanned page and its true text, which is for scoring only."""

    image: Image.Image
    lines: tuple[Line, ...]
    scanner: Scanner

    @property
    def text(self) -> str:
        return "\n".join(line.text for line in self.lines)


def _paragraph(face: Face, size_px: int, *texts: str) -> tuple[Line, ...]:
    return tuple(Line(text, face, size_px, 84 if i == 0 else 58) for i, text in enumerate(texts))


NOTICE = (
    Line("THE NIGHT SORTING OFFICE", AILERON, 60, 70),
    Line("Notice No. 47 to all clerks, 16 October 1928", ROMAN, 40, 66),
    *_paragraph(
        ROMAN,
        44,
        "Every letter that comes in goes out exactly once,",
        "with an answer or a reason. Quick hands are good;",
        "a just eye is better. Why guess? An address which",
        "cannot be read keeps its place in the queue, and",
        "is marked for a second look (see box 305, Hall J).",
    ),
    *_paragraph(
        AILERON,
        38,
        "Parcels above 25 kg go to Zone X; cards wait at",
        "Gate V until 6:40. One torn label costs its bag-",
        "mates nothing: lay it aside, don't stop the line.",
    ),
    *_paragraph(BOLD, 40, "Brown & Fry, Postmasters. Keep calm, sort well!"),
)


def page_scanner(seed: int) -> Scanner:
    """The scanner for a seed: the page is 1.5 to 3.5 degrees askew, in either direction."""
    rng = np.random.default_rng([seed, 1])
    angle_deg = float(rng.choice([-1, 1]) * rng.uniform(1.5, 3.5))
    return Scanner(
        angle_deg,
        blur_px=float(rng.uniform(0.6, 0.9)),
        spread=float(rng.uniform(0.1, 0.2)),
        density=float(rng.uniform(0.74, 0.84)),
        noise=float(rng.uniform(0.025, 0.045)),
        texture=0.03,
        shade=float(rng.uniform(0.14, 0.26)),
    )


def render_page(seed: int, lines: tuple[Line, ...] = NOTICE, scanner: Scanner | None = None) -> Page:
    """The page as a grey scan at about 250 dpi; the seed determines the sheet and the scanner, not the text."""
    scanner = scanner or page_scanner(seed)
    return Page(scan(print_lines(lines), scanner, np.random.default_rng([seed, 2])), lines, scanner)


def print_lines(lines: tuple[Line, ...]) -> Image.Image:
    """The print alone, upright: 255 where there is ink."""
    widths = [sum(_advances(line)) for line in lines]
    height = sum(line.above_px for line in lines) + 2 * MARGIN_PX
    ink = Image.new("L", (round(max(widths)) + 2 * MARGIN_PX, height), 0)
    draw = ImageDraw.Draw(ink)
    baseline = MARGIN_PX
    for line in lines:
        baseline += line.above_px
        font, x = line.face.at(line.size_px), float(MARGIN_PX)
        for character, advance in zip(line.text, _advances(line), strict=True):
            draw.text((x, baseline), character, fill=255, font=font, anchor="ls")
            x += advance
    return ink


def _advances(line: Line) -> list[float]:
    """How far each character moves the pen, in pixels."""
    font = line.face.at(line.size_px)
    return [font.getlength(character) + TRACKING_EM * line.size_px for character in line.text]
