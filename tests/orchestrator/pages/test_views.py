import numpy as np
import pytest
from PIL import Image, ImageOps

from orchestrator.pages.views import VIEWS, choose_view

ON_LINE = Image.new("L", (28, 28))
ON_LINE.paste(255, (12, 10, 16, 21))


@pytest.mark.parametrize("liked", VIEWS, ids=[view.name for view in VIEWS])
def test_the_view_of_which_the_model_is_most_certain_is_chosen(liked):
    wanted = np.asarray(liked.show(ON_LINE))

    chosen = choose_view([ON_LINE] * 20, lambda images: [float(np.array_equal(image, wanted)) for image in images])

    assert chosen is liked


def test_the_frames_as_they_are_stay_where_no_view_is_clearly_better_or_characters_are_few():
    def score(images):
        return [0.9 + 0.04 * (np.asarray(image).mean() > 128) for image in images]

    assert choose_view([ON_LINE] * 20, score) is VIEWS[0]
    assert choose_view([ON_LINE] * 3, lambda images: [float(images[0] != ON_LINE)] * len(images)) is VIEWS[0]
    assert choose_view([], score) is VIEWS[0]


def test_a_character_that_fills_its_image_is_in_its_middle():
    shown = np.asarray(VIEWS[2].show(ON_LINE)) > 100
    rows, columns = np.nonzero(shown)

    assert (rows.max() - rows.min() + 1, rows.min()) == (20, 4)
    assert abs((columns.min() + columns.max()) / 2 - 13.5) <= 1
    assert np.array_equal(np.asarray(VIEWS[3].show(ON_LINE)), np.asarray(ImageOps.invert(VIEWS[2].show(ON_LINE))))
    assert not np.asarray(VIEWS[2].show(Image.new("L", (28, 28)))).any()
