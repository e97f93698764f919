import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from orchestrator.demo.story import conclude, prepare
from orchestrator.drawing.style import DOUBTFUL, WRONG
from orchestrator.pages.alphabet import label_of


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("story"), seed=0, glyphs_per_class=1)


def truth(prepared):
    """The answers of a perfect classifier."""
    return [((label_of(character),), (0.99,)) for character in "".join(prepared.page.text.split())]


def test_the_characters_lie_in_reading_order(prepared):
    paths = sorted(prepared.characters.iterdir())

    assert [path.name for path in paths[:2]] == ["00001.png", "00002.png"]
    assert len(paths) == len(prepared.cut.characters)
    for path, character in zip(paths, prepared.cut.characters, strict=True):
        with Image.open(path) as image:
            assert np.array_equal(np.asarray(image), np.asarray(character.frame))


def test_flawless_answers_give_the_original_text(prepared):
    conclusion = conclude(prepared, truth(prepared))

    assert conclusion.recognised == prepared.page.text
    assert (conclusion.accuracy, conclusion.num_doubtful) == (1.0, 0)
    assert _num_pixels(conclusion.picture, WRONG) < 500  # the legend alone
    assert _num_pixels(conclusion.picture, DOUBTFUL) < 500


def test_doubtful_and_wrong_characters_are_counted_and_marked(prepared):
    predictions = truth(prepared)
    predictions[5] = (predictions[5][0], (0.3,))
    predictions[40] = (("ampersand",), (0.9,))

    conclusion = conclude(prepared, predictions)

    assert conclusion.accuracy == 1 - 1 / len(predictions)
    assert conclusion.num_doubtful == 1
    assert _num_pixels(conclusion.picture, WRONG) > 500
    assert _num_pixels(conclusion.picture, DOUBTFUL) > 500


def test_a_missing_answer_is_refused(prepared):
    with pytest.raises(ValueError, match="every character needs its own"):
        conclude(prepared, truth(prepared)[1:])


def test_the_story_loads_neither_torch_nor_celery():
    code = "import sys, orchestrator.demo.story; print({'torch', 'celery', 'click'} & set(sys.modules))"

    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert shown.stdout.strip() == "set()"


def _num_pixels(path, colour):
    with Image.open(path) as picture:
        return int((np.asarray(picture) == colour).all(axis=2).sum())
