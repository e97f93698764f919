import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image

from modeling.report.canvas import LIGHT
from modeling.report.plots import best_epoch, draw_curves, has_curves, lines_of
from tests.support.report_contents import HISTORY


def has_colour(path, colour: str) -> bool:
    """Whether any pixel is nearly of that colour."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    wanted = (255 * np.array(to_rgb(colour))).round().astype(int)
    return bool((np.abs(pixels - wanted).max(axis=2) <= 6).any())


def test_curves_show_loss_and_accuracy_and_replace_those_of_the_epoch_before(tmp_path):
    path = tmp_path / "plots" / "curves.png"

    draw_curves(HISTORY[:1], path)
    first = path.read_bytes()
    draw_curves(HISTORY, path)

    assert path.read_bytes() != first
    assert [entry.name for entry in path.parent.iterdir()] == ["curves.png"]
    assert (has_colour(path, LIGHT.wrong), has_colour(path, LIGHT.right)) == (True, True)


def test_curves_without_any_validation_show_the_loss_alone(tmp_path):
    draw_curves([{"epoch": 1, "loss": 0.5, "accuracy": None}, {"epoch": 2, "loss": 0.4}], tmp_path / "curves.png")

    found = [has_colour(tmp_path / "curves.png", colour) for colour in (LIGHT.wrong, LIGHT.right)]
    assert found == [True, False]


def test_what_was_not_measured_leaves_a_gap_in_its_line_alone():
    history = [
        {"epoch": 1, "loss": 0.9, "validation_accuracy": None},
        {"epoch": 2, "loss": None, "validation_accuracy": 0.5},
    ]

    assert lines_of(history, "loss") == {"loss": ([1], [0.9])}
    assert lines_of(history, "accuracy") == {"validation_accuracy": ([2], [0.5])}
    assert (has_curves(history), has_curves([]), has_curves([{"epoch": 1}])) == (True, False, False)


def test_the_best_epoch_is_the_last_of_equals_on_validation():
    history = [
        {"epoch": number, "train_accuracy": number / 4, "validation_accuracy": accuracy}
        for number, accuracy in enumerate((0.5, 0.9, 0.9, 0.8), start=1)
    ]

    assert best_epoch(history) == (3, 0.9)
    assert best_epoch([{"epoch": 1, "loss": 0.1}]) is None
