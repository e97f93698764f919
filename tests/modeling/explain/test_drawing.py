import io

import numpy as np
import pytest
from PIL import Image

from modeling.explain.drawing import (
    AROUND_ZERO,
    MARGIN,
    Scale,
    Section,
    Sheet,
    Tile,
    around_zero,
    as_colours,
    draw,
    from_zero,
    overlay,
)


def opened(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def test_above_zero_is_red_below_blue_and_zero_nearly_white():
    red, blue, white, beyond = around_zero(np.array([[1.0, -1.0, 0.0, 5.0]]), largest=1.0)[0].astype(int)

    assert red[0] > red[2] + 50
    assert blue[2] > blue[0] + 50
    assert white.min() > 240
    assert beyond.tolist() == red.tolist()


def test_all_zero_values_are_drawn_as_zero_and_not_divided_by_it():
    assert np.unique(from_zero(np.zeros((2, 2)), 0.0)).tolist() == [0, 3]
    assert around_zero(np.zeros((2, 2)), 0.0).min() > 240


def test_an_overlay_shows_heat_in_colour_and_the_rest_in_grey():
    picture = np.full((2, 2, 3), (0, 100, 200), np.uint8)

    cold, hot = overlay(picture, np.array([[0.0, 0.0], [1.0, 1.0]]))[:, 0].astype(int)

    assert cold.max() - cold.min() < 60
    assert hot.max() - hot.min() > 60
    assert hot.sum() > cold.sum()


def test_a_sheet_holds_its_tiles_as_even_blocks_and_is_the_same_every_time():
    checks = as_colours((np.indices((4, 4)).sum(axis=0) % 2 * 255).astype(np.uint8)[:, :, None])
    sheet = Sheet(
        "Title",
        [Section([Tile(checks, "one", "1 %"), Tile(checks)], 2, 160, "Heading")],
        "A note that says what is seen. " * 10,
        [Scale(AROUND_ZERO, "low", "middle", "high")],
    )

    image = opened(draw(sheet))

    assert draw(sheet) == draw(sheet)
    column = image[:, MARGIN + 20, :].astype(int).sum(axis=1)  # through the first blocks of the first tile
    blocks = np.flatnonzero(column == 0)
    assert len(blocks) >= 80
    assert image[0, 0].tolist() == image[-1, -1].tolist()  # the margin


def test_long_and_odd_words_stay_on_the_sheet():
    tile = Tile(as_colours(np.zeros((3, 9, 1), np.uint8)), "n" * 300 + "\n\x1b[31m", "日本")
    sheet = Sheet("t" * 500, [Section([tile], 1, 100)], "x" * 2000)

    image = opened(draw(sheet))

    ground = image[0, 0]
    for edge in (image[:, : MARGIN // 2], image[:, -MARGIN // 2 :], image[-MARGIN // 2 :]):
        assert (edge == ground).all()


@pytest.mark.parametrize("shape", [(1, 1), (300, 20), (20, 300)])
def test_a_picture_of_any_shape_keeps_it(shape):
    picture = as_colours(np.zeros((*shape, 1), np.uint8))

    image = opened(draw(Sheet("T", [Section([Tile(picture)], 1, 120)], "")))

    black = np.argwhere((image == 0).all(axis=2))
    height, width = (black.max(axis=0) - black.min(axis=0) + 1).tolist()
    assert (height, width) == tuple(round(side * 120 / max(shape)) for side in shape)
