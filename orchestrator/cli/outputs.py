"""Files that commands write for people: checked before any work is done, and complete or not there at all."""

import contextlib
import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar

import click

from orchestrator.contract.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from PIL import Image

    F = TypeVar("F", bound=Callable[..., Any])

PICTURE_SUFFIX = ".png"


def picture_option(help_text: str) -> "Callable[[F], F]":
    """The --picture option."""
    return click.option("--picture", type=click.Path(path_type=Path), metavar="FILE.png", help=help_text)


def overwrite_option(function: "F") -> "F":
    """The --overwrite option of commands that write such files."""
    return click.option("--overwrite", is_flag=True, help="Replace files that exist.")(function)


def check_outputs(outputs: Iterable[Path | None], inputs: Iterable[str | Path], *, overwrite: bool) -> None:
    """Raises UsageError for an output that cannot be written, that exists, or that is an input or lies in one."""
    given = [output for output in outputs if output is not None]
    named = list(inputs)
    for output in given:
        if output.is_dir() or not output.parent.is_dir():
            raise UsageError(f"{str(output)!r} is {_no_file(output)}; name a file in a folder that exists")
        for name in named:
            _check_is_no_input(output, name)
        if output.exists() and not overwrite:
            raise _taken(output)
    if len({output.absolute() for output in given}) < len(given):
        raise UsageError(f"{str(given[0])!r} is named twice; each output needs a file of its own")


def _check_is_no_input(output: Path, name: str | Path) -> None:
    if os.path.isdir(name):  # noqa: PTH112
        if Path(os.path.realpath(output)).is_relative_to(os.path.realpath(name)):
            raise UsageError(f"{str(output)!r} lies in {str(name)!r}, which is only read; name a file elsewhere")
    elif os.path.exists(name) and output.exists() and output.samefile(name):  # noqa: PTH110
        raise UsageError(f"{str(output)!r} is the input itself; name another file")


def check_picture(picture: Path | None) -> None:
    """Raises UsageError for a picture whose name does not end in .png."""
    if picture is not None and picture.suffix.lower() != PICTURE_SUFFIX:
        raise UsageError(f"{str(picture)!r} does not end in {PICTURE_SUFFIX}; the picture is a PNG")


def write_picture(picture: "Image.Image", file: Path) -> None:
    """Write a PNG, as a whole."""
    from modeling.durable import replace_durably

    data = io.BytesIO()
    picture.save(data, "PNG")
    replace_durably(file, data.getvalue(), mode=None)


@contextlib.contextmanager
def written_output(output: Path, *, overwrite: bool) -> Iterator[IO[bytes]]:
    """A file to write to, which becomes `output` at the end; where the block raises, nothing appears.

    Raises UsageError where there is such a file by then, and it is not to be replaced.
    """
    from modeling.durable import link_once, replaced_durably, sync_file, target_of, temporary_beside

    if overwrite:
        with replaced_durably(output, mode=None) as file:
            yield file
        return
    target = target_of(output)
    with temporary_beside(target, mode=None) as temporary:
        with temporary.open("wb") as file:
            yield file
            sync_file(file)
        if not link_once(temporary, target):
            raise _taken(output)


def _taken(output: Path) -> UsageError:
    return UsageError(f"{str(output)!r} exists; name a file that does not, or add --overwrite")


def _no_file(output: Path) -> str:
    return "a folder" if output.is_dir() else f"in no folder: there is no {str(output.parent)!r}"
