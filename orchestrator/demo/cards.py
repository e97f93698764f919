"""Postcards for the demo of a line: an address in small print, and the letter of its district as a large stamp.

The district is what a sorter must know. Some cards are smudged over the stamp, so that the classifier has a reason to
send them to review. Training and belt use different faces.
"""

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from orchestrator.demo.fonts import AILERON, BOLD, ROMAN, TRAINING_FACES
from orchestrator.demo.scan import Scanner, scan
from orchestrator.drawing.fonts import Face

DISTRICTS = {"harbour": "H", "north": "N", "east": "E", "south": "S", "west": "W"}
CARDS_PER_DISTRICT = 100
CARD_FACES = (BOLD, ROMAN, AILERON)
WIDTH_PX, HEIGHT_PX = 200, 144
SMUDGED = 0.06  # of the cards on the belt
_NUM_THREADS = 2
_STAMP_PX = 100  # an em of the stamp
_STAMP_AT = (137, 70)  # its middle
_NAMES = ("A. Fry", "R. Brown", "Dr. Hill", "Miss Ward", "J. Quince", "O. Lark", "the Postmaster", "Mrs. Vane")
_STREETS = ("Mill Lane", "Quay Street", "Hall Row", "Bridge Road", "Church Walk", "Cooper's Yard", "Long Acre")


@dataclass(frozen=True)
class Card:
    """A card on the belt; its true district is for counting only."""

    district: str
    smudged: bool
    image: bytes  # JPEG


def write_training_cards(folder: Path, seed: int, per_district: int = CARDS_PER_DISTRICT) -> int:
    """Write that many clean cards of each district as `folder/DISTRICT/NUMBER.jpg`; returns how many."""
    for district in DISTRICTS:
        (folder / district).mkdir(parents=True, exist_ok=True)

    def write(number: int) -> None:
        for place, district in enumerate(DISTRICTS):
            rng = np.random.default_rng([seed, 4, number, place])
            card = render_card(district, TRAINING_FACES, rng)
            (folder / district / f"{number:04d}.jpg").write_bytes(card)

    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        list(pool.map(write, range(per_district)))
    return per_district * len(DISTRICTS)


def belt_cards(seed: int, number: int) -> Iterator[Card]:
    """The cards of the belt, in faces that the training did not see; some are smudged."""
    districts = list(DISTRICTS)
    for place in range(number):
        rng = np.random.default_rng([seed, 5, place])
        district = districts[int(rng.integers(len(districts)))]
        smudged = bool(rng.random() < SMUDGED)
        image = render_card(district, CARD_FACES, rng, smudged=smudged)
        yield Card(district, smudged, image)


def render_card(district: str, faces: Sequence[Face], rng: np.random.Generator, *, smudged: bool = False) -> bytes:
    """One scanned card as a JPEG."""
    ink = Image.new("L", (WIDTH_PX, HEIGHT_PX), 0)
    _print_address(ImageDraw.Draw(ink), rng)
    stamp = _stamp(DISTRICTS[district], faces[int(rng.integers(len(faces)))], rng)
    if smudged:
        stamp = _smudge(stamp, rng)
    x, y = (at + int(rng.integers(-5, 6)) for at in _STAMP_AT)
    ink.paste(255, (x - stamp.width // 2, y - stamp.height // 2), stamp)
    file = io.BytesIO()
    scan(ink, _scanner(rng), rng).save(file, "JPEG", quality=85)
    return file.getvalue()


def _print_address(draw: ImageDraw.ImageDraw, rng: np.random.Generator) -> None:
    font = AILERON.at(9)
    lines = (
        _NAMES[int(rng.integers(len(_NAMES)))],
        f"{int(rng.integers(1, 90))} {_STREETS[int(rng.integers(len(_STREETS)))]}",
        f"Post town {int(rng.integers(10, 99))}",
    )
    for row, line in enumerate(lines):
        draw.text((8, 42 + 24 * row), line, fill=230, font=font, anchor="ls")
        draw.line((6, 47 + 24 * row, 70, 47 + 24 * row), fill=120)
    draw.line((74, 14, 74, HEIGHT_PX - 14), fill=150)


def _stamp(letter: str, face: Face, rng: np.random.Generator) -> Image.Image:
    """The letter in a ring, turned a little."""
    side = 118
    stamp = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(stamp)
    middle = side / 2
    draw.text((middle, middle), letter, fill=255, font=face.at(_STAMP_PX * float(rng.uniform(0.84, 1.0))), anchor="mm")
    reach = side / 2 - 3
    draw.ellipse((middle - reach, middle - reach, middle + reach, middle + reach), outline=200, width=3)
    return stamp.rotate(float(rng.uniform(-8, 8)), Image.Resampling.BILINEAR)


def _smudge(stamp: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Wiped sideways while the ink was wet."""
    length = int(rng.integers(26, 40))
    wet = np.asarray(stamp.filter(ImageFilter.GaussianBlur(5)), np.float32)
    wiped = np.mean([np.roll(wet, shift, axis=1) for shift in range(-length, length, 4)], axis=0)
    return Image.fromarray(wiped.astype(np.uint8))


def _scanner(rng: np.random.Generator) -> Scanner:
    return Scanner(
        angle_deg=float(rng.uniform(-2, 2)),
        blur_px=float(rng.uniform(0.4, 1.1)),
        spread=float(rng.uniform(0.0, 0.2)),
        density=float(rng.uniform(0.6, 0.9)),
        noise=float(rng.uniform(0.01, 0.05)),
        texture=0.03,
        shade=float(rng.uniform(0.05, 0.3)),
    )
