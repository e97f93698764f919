"""From a content to a folder: `report.html`, whole in itself, and the same plots as files in `plots/`."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from modeling.durable import replace_durably
from modeling.metrics.evaluation import Evaluation
from modeling.registry.card import REPORT_FILE
from modeling.report import plots
from modeling.report.canvas import THEMES, Theme, lay_out_like, png_of
from modeling.report.classes import classes_section, confusion_section
from modeling.report.content import ReportContent
from modeling.report.curves import curves, has_curves
from modeling.report.data import data_section
from modeling.report.gallery import (
    MOST_PICTURES,
    Pictured,
    mistake_captions,
    mistakes_section,
    sample_captions,
    samples_section,
)
from modeling.report.headline import headline
from modeling.report.page import curves_section, facts_section, page
from modeling.report.pictures import montage
from modeling.report.section import Plot, Section
from modeling.report.trust import coverage_section, reliability_section

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PLOTS_FOLDER = "plots"
_CSS_PX_PER_INCH = 96


def write_report(folder: Path, content: ReportContent) -> Path:
    """Write the page and its plots into `folder`, made if missing; the same content gives the same bytes.

    What the content lacks is left out; what is there of an earlier report is replaced. Returns the page's path.

    Raises:
        OSError: the folder cannot be written.
    """
    pictured = pictured_mistakes(content)
    with ThreadPoolExecutor(1, thread_name_prefix="sheets") as pool:  # Pillow leaves the interpreter to the plots
        sheets = pool.submit(_sheets, content, pictured)
        drawn = draw_plots(content)
        files = {f"{name}.png": plot.light for name, plot in drawn.items()} | sheets.result()
    (folder / PLOTS_FOLDER).mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        replace_durably(folder / PLOTS_FOLDER / name, data)
    replace_durably(folder / REPORT_FILE, compose(content, drawn, pictured).encode())
    return folder / REPORT_FILE


def _sheets(content: ReportContent, pictured: Sequence[Pictured]) -> dict[str, bytes]:
    """The pictures with their captions as PNGs, by file name."""
    captions = {"mistakes.png": mistake_captions(pictured), "samples.png": sample_captions(content.samples)}
    return {name: montage(cells) for name, cells in captions.items() if cells}


def compose(content: ReportContent, drawn: Mapping[str, Plot], pictured: Sequence[Pictured]) -> str:
    """The page, with plots and pictures that are at hand."""
    glance = headline(content.evaluation, content.part) if content.evaluation else None
    return page(content, glance, _sections(content, drawn, pictured))


def pictured_mistakes(content: ReportContent) -> list[Pictured]:
    """The worst mistakes with their pictures, as far as a page has room."""
    mistakes = content.evaluation.mistakes[:MOST_PICTURES] if content.evaluation else ()
    return [(mistake, content.picture(mistake.index)) for mistake in mistakes]


def draw_plots(content: ReportContent) -> dict[str, Plot]:
    """The content's plots by name, in both themes; takes a second or two."""
    drawings: dict[str, Callable[[Theme], Figure]] = {}
    if evaluation := content.evaluation:
        drawings["confusion"] = lambda theme: plots.confusion(evaluation, theme)
        drawings["reliability"] = lambda theme: plots.reliability(evaluation.reliability, theme)
        drawings["coverage"] = lambda theme: plots.coverage(evaluation, theme)
    if has_curves(content.history):
        drawings["curves"] = lambda theme: curves(content.history, theme)
    return {name: _drawn(name, draw) for name, draw in drawings.items()}


def _drawn(name: str, draw: "Callable[[Theme], Figure]") -> Plot:
    light, dark = (draw(theme) for theme in THEMES)
    light_png = png_of(light)
    lay_out_like(dark, light)
    return Plot(name, light_png, png_of(dark), round(light.get_figwidth() * _CSS_PX_PER_INCH))


def _sections(content: ReportContent, drawn: Mapping[str, Plot], pictured: Sequence[Pictured]) -> list[Section]:
    """The sections in the order in which they matter to an operator."""
    sections = _evaluation_sections(content, content.evaluation, drawn, pictured) if content.evaluation else []
    if content.samples:
        sections.append(samples_section(content.samples))
    if "curves" in drawn:
        sections.append(curves_section(content, drawn["curves"]))
    if content.data:
        sections.append(data_section(content.data))
    if content.facts:
        sections.append(facts_section(content.facts))
    return sections


def _evaluation_sections(
    content: ReportContent, evaluation: Evaluation, drawn: Mapping[str, Plot], pictured: Sequence[Pictured]
) -> list[Section]:
    return [
        mistakes_section(evaluation, pictured, content.calibration),
        confusion_section(evaluation, drawn["confusion"]),
        classes_section(evaluation, content.calibration),
        reliability_section(evaluation, drawn["reliability"]),
        coverage_section(evaluation, content.calibration, drawn["coverage"]),
    ]
