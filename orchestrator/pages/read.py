"""Reads the characters of a page with a model, and joins them to words, lines and text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from modeling.images.pixels import pixels_of, scale_to
from modeling.inference.bisection import BisectingPredictor, Predictor
from modeling.inference.prediction import Prediction
from modeling.metrics.decisions import Decision
from orchestrator.contract.errors import PigeonholeError
from orchestrator.contract.jobs.rows import SCORE_DIGITS
from orchestrator.pages.cut import Character, CutPage
from orchestrator.pages.frame import Box
from orchestrator.pages.scanned import ScannedPage
from orchestrator.pages.text import DOUBTFUL_BELOW, disambiguate, lines_of, words_of, written
from orchestrator.pages.views import View, choose_view

_TOP_K = 5  # labels among which look-alikes are settled
_ALL = 1 << 20


@dataclass(frozen=True, slots=True)
class Letter:
    """What was read at one place of the page. score: of the model's best label, which `text` mostly stands for."""

    text: str
    label: str
    score: float
    decision: Decision | None
    character: Character

    @property
    def doubtful(self) -> bool:
        """Whether a person should look: the model does not accept its answer."""
        return self.score < DOUBTFUL_BELOW if self.decision is None else self.decision != "accept"


@dataclass(frozen=True, slots=True)
class ReadPage:
    """A page and its letters, in reading order. view: how the characters were shown to the model."""

    page: ScannedPage
    cut: CutPage
    letters: tuple[Letter, ...]
    view: View

    @property
    def text(self) -> str:
        return written(self.cut.characters, [letter.text for letter in self.letters])

    @property
    def num_doubtful(self) -> int:
        return sum(letter.doubtful for letter in self.letters)

    def to_json(self) -> dict[str, Any]:
        """Text, lines, words and characters; boxes are pixels of the upright image, straightened by `skew_deg`."""
        width, height = self.page.size
        return {
            "size": {"width": width, "height": height},
            "skew_deg": round(self.cut.skew_deg, 2),
            "inverted": self.page.inverted,
            "view": self.view.name,
            "num_characters": len(self.letters),
            "num_doubtful": self.num_doubtful,
            "text": self.text,
            "lines": [self._line(line) for line in lines_of(self.cut.characters)],
        }

    def _line(self, line: Sequence[int]) -> dict[str, Any]:
        characters = [self.cut.characters[i] for i in line]
        words = [[line[i] for i in word] for word in words_of(characters)]
        return {**self._part(line), "words": [self._word(word) for word in words]}

    def _word(self, word: Sequence[int]) -> dict[str, Any]:
        return {**self._part(word), "characters": [self._character(self.letters[i]) for i in word]}

    def _part(self, places: Sequence[int]) -> dict[str, Any]:
        characters = [self.cut.characters[i] for i in places]
        text = written(characters, [self.letters[i].text for i in places])
        return {"text": text, "box": self._box([character.box for character in characters])}

    def _character(self, letter: Letter) -> dict[str, Any]:
        return {
            "text": letter.text,
            "label": letter.label,
            "score": round(letter.score, SCORE_DIGITS),
            "decision": letter.decision,
            "doubtful": letter.doubtful,
            "box": self._box([letter.character.box]),
        }

    def _box(self, boxes: Sequence[Box]) -> list[int]:
        """Left, top, right and bottom of the boxes together; right and bottom are exclusive."""
        around = Box(
            min(box.left for box in boxes),
            min(box.top for box in boxes),
            max(box.right for box in boxes),
            max(box.bottom for box in boxes),
        ).scaled(1 / self.page.scale)
        return [around.left, around.top, around.right, around.bottom]


def read_page(page: ScannedPage, predictor: Predictor) -> ReadPage:
    """Cut the page and read its characters.

    Raises:
        PigeonholeError: a character cannot be predicted, or there is far more ink than print has.
    """
    cut = page.cut()
    frames = [character.frame for character in cut.characters]

    def score(images: Sequence[Image.Image]) -> NDArray[np.float64]:
        return _score_table(_predicted(images, predictor, top_k=_ALL))

    view = choose_view(frames, score)
    predictions = _predicted([view.show(frame) for frame in frames], predictor, top_k=_TOP_K)
    texts = disambiguate(cut.characters, [prediction.labels for prediction in predictions])
    letters = tuple(
        Letter(text, prediction.labels[0], prediction.scores[0], prediction.decision, character)
        for text, prediction, character in zip(texts, predictions, cut.characters, strict=True)
    )
    return ReadPage(page, cut, letters, view)


def _score_table(predictions: Sequence[Prediction]) -> NDArray[np.float64]:
    """The scores of all labels, a row a prediction."""
    place = {label: number for number, label in enumerate(sorted(predictions[0].labels))}
    table = np.zeros((len(predictions), len(place)))
    for row, prediction in zip(table, predictions, strict=True):
        row[[place[label] for label in prediction.labels]] = prediction.scores
    return table


def _predicted(images: Sequence[Image.Image], predictor: Predictor, *, top_k: int) -> list[Prediction]:
    """The predictions of images that are decoded already, in batches as a job has them."""
    preprocessing = predictor.preprocessing
    pixels = [scale_to(pixels_of(image, preprocessing), preprocessing) for image in images]
    bisecting = BisectingPredictor(predictor, top_k)
    size = predictor.batch_size
    found = [each for start in range(0, len(pixels), size) for each in bisecting.predict(pixels[start : start + size])]
    for prediction in found:
        if not prediction.ok:
            raise PigeonholeError(f"the model fails on a character: {prediction.error}")
    return found
