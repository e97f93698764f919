import numpy as np
import pytest
from PIL import Image, ImageOps

from orchestrator.pages.views import VIEWS, choose_view, information

ON_LINE = Image.new("L", (28, 28))
ON_LINE.paste(255, (12, 10, 16, 21))


CERTAIN_BUT_THE_SAME = np.tile([0.98, 0.01, 0.01], (20, 1))
CERTAIN = np.resize(np.eye(3) * 0.97 + 0.01, (20, 3))
UNCERTAIN = np.full((20, 3), 1 / 3)


def test_certain_answers_that_differ_tell_most():
    assert information(CERTAIN) > 0.9
    assert information(CERTAIN_BUT_THE_SAME) == pytest.approx(0)
    assert information(UNCERTAIN) == pytest.approx(0)


@pytest.mark.parametrize("liked", VIEWS, ids=[view.name for view in VIEWS])
def test_the_view_to_which_the_answers_tell_most_is_chosen(liked):
    wanted = np.asarray(liked.show(ON_LINE))

    def score(images):
        return CERTAIN if np.array_equal(images[0], wanted) else CERTAIN_BUT_THE_SAME

    assert choose_view([ON_LINE] * 20, score) is liked


def test_the_frames_as_they_are_stay_where_no_view_is_clearly_better_or_characters_are_few():
    assert choose_view([ON_LINE] * 20, lambda images: UNCERTAIN) is VIEWS[0]
    assert choose_view([ON_LINE] * 3, lambda images: UNCERTAIN if images[0] is ON_LINE else CERTAIN) is VIEWS[0]
    assert choose_view([], lambda images: UNCERTAIN) is VIEWS[0]


def test_a_character_that_fills_its_image_is_in_its_middle():
    shown = np.asarray(VIEWS[2].show(ON_LINE)) > 100
    rows, columns = np.nonzero(shown)

    assert (rows.max() - rows.min() + 1, rows.min()) == (20, 4)
    assert abs((columns.min() + columns.max()) / 2 - 13.5) <= 1
    assert np.array_equal(np.asarray(VIEWS[3].show(ON_LINE)), np.asarray(ImageOps.invert(VIEWS[2].show(ON_LINE))))
    assert not np.asarray(VIEWS[2].show(Image.new("L", (28, 28)))).any()
