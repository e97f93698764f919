"""A sheet of pictures as one HTML file: no scripts, and nothing from elsewhere; its policy tells browsers so.

The page is written while pictures are made, so memory does not grow with their number.
"""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING

from orchestrator.contract.shown import printable
from orchestrator.sheets.thumbnails import Shown

if TYPE_CHECKING:
    from jinja2 import Template

_TEMPLATES = Path(__file__).with_name("templates")
_PIECES_AT_ONCE = 100  # of the template's output
_POLICY = "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'"
LONG_NAME = 80  # characters; the rest of a longer one is folded away


@dataclass(frozen=True, slots=True)
class SheetCard:
    """One picture with what is said of it. kind: a decision, or `error`, which colours the badge; badge: its text."""

    path: str
    title: str
    score: str
    kind: str
    badge: str
    shown: Shown


@dataclass(frozen=True, slots=True)
class PageGroup:
    """Pictures below a heading; `note` says how many there are."""

    heading: str
    note: str
    cards: Iterable[SheetCard]


@dataclass(frozen=True, slots=True)
class Page:
    """A sheet. facts: name and value of each line in the head. index: heading and count of each group, in order, or
    nothing where the page has one group only. more: what is left out, in words.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    groups: Iterable[PageGroup]
    index: Sequence[tuple[str, int]] = ()
    more: str = ""


def write_page(page: Page, file: IO[bytes]) -> None:
    """Write the page; its groups and their cards are asked for in order, once."""
    stream = _template().stream(page=page)
    stream.enable_buffering(_PIECES_AT_ONCE)
    for piece in stream:
        file.write(piece.encode("utf-8", "replace"))


@cache
def _template() -> "Template":
    """The template; every value is escaped, and a name that is not there is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    style = (_TEMPLATES / "sheet.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    environment.filters["printable"] = printable
    environment.globals |= {
        "style": Markup(style),  # noqa: S704 a file of ours
        "policy": f"{_POLICY}; style-src 'sha256-{digest}'",
        "long_name": LONG_NAME,
    }
    return environment.get_template("sheet.html")
