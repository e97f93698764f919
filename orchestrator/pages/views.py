"""How a character is shown to a model: models of characters were trained on frames of several kinds.

The frames of `pigeonhole demo` span the line, light on black, so that size and place on the line count. Other data sets
have each character in the middle of its image, as large as it fits, and some are dark on white.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from orchestrator.pages.frame import FAINTEST_INK, FRAME_PX

_INSIDE_PX = 20  # of a character in the middle of its image, as in MNIST
_FEWEST, _NUM_TRIED = 8, 200  # characters that tell, and that are enough
_CLEARLY = 0.2  # nats, by which the answers to another view must tell more than those to the first


@dataclass(frozen=True)
class View:
    """A way to show a character, by its frame."""

    name: str
    show: Callable[[Image.Image], Image.Image]


def _filling(frame: Image.Image) -> Image.Image:
    """The character alone, in the middle of its image."""
    rows, columns = np.nonzero(np.asarray(frame) > FAINTEST_INK)
    if not len(rows):
        return frame
    found = frame.crop((int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1))
    scale = _INSIDE_PX / max(found.size)
    found = found.resize((max(round(found.width * scale), 1), max(round(found.height * scale), 1)))
    shown = Image.new("L", (FRAME_PX, FRAME_PX))
    shown.paste(found, ((FRAME_PX - found.width) // 2, (FRAME_PX - found.height) // 2))
    return shown


VIEWS = (
    View("on its line, light on dark", lambda frame: frame),
    View("on its line, dark on light", ImageOps.invert),
    View("filling its image, light on dark", _filling),
    View("filling its image, dark on light", lambda frame: ImageOps.invert(_filling(frame))),
)

Score = Callable[[Sequence[Image.Image]], NDArray[np.float64]]
"""The model's scores of all labels for each image: images x labels."""


def choose_view(frames: Sequence[Image.Image], score: Score) -> View:
    """The view to which the model's answers tell most; the first, unless another one is clearly better.

    score: is asked for some of the frames only.
    """
    tried = list(islice(frames, 0, None, max(len(frames) // _NUM_TRIED, 1)))
    if len(tried) < _FEWEST:
        return VIEWS[0]
    told = [information(score([view.show(frame) for frame in tried])) for view in VIEWS]
    best = int(np.argmax(told))
    return VIEWS[best] if told[best] > told[0] + _CLEARLY else VIEWS[0]


def information(scores: NDArray[np.float64]) -> float:
    """How much answers tell about their images, in nats: certain ones that differ tell most.

    Certainty alone does not: to images of a kind that it never saw, a network gives one answer with a high score.
    """
    return float(_entropy(scores.mean(axis=0)) - np.mean([_entropy(each) for each in scores]))


def _entropy(scores: NDArray[np.float64]) -> float:
    shares = scores[scores > 0]
    return float(-(shares * np.log(shares)).sum())
