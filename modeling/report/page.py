"""The whole page from its sections: one file that asks nothing of anyone."""

from collections.abc import Sequence
from pathlib import Path

from modeling.report.content import ReportContent
from modeling.report.curves import best_epoch
from modeling.report.figures import count, percent
from modeling.report.html import Html, element
from modeling.report.section import Plot, Section

_SUBTITLE_FACTS = 3
_CSS = Path(__file__).with_name("page.css")
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # nothing is fetched, whatever stands in it


def page(content: ReportContent, glance: Html | None, sections: Sequence[Section]) -> str:
    """The report as HTML."""
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{content.title} – Pigeonhole report"),
        element("link", rel="icon", href="data:,"),
        element("style", Html(_CSS.read_text(encoding="utf-8"))),
    )
    main = element("main", glance, *(section.markup() for section in sections), class_="wrap")
    footer = element(
        "footer",
        element("div", "Made by Pigeonhole. This page loads nothing and can be passed on as it is.", class_="wrap"),
    )
    body = element("body", _band(content, sections), main, footer)
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def curves_section(content: ReportContent, plot: Plot) -> Section:
    """How training went."""
    lead = (
        "How training went, epoch by epoch. Loss should fall and accuracy rise until both level off; an accuracy that "
        "still climbs at the end asks for more epochs, one that falls for fewer."
    )
    best = best_epoch(content.history)
    alt = f"Training curves over {count(len(content.history), 'epoch')}"
    alt += f"; best accuracy {percent(best[1])} in epoch {best[0]:g}" if best else ""
    return Section("curves", "Training", lead, plot.image(alt))


def facts_section(facts: Sequence[tuple[str, str]]) -> Section:
    """What it takes to make this model again."""
    lines = [piece for name, value in facts for piece in (element("dt", name), element("dd", value))]
    lead = "What this model is and how it was made, to find it again or to make it again."
    return Section("facts", "Recipe and facts", lead, element("dl", *lines, class_="facts"))


def _band(content: ReportContent, sections: Sequence[Section]) -> Html:
    """The head of the page: title, the first facts, and links to the sections."""
    subtitle = " · ".join(f"{name} {value}" for name, value in content.facts[:_SUBTITLE_FACTS])
    titles = element("div", element("h1", content.title), element("p", subtitle, class_="sub") if subtitle else None)
    links = [element("li", element("a", section.title, href=f"#{section.anchor}")) for section in sections]
    contents = element("nav", element("ul", *links), aria_label="Contents") if len(links) > 1 else None
    inner = element("div", element("div", _pigeonholes(), titles, class_="title"), contents, class_="wrap")
    return element("header", inner, class_="band")


def _pigeonholes() -> Html:
    """The mark of the house: nine holes, one of them with a letter in it."""
    holes = [
        element("rect", x=2 + 15 * (hole % 3), y=2 + 15 * (hole // 3), width=12, height=12, rx=2.5, fill=_hole(hole))
        for hole in range(9)
    ]
    return element("svg", *holes, viewBox="0 0 46 46", aria_hidden="true")


def _hole(number: int) -> str:
    return "#ffcd5c" if number == 5 else "rgba(255,255,255,.22)"
