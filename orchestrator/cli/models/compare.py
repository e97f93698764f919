"""`pigeonhole models compare`."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modeling.data.layout import Layout
from modeling.images.formats import IMAGE_EXTENSIONS
from modeling.inference.engines.precision import WANTED_PRECISIONS, WantedPrecision
from orchestrator.cli.libraries import prepare_for_libraries
from orchestrator.cli.output import json_option, print_json, print_line, print_message, print_table, redraw_line
from orchestrator.cli.outputs import check_outputs, overwrite_option, written_output
from orchestrator.cli.parameters import layout_option
from orchestrator.cli.speaking import doing
from orchestrator.contract.errors import UsageError

if TYPE_CHECKING:
    from modeling.evaluation.compare_models import Compared
    from modeling.images.progress import Emit
    from modeling.metrics.comparison import Comparison, Flip, ModelFigures

SHOWN = 10  # flipped images in each direction, and labels; the JSON has all

Names = tuple[str, str]


@click.command("compare")
@click.argument("a")
@click.argument("b")
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--part", type=click.Choice(["all", "train", "validation", "test"]), default="all", show_default=True,
    help="Images to compare on: all, or a part of the split that A was trained with.",
)  # fmt: skip
@click.option(
    "--precision", type=click.Choice(WANTED_PRECISIONS), default="auto", show_default=True,
    help="Number format of the network, as for `classify`; auto: the one that jobs use.",
)  # fmt: skip
@layout_option
@click.option("--device", default="auto", show_default=True, help="Where the networks run: auto, cpu or cuda:N.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Also write the comparison as JSON here."
)
@overwrite_option
@json_option
def compare_command(
    a: str,
    b: str,
    data: Path,
    part: Any,
    precision: WantedPrecision,
    layout: Layout | None,
    device: str,
    output: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Compare models A and B on the labelled images of DATA: figures, flipped images, and significance.

    Images of labels that only one of the models knows are left out.

    \b
    Examples:
      pigeonhole models compare birds@1 birds@2 held-out/
      pigeonhole models compare birds@champion birds --part test photos/ -o comparison.json
    """
    from orchestrator.contract.settings import get_settings
    from orchestrator.jobs.pinned import check_precision, pin_model

    prepare_for_libraries()
    from modeling.evaluation.compare_models import CompareRequest, compare_models

    _check_output(output, data, overwrite=overwrite)
    models = [pin_model(get_settings(), ref) for ref in (a, b)]
    for model in models:
        check_precision(model, precision)
    versions = [model.version for model in models]
    names = (versions[0].ref, versions[1].ref)
    request = CompareRequest(versions[0].path, versions[1].path, data, device, part, precision, layout)
    with doing(f"loading {' and '.join(names)}") as replace_words:
        compared = compare_models(request, _show_progress(names, replace_words))
    document = _document(names, data, part, compared)
    if output:
        with written_output(output, overwrite=overwrite) as file:
            file.write((json.dumps(document, ensure_ascii=False, indent=2) + "\n").encode())
    _print_warnings(names, compared)
    if as_json:
        print_json(document)
        return
    _print(names, compared)


def _check_output(output: Path | None, data: Path, *, overwrite: bool) -> None:
    """Raises UsageError for a file that exists, unless it may be replaced, and for any image or other data."""
    check_outputs([output], [data], overwrite=overwrite)
    if output and output.exists() and output.resolve().suffix.lower() in IMAGE_EXTENSIONS:  # one that a list names
        raise UsageError(f"{str(output)!r} would replace an image; name another file")


def _document(names: Names, data: Path, part: str, compared: "Compared") -> dict[str, Any]:
    comparison = compared.comparison
    head = {"model_a": names[0], "model_b": names[1], "data": str(data), "part": part}
    counts = {"num_unreadable": compared.num_unreadable, "num_trained_on": list(compared.num_trained_on)}
    engines = {"engines": [engine.to_json() for engine in compared.engines]}
    known = compared.known
    left_out = {"num_left_out": known.num_left_out, "labels_left_out": list(known.labels_left_out)}
    only = {"only_a": list(compared.only[0]), "only_b": list(compared.only[1])}
    figures = comparison.to_json() | {"conclusion": compared.conclusion(*names)}
    return head | engines | counts | left_out | only | figures


