"""The two ends of the demo: the files for training and classifying, and the text made from the answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.demo.glyphs import GLYPHS_PER_CLASS, write_training_glyphs
from orchestrator.demo.page import Page, render_page
from orchestrator.demo.text import Prediction, character_accuracy, mark_readings, side_by_side
from orchestrator.pages.alphabet import text_of
from orchestrator.pages.cut import CutPage, cut_page
from orchestrator.pages.picture import Caption, draw_page
from orchestrator.pages.text import DOUBTFUL_BELOW, disambiguate, written


@dataclass(frozen=True)
class Prepared:
    """A scanned page and the characters cut from it, on disk and in memory."""

    folder: Path
    page: Page  # its text is for scoring only
    cut: CutPage
    num_glyphs: int

    @property
    def scan(self) -> Path:
        """The page as it was scanned."""
        return self.folder / "page.png"

    @property
    def glyphs(self) -> Path:
        """A folder per class of training glyphs."""
        return self.folder / "glyphs"

    @property
    def characters(self) -> Path:
        """The folder of the page's characters; their names sort in reading order."""
        return self.folder / "characters"

    @property
    def picture(self) -> Path:
        """The picture that `conclude` draws."""
        return self.folder / "result.png"


@dataclass(frozen=True)
class Conclusion:
    """The recognised text and its accuracy."""

    recognised: str
    accuracy: float  # of the characters of the original, white space not counted
    accuracy_by_shape: float  # the same before `text` disambiguated shapes that look alike
    num_characters: int  # cut from the page
    num_doubtful: int
    side_by_side: list[str]  # original | recognised, ready to print
    picture: Path


def prepare(folder: Path, seed: int = 0, glyphs_per_class: int = GLYPHS_PER_CLASS) -> Prepared:
    """Write `page.png`, `glyphs/` to train on and `characters/` to classify into a folder."""
    page = render_page(seed)
    cut = cut_page(page.image)
    prepared = Prepared(folder, page, cut, write_training_glyphs(folder / "glyphs", seed, glyphs_per_class))
    page.image.save(prepared.scan)
    prepared.characters.mkdir(parents=True, exist_ok=True)
    for number, character in enumerate(cut.characters, start=1):
        character.frame.save(prepared.characters / f"{number:05d}.png")
    return prepared


def conclude(prepared: Prepared, predictions: Sequence[Prediction]) -> Conclusion:
    """Join the answers to text, compare it with the original and draw the picture.

    `predictions` holds the best labels and scores of each file of `characters`, in the order of their names. Raises
    ValueError if there are more or fewer predictions than characters.
    """
    characters, original = prepared.cut.characters, prepared.page.text
    if len(predictions) != len(characters):
        raise ValueError(
            f"{len(predictions)} predictions for {len(characters)} characters; every character needs its own"
        )
    letters = disambiguate(characters, [labels for labels, _ in predictions])
    readings = mark_readings(original, letters, predictions)
    recognised = written(characters, letters)
    accuracy = character_accuracy(original, recognised)
    shapes = "".join(text_of(labels[0]) for labels, _ in predictions)
    by_shape = character_accuracy(original, shapes)
    num_doubtful = sum(reading.doubtful for reading in readings)
    caption = Caption(
        "Pigeonhole reads a page",
        f"Scanned {abs(prepared.cut.skew_deg):.1f}° askew, in fonts the classifier was not trained on.",
        (
            (f"{num_doubtful}", "doubtful"),
            (f"{100 * accuracy:.1f} %", "read correctly"),
            (f"{len(readings)}", "characters"),
        ),
        f"doubtful: scored below {100 * DOUBTFUL_BELOW:.0f} %, kept for a second look",
        "wrong: the original says otherwise",
        f"{100 * by_shape:.1f} % by shape alone; neighbours settled I l 1, O 0 and S 5",
    )
    draw_page(prepared.cut, readings, caption).save(prepared.picture)
    return Conclusion(
        recognised,
        accuracy,
        by_shape,
        len(readings),
        num_doubtful,
        side_by_side(original, recognised),
        prepared.picture,
    )
