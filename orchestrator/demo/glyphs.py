"""Training glyphs: specimen sheets in the training faces, scanned with many faults and cut like any page.

The sheets go through the same scanner and cutter as the page, so the classifier has seen their effect on shapes.
Only the faces differ. The text of a specimen line is known; a line in which the cutter does not find that number of
characters is left out.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from orchestrator.demo.fonts import TRAINING_FACES
from orchestrator.demo.scan import Grey, Scanner, scan
from orchestrator.drawing.fonts import Face
from orchestrator.pages.alphabet import ALPHABET, CHARACTER_OF, label_of
from orchestrator.pages.cut import cut_characters

GLYPHS_PER_CLASS = 70  # ten lines of each face
LINES_A_SHEET = 5
NUM_THREADS = 2  # Pillow and the file system work in parallel; each sheet has its own seed
BEND_EM = 0.06
SPECIMEN_GAP_EM = 0.25  # wide, so that no specimen touches its neighbour


def write_training_glyphs(
    folder: Path, seed: int, glyphs_per_class: int = GLYPHS_PER_CLASS, faces: Sequence[Face] = TRAINING_FACES
) -> int:
    """Write about that many glyphs of each class, cycling through the faces, as `folder/LABEL/FACE-SHEET-LINE.png`.

    Returns how many were written: a little fewer where specimen lines were left out.
    """
    for label in CHARACTER_OF:
        (folder / label).mkdir(parents=True, exist_ok=True)

    def write_sheet(sheet: int) -> int:
        face = faces[sheet % len(faces)]
        num_lines = min(LINES_A_SHEET, glyphs_per_class - sheet * LINES_A_SHEET)
        lines = cut_specimens(face, num_lines, np.random.default_rng([seed, 3, sheet]))
        prefix = f"{face.name.lower().replace(' ', '-')}-{sheet:03d}"
        for i, line in enumerate(lines):
            for character, frame in line:
                frame.save(folder / label_of(character) / f"{prefix}-{i}.png", compress_level=1)
        return sum(map(len, lines))

    with ThreadPoolExecutor(NUM_THREADS) as pool:
        return sum(pool.map(write_sheet, range(-(-glyphs_per_class // LINES_A_SHEET))))


def cut_specimens(face: Face, num_lines: int, rng: np.random.Generator) -> list[list[tuple[str, Image.Image]]]:
    """One sheet's glyphs and what they are, line by line; each line holds the whole alphabet in its own order."""
    texts = ["".join(rng.permutation(list(ALPHABET))) for _ in range(num_lines)]
    sheet = scan(_print_specimens(face, texts, rng), specimen_scanner(rng), rng)
    lines = [list(line) for _, line in groupby(cut_characters(sheet)[1], key=lambda character: character.line)]
    if len(lines) != len(texts):
        return []
    return [
        [(character, cut.frame) for character, cut in zip(text, line, strict=True)]
        for text, line in zip(texts, lines, strict=True)
        if len(line) == len(text)
    ]


def specimen_scanner(rng: np.random.Generator) -> Scanner:
    """A scanner with faults somewhat wider than a page's: thick and thin ink, sharp and dull optics."""
    return Scanner(
        angle_deg=float(rng.uniform(-1.5, 1.5)),
        blur_px=float(rng.uniform(0.4, 1.2)),
        spread=float(rng.uniform(0.0, 0.3)),
        density=float(rng.uniform(0.6, 0.95)),
        noise=float(rng.uniform(0.0, 0.05)),
        texture=0.03,
        shade=float(rng.uniform(0.0, 0.3)),
    )


def _print_specimens(face: Face, texts: Sequence[str], rng: np.random.Generator) -> Image.Image:
    """The specimen lines in ink, upright, set narrower or wider and bent: one face represents similar faces."""
    size_px = int(rng.integers(34, 52))
    font, gap, leading = face.at(size_px), SPECIMEN_GAP_EM * size_px, round(1.7 * size_px)
    width = max(sum(font.getlength(character) + gap for character in text) for text in texts)
    ink = Image.new("L", (round(width) + 2 * size_px, leading * len(texts) + 2 * size_px), 0)
    draw = ImageDraw.Draw(ink)
    for i, text in enumerate(texts):
        x = float(size_px)
        for character in text:
            draw.text((x, 2 * size_px + i * leading), character, fill=255, font=font, anchor="ls")
            x += font.getlength(character) + gap
    stretch = rng.uniform(0.8, 1.1)
    narrowed = ink.resize((round(ink.width * stretch), ink.height), Image.Resampling.BILINEAR)
    rows = _bent(np.asarray(narrowed, np.float32), size_px, rng)
    return Image.fromarray(_bent(rows.T, size_px, rng).T.astype(np.uint8))


def _bent(ink: Grey, size_px: int, rng: np.random.Generator) -> Grey:
    """Rows shifted up and down in a slow wave, because faces differ in the height of bars and bows (e, P)."""
    height = len(ink)
    wave = 2 * np.pi * np.arange(height) / (rng.uniform(0.6, 0.9) * size_px) + rng.uniform(0, 2 * np.pi)
    source = np.clip(np.arange(height) + rng.uniform(0, BEND_EM) * size_px * np.sin(wave), 0, height - 1.001)
    above = source.astype(np.int64)
    share = (source - above).astype(np.float32)[:, None]
    bent: Grey = ink[above] * (1 - share) + ink[above + 1] * share
    return bent
