"""`pigeonhole scan`."""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from modeling.data.layout import Layout
from modeling.errors import DataError
from orchestrator.cli.item_progress import item_progress
from orchestrator.cli.output import duration, json_option, print_json, print_line, print_message, print_table
from orchestrator.cli.parameters import layout_option
from orchestrator.contract.errors import ExitCode, PigeonholeError, UsageError

_COLORS = {"error": "red", "warning": "yellow", "info": "cyan"}
_KINDS = {
    "folders": "a folder per class",
    "part_folders": "part folders of classes",
    "idx": "idx files",
    "cifar10": "CIFAR-10's binary files",
    "list": "a list",
    "manifest": "a manifest",
    "joined": "several data sets",
}
_SHOWN_CLASSES = 20
_SHOWN_DUPLICATES = 5
_BAR_WIDTH = 30


@click.command()
@click.argument("data", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--quarantine", "quarantine", type=click.Path(dir_okay=False, path_type=Path),
    help="CSV for the images to check: unreadable, duplicate, in two classes, blank.",
)  # fmt: skip
@layout_option
@json_option
def scan(data: tuple[Path, ...], quarantine: Path | None, layout: Layout | None, as_json: bool) -> None:
    """Check training DATA: unreadable images, duplicates, classes with too few images.

    DATA is as for `pigeonhole train`: a folder per class, folders train and test of such, MNIST idx files,
    CIFAR-10's binary files, a .csv, .tsv, .jsonl or .json of path,label, or a corrected manifest. Several count
    together. They are only read. Exit 1 if they cannot be trained on.

    \b
    Examples:
      pigeonhole scan photos/
      pigeonhole scan photos/ --quarantine suspects.csv
      pigeonhole scan labels.csv --json
      pigeonhole scan photos/ corrected.csv
    """
    from modeling.data.forms.joined import open_datasets
    from modeling.data.scan import scan_dataset
    from orchestrator.contract.home import cache_folder
    from orchestrator.contract.settings import get_settings

    if quarantine is not None:
        for path in data:
            _check_quarantine(quarantine, path)
    started = time.monotonic()
    try:
        with item_progress("scanning") as show:

            def emit(event: dict[str, Any]) -> None:
                if event["event"] == "scan":
                    show(event["num_done"], event["num_images"])

            report = scan_dataset(open_datasets(data, layout), emit, cache_folder(get_settings()))
    except DataError as err:
        raise PigeonholeError(str(err)) from err  # the exit code is 1, as for data that the scan finds not trainable
    shown = report.to_json()
    if as_json:
        print_json(shown)
    else:
        _print_report(shown, time.monotonic() - started)
    if quarantine is not None:
        print_message(f"{report.write_quarantine(quarantine):,} rows to check are in {quarantine}")
    sys.exit(ExitCode.OK if shown["trainable"] else ExitCode.FAILED)


def _check_quarantine(file: Path, data: Path) -> None:
    """Refuse to write into the data, or into a folder that does not exist, before a long scan."""
    if data.is_dir() and file.resolve().is_relative_to(data.resolve()):
        raise UsageError(f"{str(file)!r} is inside the data, which are never written to; give a file elsewhere")
    if file.resolve() == data.resolve():
        raise UsageError(f"{str(file)!r} is the data file; give another file")
    if not file.resolve().parent.is_dir():
        raise UsageError(f"there is no folder {str(file.parent)!r} for the list; make it first")


def _print_report(shown: Mapping[str, Any], elapsed_s: float) -> None:
    classes = shown["classes"]
    print_line(f"{shown['num_images']:,} images in {len(classes):,} classes", bold=True, nl=False)
    print_line(f" ({_KINDS[shown['kind']]}, {duration(elapsed_s)})")
    _print_kinds(shown)
    print_line()
    _print_classes(classes)
    if shown["findings"]:
        print_line()
    for finding in shown["findings"]:
        severity = finding["severity"]
        print_line(f"{severity:>7}  ", color=_COLORS[severity], bold=severity != "info", nl=False)
        print_line(finding["message"])
    _print_duplicates(shown["duplicates"], shown["num_exact_duplicate_sets"] + shown["num_near_duplicate_sets"])
    print_line()
    if shown["trainable"]:
        print_line("ready to train", color="green", bold=True)
    else:
        print_line("cannot be trained on", color="red", bold=True)


def _print_kinds(shown: Mapping[str, Any]) -> None:
    for name in ("parts", "formats", "modes"):
        if shown[name]:
            print_line(f"{name}: " + ", ".join(f"{count:,} {kind}" for kind, count in shown[name].items()))
    sizes = shown["sizes"]
    if sizes and sizes["num_distinct"] == 1:
        print_line(f"sizes: all {sizes['median']}")
    elif sizes:
        print_line(f"sizes: {sizes['smallest']} to {sizes['largest']}, median {sizes['median']}")


def _print_classes(classes: Mapping[str, int]) -> None:
    """Readable images of each class, the largest first, with bars."""
    ordered = sorted(classes.items(), key=lambda pair: (-pair[1], pair[0]))
    largest = max(ordered[0][1], 1)
    rows = [(label, f"{count:,}", "█" * round(_BAR_WIDTH * count / largest)) for label, count in ordered]
    if len(rows) > _SHOWN_CLASSES:
        half = _SHOWN_CLASSES // 2
        rows = [*rows[:half], (f"... {len(rows) - 2 * half:,} more", "", ""), *rows[-half:]]
    print_table(("class", "images", ""), rows)


def _print_duplicates(sets: Sequence[Mapping[str, Any]], num_sets: int) -> None:
    """The first sets of duplicates; those in several classes come first."""
    if not sets:
        return
    print_line()
    print_line("duplicates", bold=True)
    for found in sorted(sets, key=lambda found: -len(found["labels"]))[:_SHOWN_DUPLICATES]:
        images = found["images"]
        more = f" and {len(images) - 3:,} more" if len(images) > 3 else ""
        equals = " = " if found["exact"] else " ~ "
        print_line(f"  {equals.join(images[:3])}{more}", color="yellow" if len(found["labels"]) > 1 else None)
    if num_sets > _SHOWN_DUPLICATES:
        print_line(f"  ... and {num_sets - _SHOWN_DUPLICATES:,} more sets; --quarantine FILE lists all of them")
