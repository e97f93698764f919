"""What a page is put together from: sections, and plots in both themes."""

from dataclasses import dataclass

from modeling.report.html import Html, element
from modeling.report.pictures import data_uri

_WIDE_PX = 560  # a plot that a phone scrolls rather than shrinks


@dataclass(frozen=True, slots=True)
class Plot:
    """One plot as PNG bytes, for a light and for a dark page. `width` is what it wants on a page, in CSS pixels."""

    name: str
    light: bytes
    dark: bytes
    width: int

    def image(self, alt: str) -> Html:
        """The plot as markup; the reader's scheme chooses between the two."""
        class_ = "plot wide" if self.width > _WIDE_PX else "plot"
        dark = element("source", srcset=data_uri(self.dark, "png"), media="screen and (prefers-color-scheme: dark)")
        light = element("img", src=data_uri(self.light, "png"), alt=alt, width=self.width, class_=class_)
        return element("figure", element("picture", dark, light), class_="plot-frame")


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page. `lead` says in a sentence or two what it shows and how to read it."""

    anchor: str
    title: str
    lead: str
    body: Html

    def markup(self) -> Html:
        """The section with its heading."""
        heading = element("h2", self.title, id=f"{self.anchor}-title")
        lead = element("p", self.lead, class_="lead")
        return element("section", heading, lead, self.body, id=self.anchor, aria_labelledby=f"{self.anchor}-title")


def table(head: list[Html], rows: list[Html], class_: str) -> Html:
    """A table that scrolls by itself where the page is too narrow; `head` holds `th` elements."""
    drawn = element("table", element("thead", element("tr", *head)), element("tbody", *rows), class_=class_)
    return element("div", drawn, class_="scroll", tabindex=0, role="region", aria_label="table")


def bar(share: float, kind: str = "right") -> Html:
    """A bar as long as a share in [0, 1]; the number stands beside it, so it is only for the eye."""
    width = f"width:{100 * min(max(share, 0.0), 1.0):.2f}%"
    return element("span", element("span", class_=f"fill {kind}", style=width), class_="bar", aria_hidden="true")
