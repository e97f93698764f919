"""`pigeonhole read`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from modeling.errors import ImageError
from modeling.names import path_to_text
from orchestrator.cli.libraries import prepare_for_libraries
from orchestrator.cli.output import json_option, print_json, print_line, print_message
from orchestrator.cli.outputs import check_outputs, check_picture, overwrite_option, picture_option, write_picture
from orchestrator.cli.predict import STANDARD_INPUT, device_option, load, named_image
from orchestrator.cli.speaking import doing
from orchestrator.contract.errors import NotFoundError, PigeonholeError, UsageError

if TYPE_CHECKING:
    from modeling.registry.store import ModelVersion
    from orchestrator.contract.settings import Settings
    from orchestrator.pages.read import ReadPage
    from orchestrator.pages.scanned import ScannedPage

_MANY_DOUBTFUL = 0.25  # of the characters: then the page is hardly what the model can read
_LABELS_NAMED = 3


@click.command()
@click.argument("page")
@click.option("--model", required=True, help="A published model of characters: name, name@version, name@alias.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="File for the text; default: print it on standard output."
)
@picture_option("Draw the page beside its text, with the doubtful characters marked: a PNG.")
@overwrite_option
@device_option
@json_option
def read(
    page: str, model: str, output: Path | None, picture: Path | None, overwrite: bool, device: str, as_json: bool
) -> None:
    """Read the text of a scanned PAGE with a model of characters, at once, without a job.

    The page is straightened and cut into lines, words and characters, and the model reads each character. PAGE is an
    image of one page of print, up to 6 degrees askew, in one column, with letters that do not touch. `-` is the bytes
    of an image from standard input.

    A label of one character stands for itself; names such as upper_a, digit_0 and full_stop are those of `pigeonhole
    demo`. Others are written in brackets. Characters that the model does not accept are doubtful.

    With --json one document: text, lines, words and characters with their boxes and scores.

    \b
    Examples:
      pigeonhole read demo-output/page.png --model characters
      pigeonhole read letter.jpg --model characters -o letter.txt --picture letter-read.png
    """
    from modeling.registry.store import ModelStore
    from orchestrator.contract.settings import get_settings

    settings = get_settings()
    check_picture(picture)
    check_outputs([output, picture], [] if page == STANDARD_INPUT else [page], overwrite=overwrite)
    if os.path.isdir(page):  # noqa: PTH112 a str keeps the bytes of a name
        raise UsageError(f"{page!r} is a folder; give the image of one page")
    version = ModelStore(settings.models).resolve(model)
    prepare_for_libraries()
    with doing(f"reading {page}"):
        found = _read(_open(page, settings), version, device)
    _say(found, version, page)
    if output is not None:
        _write_text(found.text, output)
    if as_json:
        print_json({"page": path_to_text(page), "model": version.ref, "digest": version.digest, **found.to_json()})
    elif output is None:
        for line in found.text.splitlines():
            print_line(line)
    if picture is not None:
        with doing(f"drawing {picture}"):
            _draw(found, version, page, picture)


def _open(page: str, settings: "Settings") -> "ScannedPage":
    """The page as an image. Raises NotFoundError or PigeonholeError, which say why it cannot be read."""
    from orchestrator.pages.scanned import open_page

    try:
        return open_page(named_image(page, settings).read(settings.max_file_bytes), max_pixels=settings.max_pixels)
    except ImageError as err:
        kind = NotFoundError if err.code == "missing" else PigeonholeError
        raise kind(f"{path_to_text(page)!r} cannot be read ({err}); give an image of a page, such as a PNG") from err


def _read(page: "ScannedPage", version: "ModelVersion", device: str) -> "ReadPage":
    from orchestrator.pages.read import read_page

    return read_page(page, load(version, device, decodes=False))


def _say(found: "ReadPage", version: "ModelVersion", page: str) -> None:
    """Say on standard error what was read, and what makes it doubtful."""
    from orchestrator.pages.alphabet import is_character
    from orchestrator.pages.views import VIEWS

    if found.page.has_more:
        print_message(f"{page} has several pages; the first is read", color="yellow")
    labels = version.card().labels
    if others := [label for label in labels if not is_character(label)]:
        named = ", ".join(others[:_LABELS_NAMED]) + (", ..." if len(others) > _LABELS_NAMED else "")
        text = f"{len(others)} of {len(labels)} labels of {version.ref} are not characters, and are written in brackets"
        print_message(f"{text}: {named}", color="yellow")
    if not found.letters:
        print_message(f"no print was found on {page}", color="yellow")
        return
    if found.view is not VIEWS[0]:
        print_message(f"each character is shown to the model {found.view.name}: then its answers tell most")
    print_message(
        f"{len(found.letters)} characters in {len(found.text.splitlines())} lines, {found.num_doubtful} doubtful; "
        f"the page is {abs(found.cut.skew_deg):.1f} degrees askew"
    )
    if found.num_doubtful > _MANY_DOUBTFUL * len(found.letters):
        print_message(
            "many characters are doubtful: the page may lie on its side or upside down, hold no print, or print of a "
            "kind that the model was not trained on",
            color="yellow",
        )


def _write_text(text: str, output: Path) -> None:
    from modeling.durable import replace_durably

    replace_durably(output, (text + "\n" * bool(text)).encode("utf-8", "surrogateescape"), mode=None)
    print_message(f"text written to {output}")


def _draw(found: "ReadPage", version: "ModelVersion", page: str, picture: Path) -> None:
    from orchestrator.pages.picture import Caption, Reading, draw_page
    from orchestrator.pages.text import DOUBTFUL_BELOW

    decides = version.card().calibration is not None
    why = "not accepted by the model" if decides else f"scored below {100 * DOUBTFUL_BELOW:.0f} %"
    caption = Caption(
        "standard input" if page == STANDARD_INPUT else Path(page).name,
        f"Read by {version.ref}; {abs(found.cut.skew_deg):.1f}° askew",
        ((f"{found.num_doubtful}", "doubtful"), (f"{len(found.letters)}", "characters")),
        f"doubtful: {why}, kept for a second look",
    )
    readings = [Reading(letter.text, letter.doubtful) for letter in found.letters]
    write_picture(draw_page(found.cut, readings, caption), picture)
    print_message(f"drawn in {picture}")
