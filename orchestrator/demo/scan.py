"""Simulates a scanner: ink spreads, the sheet is askew, the light is uneven, the sensor is noisy.

Own code, not augraphy: the demo's scans must repeat to the bit from a seed.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Grey = NDArray[np.float32]  # height x width, 0 is black or no ink, 1 is white or full ink: the name says which


@dataclass(frozen=True)
class Scanner:
    """The strength of each fault; by default it has none."""

    angle_deg: float = 0.0  # of the sheet, counter-clockwise
    blur_px: float = 0.0  # radius of the optics' blur
    spread: float = 0.0  # of the ink: above 0 strokes thicken, below they thin
    density: float = 1.0  # of the ink: 1 is black
    noise: float = 0.0  # standard deviation of the sensor's noise
    texture: float = 0.0  # depth of the paper's grain
    shade: float = 0.0  # how much darker the darkest corner is


def scan(ink: Image.Image, scanner: Scanner, rng: np.random.Generator) -> Image.Image:
    """A sheet as the scanner sees it: dark ink on light paper, grey, of the same size.

    `ink` is a grey picture of the print alone: 255 where there is ink, 0 where there is none.
    """
    turned = ink.rotate(scanner.angle_deg, Image.Resampling.BICUBIC)
    if scanner.blur_px > 0:
        turned = turned.filter(ImageFilter.GaussianBlur(scanner.blur_px))
    coverage = np.asarray(turned, np.float32) / 255
    if scanner.spread != 0:
        coverage = np.clip((coverage - 0.5) * 1.6 + 0.5 + scanner.spread * (coverage > 0.02), 0, 1)
    seen = _paper(coverage.shape, scanner, rng) * (1 - np.float32(scanner.density) * coverage)
    if scanner.noise > 0:
        seen += np.float32(scanner.noise) * rng.standard_normal(seen.shape, np.float32)
    return Image.fromarray((np.clip(seen, 0, 1) * 255).astype(np.uint8))


def _paper(shape: tuple[int, ...], scanner: Scanner, rng: np.random.Generator) -> Grey:
    """The empty sheet under the lamp: 1 is white."""
    height, width = shape
    paper = np.full((height, width), 0.96 if scanner.shade or scanner.texture else 1.0, np.float32)
    if scanner.shade > 0:
        paper *= 1 - np.float32(scanner.shade) * _smooth_noise(height, width, (3, 3), rng)
    if scanner.texture > 0:
        for cells_px in (40, 5):  # clouds in the pulp, and its fibres
            grid = (max(height // cells_px, 2), max(width // cells_px, 2))
            paper *= 1 - np.float32(scanner.texture) * (_smooth_noise(height, width, grid, rng) - 0.5)
    return paper


def _smooth_noise(height: int, width: int, grid: tuple[int, int], rng: np.random.Generator) -> Grey:
    """Random values on a coarse grid, interpolated smoothly; 0 to 1."""
    coarse = rng.random(grid, np.float32)
    coarse = (coarse - coarse.min()) / max(float(np.ptp(coarse)), 1e-6)
    surface = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(surface, np.float32)
