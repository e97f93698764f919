"""Markup that cannot be broken from outside: whatever is not markup already is text, and is escaped."""

import html
import re
from collections.abc import Iterable

_VOID = frozenset({"img", "link", "meta", "source"})
_LONGEST_TITLE = 1000
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")  # control characters, lone surrogates


class Html(str):
    """Markup, safe to stand in a page as it is."""

    __slots__ = ()


def text(value: str) -> Html:
    """Text as markup: escaped, and what no page may hold (control characters, undecodable bytes) made visible."""
    if isinstance(value, Html):
        return value
    return Html(html.escape(_UNSEEN.sub("\ufffd", value), quote=True))


def element(tag: str, /, *children: str | None, **attributes: str | float | bool | None) -> Html:
    """An element; None and False leave a child or an attribute out, `class_` is `class`, `data_x` is `data-x`."""
    written = "".join(_attribute(key, value) for key, value in attributes.items())
    if tag in _VOID:
        return Html(f"<{tag}{written}>")
    return Html(f"<{tag}{written}>{join(children)}</{tag}>")


def join(children: Iterable[str | None]) -> Html:
    """Pieces one after another; None is left out."""
    return Html("".join(text(child) for child in children if child is not None))


def short(value: str, longest: int = 28) -> Html:
    """Text of at most `longest` characters; a longer one loses its middle, and shows all of it when pointed at."""
    if len(value) <= longest:
        return text(value)
    return element("span", shortened(value, longest), title=value[:_LONGEST_TITLE])


def shortened(value: str, longest: int) -> str:
    """A text without its middle, as the ends of file names and labels tell them apart."""
    if len(value) <= longest:
        return value
    end = (longest - 1) // 2
    return f"{value[: longest - 1 - end]}…{value[len(value) - end :]}"


def _attribute(key: str, value: str | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{text(str(value))}"'
