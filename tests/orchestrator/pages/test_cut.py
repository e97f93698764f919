from itertools import groupby

import numpy as np
import pytest
from PIL import Image, ImageDraw

from orchestrator.demo.fonts import TRAINING_FACES
from orchestrator.demo.page import NOTICE, Line, render_page
from orchestrator.demo.scan import Scanner
from orchestrator.pages.cut import cut_characters, cut_page
from orchestrator.pages.frame import BASELINE_ROW, FRAME_PX, TALL_PX
from orchestrator.pages.ink import find_blobs
from orchestrator.pages.text import written


def test_a_clean_page_gives_its_characters_its_words_and_its_lines():
    page = render_page(0, scanner=Scanner())

    characters = cut_page(page.image).characters

    assert written(characters, list("".join(page.text.split()))) == page.text


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_scanned_page_gives_as_many_characters_as_were_printed(seed):
    page = render_page(seed)

    cut = cut_page(page.image)

    num_printed = len("".join(page.text.split()))
    assert abs(len(cut.characters) - num_printed) <= 0.01 * num_printed
    assert len({character.line for character in cut.characters}) == len(NOTICE)


@pytest.mark.parametrize("angle_deg", [-3.4, -0.7, 0.0, 1.3, 3.4])
def test_the_skew_is_found_to_a_tenth_of_a_degree(angle_deg):
    page = render_page(0, scanner=Scanner(angle_deg, blur_px=0.7, noise=0.03, shade=0.2, texture=0.03))

    assert cut_page(page.image).skew_deg == pytest.approx(angle_deg, abs=0.1)


def test_an_empty_sheet_has_no_characters():
    assert cut_page(Image.new("L", (300, 200), 240)).characters == ()


def test_two_letters_that_touch_are_parted():
    sheet = Image.new("L", (400, 120), 255)
    draw = ImageDraw.Draw(sheet)
    for left in (20, 60, 100, 140):
        draw.rectangle((left, 40, left + 19, 70), fill=0)
    draw.rectangle((200, 40, 229, 70), fill=0)
    draw.rectangle((230, 54, 235, 55), fill=0)
    draw.rectangle((236, 40, 265, 70), fill=0)

    _, characters = cut_characters(sheet)

    assert [character.box.left for character in characters[:5]] == [20, 60, 100, 140, 200]
    assert len(characters) == 6
    assert 229 <= characters[5].box.left <= 236


def test_a_frame_keeps_size_and_place_on_the_line():
    page = render_page(0, (Line("oO.'xHhdbo", TRAINING_FACES[0], 60, 80),), Scanner())

    characters = cut_page(page.image).characters
    small, large, stop, apostrophe = (_rows(character.frame) for character in characters[:4])

    assert all(character.frame.size == (FRAME_PX, FRAME_PX) for character in characters)
    assert small[1] == pytest.approx(BASELINE_ROW, abs=1)
    assert large[1] - large[0] == pytest.approx(TALL_PX, abs=2)
    assert small[1] - small[0] < 0.85 * (large[1] - large[0])
    assert stop[0] > BASELINE_ROW - 5
    assert apostrophe[1] < BASELINE_ROW - 5


def test_a_frame_does_not_depend_on_the_size_of_the_print():
    def frames(size_px: int) -> np.ndarray:
        page = render_page(0, (Line("Sort & see", TRAINING_FACES[0], size_px, 120),), Scanner())
        return np.array([np.asarray(character.frame) for character in cut_page(page.image).characters], float)

    assert np.abs(frames(48) - frames(96)).mean() < 8


def test_pieces_that_touch_at_a_corner_are_one():
    mask = np.zeros((6, 8), bool)
    mask[0, 0] = mask[1, 1] = mask[2, 0] = True
    mask[4:6, 4:7] = True

    blobs = find_blobs(mask)

    assert blobs.boxes.tolist() == [[0, 0, 2, 3], [4, 4, 7, 6]]
    assert blobs.areas.tolist() == [3, 6]
    assert [len(list(group)) for _, group in groupby(sorted(blobs.names[mask]))] == [3, 6]


def _rows(frame: Image.Image) -> tuple[int, int]:
    """First row with ink, and the row beyond the last."""
    rows = np.flatnonzero((np.asarray(frame) > 100).any(axis=1))
    return int(rows[0]), int(rows[-1]) + 1
