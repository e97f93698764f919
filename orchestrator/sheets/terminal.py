"""Small pictures in terminals: by kitty's or iTerm2's protocol where the terminal is known to have one, else as half
blocks in colours.

The terminal is known by its environment alone: asking it would leave its answer in the input of the shell.
"""

import base64
import io
from collections.abc import Iterator, Mapping
from typing import Literal

from PIL import Image

from orchestrator.sheets.thumbnails import Thumbnail

Way = Literal["kitty", "iterm", "true_colour", "256_colours"]

_NUM_ROWS, _MOST_COLUMNS = 8, 32  # of a picture by a protocol, in character cells, which are twice as high as wide
_BLOCK_ROWS, _BLOCK_COLUMNS = 12, 32  # of a picture of half blocks, each of two pixels
_KITTY_BYTES = 4096  # of one escape sequence
_KITTY = ("xterm-kitty", "xterm-ghostty")
_ITERM = ("iTerm.app", "WezTerm")
# Set by terminals of other makes, which may be started from a shell in one of the above and inherit its variables.
_OTHERS = ("VTE_VERSION", "XTERM_VERSION", "KONSOLE_VERSION", "WT_SESSION", "ALACRITTY_WINDOW_ID")
_WITHOUT = ("", "dumb", "linux", "unknown")


def way_of(environment: Mapping[str, str], *, encoding: str) -> Way | None:
    """How a terminal of this environment shows pictures; None where it cannot, or nothing is known of it."""
    term = environment.get("TERM", "")
    if term in _WITHOUT:
        return None
    inside = "TMUX" in environment or "STY" in environment or term.startswith(("tmux", "screen"))
    if not inside and term in _KITTY:
        return "kitty"
    if not inside and _is_iterm(environment):
        return "iterm"
    if encoding.lower().replace("-", "") != "utf8":
        return None
    if environment.get("COLORTERM") in ("truecolor", "24bit"):
        return "true_colour"
    return "256_colours" if "256color" in term else None


def _is_iterm(environment: Mapping[str, str]) -> bool:
    named = environment.get("TERM_PROGRAM") in _ITERM or environment.get("LC_TERMINAL") == "iTerm2"
    return named and not any(name in environment for name in _OTHERS)


def draw(thumbnail: Thumbnail, way: Way) -> str:
    """The picture as what the terminal has to be sent; the cursor is at the end of the last line then."""
    if way == "kitty":
        return _kitty(thumbnail)
    if way == "iterm":
        return _iterm(thumbnail)
    return "\n".join(_blocks(thumbnail, true_colour=way == "true_colour"))


def _cells(thumbnail: Thumbnail, num_rows: int, most_columns: int) -> tuple[int, int]:
    """Columns and rows of character cells for a picture, as near to its shape as cells allow."""
    columns = round(2 * num_rows * thumbnail.width / thumbnail.height)
    if columns > most_columns:
        num_rows = max(1, round(most_columns * thumbnail.height / thumbnail.width / 2))
    return min(max(columns, 1), most_columns), num_rows


def _kitty(thumbnail: Thumbnail) -> str:
    """q=2: the terminal does not answer. It takes PNG only, in pieces."""
    columns, rows = _cells(thumbnail, _NUM_ROWS, _MOST_COLUMNS)
    text = base64.b64encode(_png(thumbnail)).decode()
    pieces = [text[start : start + _KITTY_BYTES] for start in range(0, len(text), _KITTY_BYTES)]
    keys = f"a=T,f=100,q=2,c={columns},r={rows},"
    drawn = ""
    for number, piece in enumerate(pieces):
        drawn += f"\x1b_G{keys if number == 0 else ''}m={int(number < len(pieces) - 1)};{piece}\x1b\\"
    return drawn


def _iterm(thumbnail: Thumbnail) -> str:
    columns, rows = _cells(thumbnail, _NUM_ROWS, _MOST_COLUMNS)
    text = base64.b64encode(thumbnail.data).decode()
    keys = f"inline=1;size={len(thumbnail.data)};width={columns};height={rows};preserveAspectRatio=1"
    return f"\x1b]1337;File={keys}:{text}\x07"


def _blocks(thumbnail: Thumbnail, *, true_colour: bool) -> Iterator[str]:
    """Lines of upper half blocks: each is a pixel in the foreground's colour above one in the background's."""
    columns, rows = _cells(thumbnail, _BLOCK_ROWS, _BLOCK_COLUMNS)
    picture = _opened(thumbnail).resize((columns, 2 * rows), Image.Resampling.LANCZOS)
    pixels = list(zip(*[iter(picture.tobytes())] * 3, strict=True))
    colour = _true_colour if true_colour else _one_of_256
    for row in range(rows):
        above, below = (pixels[start : start + columns] for start in (2 * row * columns, (2 * row + 1) * columns))
        yield (
            "".join(f"\x1b[38;{colour(upper)};48;{colour(lower)}m▀" for upper, lower in zip(above, below, strict=True))
            + "\x1b[0m"
        )


def _true_colour(pixel: tuple[int, ...]) -> str:
    red, green, blue = pixel
    return f"2;{red};{green};{blue}"


def _one_of_256(pixel: tuple[int, ...]) -> str:
    """The nearest of the cube of 6 x 6 x 6 colours that terminals have from 16 on."""
    red, green, blue = (round(value / 51) for value in pixel)
    return f"5;{16 + 36 * red + 6 * green + blue}"


def _png(thumbnail: Thumbnail) -> bytes:
    if thumbnail.kind == "png":
        return thumbnail.data
    buffer = io.BytesIO()
    _opened(thumbnail).save(buffer, "PNG")
    return buffer.getvalue()


def _opened(thumbnail: Thumbnail) -> Image.Image:
    """The picture's pixels: encoded by this process, so nothing can be wrong with them."""
    return Image.open(io.BytesIO(thumbnail.data)).convert("RGB")
