"""From a content to a folder: `report.html`, one self-contained file, and the same plots as files in `plots/`."""

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modeling.durable import replace_durably
from modeling.metrics.evaluation import Evaluation
from modeling.registry.card import REPORT_FILE
from modeling.report import figures, plots
from modeling.report.canvas import THEMES, Plot, Theme, lay_out_like, png_of
from modeling.report.classes import describe_confusion, tabulate_classes
from modeling.report.content import ReportContent
from modeling.report.data import summarise_data
from modeling.report.headline import headline
from modeling.report.pictures import (
    MistakePicture,
    data_uri,
    describe_doubtful,
    describe_mistakes,
    mistake_captions,
    mistake_pictures,
    montage,
    sample_captions,
    sample_cards,
)
from modeling.report.trust import describe_coverage, describe_reliability

if TYPE_CHECKING:
    from jinja2 import Environment
    from matplotlib.figure import Figure

PLOTS_FOLDER = "plots"
TEMPLATES = Path(__file__).with_name("templates")
_CSS_PX_PER_INCH = 96
_SUBTITLE_FACTS = 3
_NOT_SHOWABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")  # control characters, lone surrogates
_REPLACEMENT = "\ufffd"


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page: the template `ANCHOR.html` shows `view`."""

    anchor: str
    title: str
    view: Any


def write_report(folder: Path, content: ReportContent) -> Path:
    """Write the page and its plots into `folder`, made if missing; the same content gives the same bytes.

    What the content lacks is left out; what is there of an earlier report is replaced. Returns the page's path.

    Raises:
        OSError: the folder cannot be written.
    """
    pictures = mistake_pictures(content)
    with ThreadPoolExecutor(1, thread_name_prefix="sheets") as pool:  # Pillow releases the interpreter to the plots
        sheets = pool.submit(_sheets, content, pictures)
        drawn = draw_plots(content)
        files = {f"{name}.png": plot.light for name, plot in drawn.items()} | sheets.result()
    (folder / PLOTS_FOLDER).mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        replace_durably(folder / PLOTS_FOLDER / name, data)
    replace_durably(folder / REPORT_FILE, render(content, drawn, pictures).encode())
    return folder / REPORT_FILE


def draw_plots(content: ReportContent) -> dict[str, Plot]:
    """The content's plots by name, in both themes; takes a second or two."""
    drawings: dict[str, Callable[[Theme], Figure]] = {}
    if evaluation := content.evaluation:
        drawings["confusion"] = lambda theme: plots.confusion(evaluation, theme)
        drawings["reliability"] = lambda theme: plots.reliability(evaluation.reliability, theme)
        drawings["coverage"] = lambda theme: plots.coverage(evaluation, theme)
    if plots.has_curves(content.history):
        drawings["curves"] = lambda theme: plots.curves(content.history, theme)
    return {name: _drawn(name, draw) for name, draw in drawings.items()}


def render(content: ReportContent, drawn: Mapping[str, Plot], pictures: Sequence[MistakePicture]) -> str:
    """The page as HTML, from plots and pictures that are at hand."""
    page = (
        page_environment()
        .get_template("report.html")
        .render(
            title=content.title,
            subtitle=" · ".join(f"{name} {value}" for name, value in content.facts[:_SUBTITLE_FACTS]),
            headline=headline(content.evaluation, content.part, content.left_out) if content.evaluation else None,
            sections=_sections(content, drawn, pictures),
        )
    )
    return _NOT_SHOWABLE.sub(_REPLACEMENT, page)


@cache
def page_environment() -> "Environment":
    """The templates; every value is escaped, and a name that is not there is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # only those who write a report need it

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,
    )
    named = (figures.percent, figures.interval, figures.score, figures.points, figures.shortened, data_uri)
    environment.filters |= {function.__name__: function for function in named}
    environment.filters["counted"] = figures.count  # `count` is Jinja's own
    environment.globals["few_images"] = plots.FEW_IMAGES
    return environment


def _sheets(content: ReportContent, pictures: Sequence[MistakePicture]) -> dict[str, bytes]:
    """The pictures with their captions as PNGs, by file name."""
    captions = {"mistakes.png": mistake_captions(pictures), "samples.png": sample_captions(content.samples)}
    return {name: montage(cells) for name, cells in captions.items() if cells}


def _drawn(name: str, draw: "Callable[[Theme], Figure]") -> Plot:
    light, dark = (draw(theme) for theme in THEMES)
    light_png = png_of(light)
    lay_out_like(dark, light)
    return Plot(name, light_png, png_of(dark), round(light.get_figwidth() * _CSS_PX_PER_INCH))


def _sections(content: ReportContent, drawn: Mapping[str, Plot], pictures: Sequence[MistakePicture]) -> list[Section]:
    """The sections in the order in which they matter to an operator."""
    sections = _evaluation_sections(content, content.evaluation, drawn, pictures) if content.evaluation else []
    if content.samples:
        sections.append(Section("samples", "Samples", sample_cards(content.samples)))
    if "curves" in drawn:
        sections.append(Section("curves", "Training", _curves(content, drawn["curves"])))
    if content.doubtful:
        sections.append(Section("look", "Look at these", describe_doubtful(content)))
    if content.data:
        sections.append(Section("data", "The data", summarise_data(content.data)))
    if content.facts:
        sections.append(Section("facts", "Recipe and facts", content.facts))
    return sections


def _evaluation_sections(
    content: ReportContent, evaluation: Evaluation, drawn: Mapping[str, Plot], pictures: Sequence[MistakePicture]
) -> list[Section]:
    calibration = content.calibration
    coverage = describe_coverage(evaluation, calibration, drawn["coverage"])
    return [
        Section("mistakes", "Worst mistakes", describe_mistakes(evaluation, pictures, calibration)),
        Section("confusion", "Most confused classes", describe_confusion(evaluation, drawn["confusion"])),
        Section("classes", "Class by class", tabulate_classes(evaluation, calibration)),
        Section("reliability", "Can the scores be trusted?", describe_reliability(evaluation, drawn["reliability"])),
        Section("coverage", "How much can go unseen?", coverage),
    ]


def _curves(content: ReportContent, plot: Plot) -> dict[str, Any]:
    """The training curves with their text for those who do not see them."""
    best = plots.best_epoch(content.history)
    alt = f"Training curves over {figures.count(len(content.history), 'epoch')}"
    alt += f"; best accuracy {figures.percent(best[1])} in epoch {best[0]:g}" if best else ""
    return {"plot": plot, "alt": alt}
