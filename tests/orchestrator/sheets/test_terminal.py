"""Pictures in terminals: only where the terminal is known to show them."""

import base64
import io
import re

import pytest
from PIL import Image

from orchestrator.sheets.terminal import draw, way_of
from orchestrator.sheets.thumbnails import Thumbnail

XTERM = {"TERM": "xterm-256color"}
TRUE = {"COLORTERM": "truecolor"}


@pytest.mark.parametrize(
    ("environment", "way"),
    [
        ({}, None),
        ({"TERM": "dumb"} | TRUE, None),
        ({"TERM": "linux"}, None),
        ({"TERM": "vt100"}, None),
        ({"TERM": "xterm"}, None),
        (XTERM, "256_colours"),
        (XTERM | TRUE, "true_colour"),
        (XTERM | {"COLORTERM": "24bit"}, "true_colour"),
        ({"TERM": "xterm-kitty"} | TRUE, "kitty"),
        ({"TERM": "xterm-ghostty"}, "kitty"),
        (XTERM | {"TERM_PROGRAM": "iTerm.app"}, "iterm"),
        (XTERM | {"LC_TERMINAL": "iTerm2"}, "iterm"),
        (XTERM | {"TERM_PROGRAM": "WezTerm"}, "iterm"),
        (XTERM | {"TERM_PROGRAM": "Apple_Terminal"}, "256_colours"),
        # Another terminal, started from a shell in one of those above.
        (XTERM | {"KITTY_WINDOW_ID": "1"}, "256_colours"),
        (XTERM | TRUE | {"TERM_PROGRAM": "WezTerm", "VTE_VERSION": "7600"}, "true_colour"),
        (XTERM | {"LC_TERMINAL": "iTerm2", "XTERM_VERSION": "XTerm(390)"}, "256_colours"),
        # A multiplexer in between takes no picture of a protocol.
        ({"TERM": "screen-256color", "LC_TERMINAL": "iTerm2"}, "256_colours"),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/tmux"} | TRUE, "true_colour"),
        (XTERM | {"STY": "1.pts", "TERM_PROGRAM": "iTerm.app"}, "256_colours"),
    ],
)
def test_a_terminal_is_known_by_its_environment(environment, way):
    assert way_of(environment, encoding="UTF-8") == way


def test_half_blocks_need_utf_8_and_protocols_do_not():
    assert way_of(XTERM | TRUE, encoding="ascii") is None
    assert way_of({"TERM": "xterm-kitty"}, encoding="ascii") == "kitty"


def thumbnail(width: int, height: int, kind: str = "jpeg") -> Thumbnail:
    buffer = io.BytesIO()
    Image.effect_noise((width, height), 80).convert("RGB").save(buffer, kind)
    return Thumbnail(buffer.getvalue(), kind, width, height)


@pytest.mark.parametrize("size", [(240, 240), (240, 60), (30, 240), (240, 1), (1, 240), (1, 1)])
def test_kitty_gets_a_png_in_pieces_and_does_not_answer(size):
    drawn = draw(thumbnail(*size), "kitty")

    pieces = re.findall(r"\x1b_G([^;]*);([A-Za-z0-9+/=]*)\x1b\\", drawn)
    assert "".join(f"\x1b_G{keys};{data}\x1b\\" for keys, data in pieces) == drawn
    assert pieces[0][0].startswith("a=T,f=100,q=2,")
    assert [keys[-3:] for keys, _ in pieces] == ["m=1"] * (len(pieces) - 1) + ["m=0"]
    assert all(len(data) <= 4096 for _, data in pieces)
    image = Image.open(io.BytesIO(base64.b64decode("".join(data for _, data in pieces))))
    assert (image.format, image.size) == ("PNG", size)
    columns, rows = map(int, re.findall(r"[cr]=(\d+)", pieces[0][0]))
    assert 1 <= columns <= 32
    assert 1 <= rows <= 8


def test_iterm_gets_the_picture_as_it_is():
    picture = thumbnail(200, 100)

    drawn = draw(picture, "iterm")

    found = re.fullmatch(r"\x1b\]1337;File=inline=1;size=(\d+);width=32;height=8;preserveAspectRatio=1:(.*)\x07", drawn)
    assert found is not None
    assert base64.b64decode(found[2]) == picture.data
    assert int(found[1]) == len(picture.data)


@pytest.mark.parametrize(("way", "colour"), [("true_colour", r"2;\d+;\d+;\d+"), ("256_colours", r"5;\d+")])
@pytest.mark.parametrize(("size", "cells"), [((100, 100), (24, 12)), ((240, 60), (32, 4)), ((1, 240), (1, 12))])
def test_half_blocks_end_every_line_without_colours(way, colour, size, cells):
    lines = draw(thumbnail(*size, "png"), way).split("\n")

    assert len(lines) == cells[1]
    cell = rf"\x1b\[38;{colour};48;{colour}m▀"
    assert all(re.fullmatch(rf"(?:{cell}){{{cells[0]}}}\x1b\[0m", line) for line in lines)


def test_half_blocks_have_the_colours_of_the_pixels():
    buffer = io.BytesIO()
    image = Image.new("RGB", (64, 64), (255, 0, 0))
    image.paste((0, 0, 255), (0, 32, 64, 64))
    image.save(buffer, "PNG")

    lines = draw(Thumbnail(buffer.getvalue(), "png", 64, 64), "true_colour").split("\n")

    assert lines[0].startswith("\x1b[38;2;255;0;0;48;2;255;0;0m▀")
    assert lines[-1].startswith("\x1b[38;2;0;0;255;48;2;0;0;255m▀")
