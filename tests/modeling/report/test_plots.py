from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from modeling.metrics.evaluation import CoveragePoint
from modeling.report.canvas import DARK, LIGHT, drawable, lay_out_like, png_of
from modeling.report.classes import ConfusedPair, confused_pairs
from modeling.report.plots import confusion, coverage, reliability, thinned
from tests.support.report_contents import EVIL, evaluation


def cells(counts, labels, theme=LIGHT) -> np.ndarray:
    """The colours of a confusion plot's cells."""
    axes = confusion(evaluation(counts, labels), theme).axes[0]
    return np.asarray(axes.images[0].get_array())


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)
def test_all_right_is_blue_and_all_wrong_is_orange(theme):
    colours = cells(((5, 0), (5, 0)), ("cat", "dog"), theme)

    assert np.allclose(colours[0, 0], to_rgb(theme.right))
    assert np.allclose(colours[1, 0], to_rgb(theme.wrong))
    assert np.allclose(colours[0, 1], colours[1, 1])  # nothing there


def test_one_mistake_among_many_classes_is_still_seen():
    counts = np.eye(999, dtype=int) * 4
    counts[10, 800] = 1

    colours = cells(counts, [f"class {i}" for i in range(999)])

    odd = np.argwhere(np.abs(colours - colours[0, -1]).max(axis=2) > 0.05)
    off_diagonal = odd[odd[:, 0] != odd[:, 1]].tolist()
    assert (len(colours), off_diagonal) == (240, [[2, 192]])


def test_labels_are_drawn_as_they_are_and_never_as_formulas():
    png_of(confusion(evaluation(labels=(EVIL, "$x^2$")), LIGHT))

    assert drawable("caf\u00e9 \u65e5\udcff\n") == "caf\u00e9 \u25a1\u25a1\u25a1"


def test_the_budget_and_the_choice_are_named_in_the_coverage_plot():
    shown = evaluation()

    legend = coverage(shown, LIGHT).axes[0].get_legend()

    texts = [text.get_text().replace("\u202f", " ") for text in legend.get_texts()]
    assert texts == ["chosen: 70.0 % accepted, 0 % of them wrong", "error budget 1.0 %"]


def test_a_curve_without_mistakes_lies_above_the_lower_edge_of_its_plot():
    flawless = replace(evaluation(), coverage=(CoveragePoint(0.9, 0.5, 0.0), CoveragePoint(0.5, 1.0, 0.0)))

    axes = coverage(flawless, LIGHT).axes[0]

    low, high = axes.get_ylim()
    assert set(axes.lines[0].get_ydata()) == {0.0}
    assert 0.02 < -low / (high - low) < 0.05


def test_a_curve_of_few_images_says_of_how_many():
    labels = [
        coverage(evaluation(((count, 0), (0, 99))), LIGHT).axes[0].get_xlabel().replace("\xa0", " ")
        for count in (100, 101)
    ]

    assert labels == ["accepted without a person\n(from 199 images only)", "accepted without a person"]


def test_a_long_curve_is_thinned_between_its_ends():
    points = [CoveragePoint(1 - i / 9999, i / 9999, 0.0) for i in range(10000)]

    kept = thinned(points)

    assert (len(kept), kept[0], kept[-1]) == (600, points[0], points[-1])
    assert thinned(points[:5]) == points[:5]


def test_confused_pairs_are_the_most_frequent_first_each_in_its_direction():
    found = confused_pairs(evaluation(((6, 3, 1), (3, 2, 0), (0, 0, 9)), ("a", "b", "c")), most=2)

    assert found == [ConfusedPair("b", "a", 3, 0.6), ConfusedPair("a", "b", 3, 0.3)]


@pytest.mark.parametrize(
    "draw",
    [
        lambda theme: confusion(evaluation(), theme),
        lambda theme: reliability(evaluation().reliability, theme),
        lambda theme: coverage(evaluation(), theme),
    ],
)
def test_a_plot_laid_out_like_its_light_one_is_the_plot_that_lays_itself_out(draw):
    light, dark = draw(LIGHT), draw(DARK)
    png_of(light)

    lay_out_like(dark, light)

    assert png_of(dark) == png_of(draw(DARK))
