"""Arguments and options of commands of lines, and the settings that `lines create` and `lines set` make of them."""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from modeling.names import path_to_text
from orchestrator.cli.parameters import Parsed
from orchestrator.contract.errors import UsageError
from orchestrator.contract.lines.quantities import parse_duration_ms, parse_share, parse_size

F = TypeVar("F", bound=Callable[..., Any])

DURATION = Parsed("TIME", parse_duration_ms)
SIZE = Parsed("SIZE", parse_size)


class LineName(click.ParamType[str]):
    """The name of a line; completed from the lines of the home, without a server."""

    name = "LINE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from orchestrator.contract.lines.settings import check_line_name

        try:
            return check_line_name(str(value))
        except UsageError as err:
            self.fail(str(err), param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from orchestrator.contract.settings import get_settings

        names = [path.parent.name for path in (get_settings().home / "lines").glob("*/line.json")]
        return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]


def _label_and_bins(text: str) -> tuple[str, list[str]]:
    """A label may hold an equals sign, a bin may not."""
    from orchestrator.lines.line_file import parse_bins

    label, separator, bins = text.rpartition("=")
    if not separator or not label or not bins:
        raise UsageError(f"{text!r} is not LABEL=BIN or LABEL=BIN,BIN2, such as owl=3 or owl=3,4")
    return label, parse_bins(bins)


_OPTIONS = (
    click.option("--model", help="Model that answers, as name@alias or name@number."),
    click.option("--deadline", "deadline_ms", type=DURATION, help="Time from a push to its answer; default: 500ms."),
    click.option(
        "--bin", "bins", type=Parsed("LABEL=BIN[,BIN2]", _label_and_bins), multiple=True,
        help="Bins of a label, in order: the next one is taken where one is full or disabled. May be repeated.",
    ),
    click.option("--fallback", help="Bin of items for which no decision could be made in time."),
    click.option("--review", help="Bin of items that a person should look at: the model is not certain enough."),
    click.option("--degraded", help="Smaller model that answers where MODEL would be late; default: none."),
    click.option("--max-requests", type=int, help="Requests that may wait at once; default: 1000."),
    click.option("--max-bytes", type=SIZE, help="Bytes of images that may wait at once; default: 256MiB."),
    click.option("--max-image-bytes", type=SIZE, help="Bytes of one image; default: 16MiB."),
    click.option("--keep", "keep_ms", type=DURATION, help="Time for which answers can be looked up; default: 7d."),
    click.option("--keep-images", "keep_images_ms", type=DURATION, help="Time for which images are kept; default: 7d."),
    click.option("--keep-images-bytes", type=SIZE, help="Bytes of images that are kept; 0: none; default: 1GiB."),
    click.option(
        "--keep-share", type=Parsed("P%", parse_share),
        help="Share of accepted images that is kept, drawn at random; default: 1%.",
    ),
    click.option(
        "--root", "roots", multiple=True, type=click.Path(),
        help="Folder below which images may be pushed by their path, as workers see it. May be repeated.",
    ),
    click.option(
        "--file", type=click.Path(path_type=Path), help="TOML file with the settings; options count before it."
    ),
    click.option("--allow-unknown-labels", is_flag=True, help="Keep bins of labels that the model does not have."),
)  # fmt: skip


def line_options(function: F) -> F:
    """The options of a line's settings; each is None or empty where it was not given."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def given_settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """What file and options say, by the names of `LineSettings`; the options count first.

    Raises NotFoundError and UsageError for a file that cannot be used, UsageError for a label given twice.
    """
    from orchestrator.lines.line_file import read_line_file

    file = options["file"]
    values = read_line_file(file) if file is not None else {}
    plain = ("model", "deadline_ms", "fallback", "review", "degraded", "max_requests", "max_bytes", "max_image_bytes",
             "keep_images_bytes", "keep_share")  # fmt: skip
    values |= {name: options[name] for name in plain if options[name] is not None}
    for name in ("keep", "keep_images"):
        if options[f"{name}_ms"] is not None:
            values[f"{name}_s"] = -(-options[f"{name}_ms"] // 1000)
    if options["roots"]:
        values["roots"] = [path_to_text(os.path.abspath(root)) for root in options["roots"]]  # noqa: PTH100 links stay
    if options["bins"]:
        values["bins"] = {**values.get("bins", {}), **_each_once(options["bins"])}
    return values


def _each_once(pairs: Iterable[tuple[str, list[str]]]) -> dict[str, list[str]]:
    bins: dict[str, list[str]] = {}
    for label, names in pairs:
        if label in bins:
            raise UsageError(f"--bin has the label {label!r} twice; give its bins in order, such as {label}=3,4")
        bins[label] = names
    return bins
