"""Trainings of a second or less; what the plots of their reports show is tested in tests/modeling/report."""

import pytest
from PIL import Image

from modeling.report import write
from modeling.report.canvas import Plot
from tests.support.images import encode


@pytest.fixture(autouse=True)
def _blank_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes four times as long as a training here; models that a whole module shares have real plots."""
    blank = encode(Image.new("RGB", (8, 8)))
    monkeypatch.setattr(write, "_drawn", lambda name, draw: Plot(name, blank, blank, 8))