def _show_progress(names: Names, replace_words: Callable[[str], None]) -> "Emit":
    """Shows the progress of both models: on a terminal as it goes, elsewhere when each is done."""

    def show(event: dict[str, Any]) -> None:
        if event["event"] == "note":
            replace_words(event["text"])
            return
        done, total = event["num_done"], event["num_images"]
        name = names["ab".index(event["model"])]
        line = f"{name}: {done:,}/{total:,} images"
        replace_words(line)
        if sys.stderr.isatty():
            redraw_line(line if done < total else "")
        elif done == total:
            print_message(line)

    return show


def _print_warnings(names: Names, compared: "Compared") -> None:
    num_images = compared.comparison.num_images
    for name, num_trained_on in zip(names, compared.num_trained_on, strict=True):
        if num_trained_on:
            warning = (
                f"{name} was trained on {num_trained_on:,} of these {num_images:,} images, so its figures are too good"
            )
            print_message(f"{warning}; --part test leaves out those of A", color="yellow")
    for name, lacks_record in zip(names, compared.lacks_record, strict=True):
        if lacks_record:
            unknown = f"{name} has no record of its training images (an export carries none)"
            print_message(f"{unknown}: if some of these are among them, its figures are too good", color="yellow")
    for name, labels in zip(names, compared.only, strict=True):
        if labels:
            shown = ", ".join(map(repr, labels[:SHOWN])) + (", ..." if len(labels) > SHOWN else "")
            print_message(f"only {name} knows {shown}: no image of these labels is compared", color="yellow")
    if compared.num_unreadable == 1:
        print_message("1 image cannot be read and is left out", color="yellow")
    elif compared.num_unreadable:
        print_message(f"{compared.num_unreadable:,} images cannot be read and are left out", color="yellow")


def _print(names: Names, compared: "Compared") -> None:
    comparison = compared.comparison
    print_table(
        (f"{comparison.num_images:,} images", *names),
        [(what, _of(comparison.a), _of(comparison.b)) for what, _of in _FIGURES],
    )
    print_line()
    _print_classes(names, comparison)
    _print_flips(names, "worse", comparison.worse)
    _print_flips(names, "better", comparison.better)
    for name, engine in zip(names, compared.engines, strict=True):
        print_line(f"{name} by {engine.engine}: {engine.describe()}")
    print_line(compared.conclusion(*names))


_FIGURES: tuple[tuple[str, "Callable[[ModelFigures], str]"], ...] = (
    ("right", lambda side: f"{side.num_right:,}"),
    ("accuracy", lambda side: f"{side.accuracy:.4f}"),
    ("accuracy, 95 %", lambda side: "{:.4f} to {:.4f}".format(*side.accuracy_interval)),
    ("review rate", lambda side: "-" if side.review_rate is None else f"{side.review_rate:.4f}"),
    ("reject rate", lambda side: "-" if side.reject_rate is None else f"{side.reject_rate:.4f}"),
    ("accepted, wrong", lambda side: "-" if side.num_accepted_wrong is None else f"{side.num_accepted_wrong:,}"),
)


def _print_classes(names: Names, comparison: "Comparison") -> None:
    """Labels on which the models differ, the largest difference first."""
    differing = [each for each in comparison.classes if each.num_right_a != each.num_right_b]
    if not differing:
        return
    differing.sort(key=lambda each: -abs(each.num_right_b - each.num_right_a))
    print_table(
        ("label", "images", f"{names[0]} right", f"{names[1]} right", "change"),
        [
            (
                each.label,
                each.num_images,
                each.num_right_a,
                each.num_right_b,
                f"{each.num_right_b - each.num_right_a:+}",
            )
            for each in differing[:SHOWN]
        ],
    )
    _print_more(len(differing), "labels")


def _print_flips(names: Names, how: str, flips: Sequence["Flip"]) -> None:
    """Images on which B does worse, or better, than A."""
    if not flips:
        return
    title = f"{len(flips):,} {'image' if len(flips) == 1 else 'images'} {how} with {names[1]}"
    print_table(
        (title, "label", *names),
        [(flip.name, flip.label, flip.predicted_a, flip.predicted_b) for flip in flips[:SHOWN]],
    )
    _print_more(len(flips), "images")


def _print_more(number: int, what: str) -> None:
    if number > SHOWN:
        print_line(f"... and {number - SHOWN:,} more {what}; --json has all")
    print_line()
