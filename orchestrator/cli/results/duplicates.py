"""`pigeonhole results duplicates`."""

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from modeling.names import path_to_text
from orchestrator.cli.item_progress import item_progress
from orchestrator.cli.output import cleaned_up_when_terminated, json_option, print_json, print_line, print_message
from orchestrator.cli.outputs import overwrite_option, written_output
from orchestrator.cli.results.options import warn_of_changes, where_option
from orchestrator.cli.speaking import doing
from orchestrator.contract.errors import PigeonholeError, UsageError
from orchestrator.jobs.where import Where

if TYPE_CHECKING:
    from orchestrator.duplicates.groups import Found, Group
    from orchestrator.jobs.results import Published

_IMAGES_SHOWN = 5  # of a group


@click.command()
@click.argument("job")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE.csv|FILE.json", help="Write all groups there."
)
@click.option(
    "--sheet", type=click.Path(path_type=Path), metavar="FILE.html", help="Show the first groups as pictures."
)
@click.option("--limit", type=click.IntRange(min=0), default=20, show_default=True, help="Groups to print; 0: all.")
@where_option
@overwrite_option
@json_option
def duplicates(
    job: str, output: Path | None, sheet: Path | None, limit: int, where: Where | None, overwrite: bool, as_json: bool
) -> None:
    """Find images of JOB's manifest that show the same picture: exact copies, and near ones.

    Every image is read again, where the manifest says it lies; nothing is written to the source.

    \b
    Examples:
      pigeonhole results duplicates birds.csv
      pigeonhole results duplicates birds.csv -o groups.csv --sheet duplicates.html
      pigeonhole results duplicates birds.csv --where label=robin
      pigeonhole results duplicates c261123-143355-7f3a2b -o groups.json --limit 0 --json
    """
    from orchestrator.contract.home import scratch_folder
    from orchestrator.contract.settings import get_settings
    from orchestrator.duplicates.groups import describe, groups_of, write_groups
    from orchestrator.jobs.results import find_published

    settings = get_settings()
    published = find_published(settings, job)
    _check_outputs(published, output, sheet, overwrite=overwrite)
    warn_of_changes(published)
    with cleaned_up_when_terminated(), published.manifest.open("rb") as file:
        found = _find(published, file, scratch_folder(settings), where)
        if output is not None:
            with written_output(output, overwrite=overwrite) as written:
                write_groups(written, output.suffix, published, file, found)
        if sheet is not None:
            _write_sheet(published, file, found, sheet, overwrite=overwrite)
        shown = list(islice(groups_of(published, file, found), limit or None))
    facts = describe(published, found)
    if as_json:
        print_json(facts | {"groups": [group.to_json() for group in shown]})
    else:
        _print(facts, shown, [path for path in (output, sheet) if path is not None])
    if facts["num_images"] and facts["num_unreadable"] == facts["num_images"]:
        raise PigeonholeError(f"no image of {published.manifest} could be read: {_codes(facts)}")


def _check_outputs(published: "Published", output: Path | None, sheet: Path | None, *, overwrite: bool) -> None:
    from orchestrator.jobs.derived_outputs import check_derived_file

    for path, suffixes in ((output, (".csv", ".json")), (sheet, (".html", ".htm"))):
        if path is None:
            continue
        if path.suffix.lower() not in suffixes:
            raise UsageError(f"output {str(path)!r} does not end in {' or '.join(suffixes)}")
        check_derived_file(path, published, overwrite=overwrite)


def _find(published: "Published", file: BinaryIO, scratch: Path, where: Where | None) -> "Found":
    from orchestrator.duplicates.find import read_images

    with item_progress("reading images") as progress:
        images = read_images(published, file, scratch, progress, where)
    with doing(f"comparing {len(images.places):,} images"):
        return images.group()


def _write_sheet(published: "Published", file: BinaryIO, found: "Found", sheet: Path, *, overwrite: bool) -> None:
    from orchestrator.contract.settings import get_settings
    from orchestrator.duplicates.sheet import write_sheet
    from orchestrator.jobs.row_images import image_root
    from orchestrator.sheets.thumbnails import ImageSource

    settings = get_settings()
    source = ImageSource(image_root(published), settings.max_file_bytes, settings.max_pixels)
    with written_output(sheet, overwrite=overwrite) as written, item_progress("making the sheet") as progress:
        write_sheet(published, file, found, source, written, progress)


def _print(facts: Mapping[str, Any], shown: list["Group"], written: list[Path]) -> None:
    from orchestrator.duplicates.groups import groups_text

    exact, near = facts["num_exact_groups"], facts["num_near_groups"]
    print_message(
        f"{facts['num_images']:,} images: {groups_text(exact)} of exact duplicates, {groups_text(near)} of near ones; "
        f"{facts['num_redundant']:,} beyond the first of their group"
    )
    if facts["num_look_alikes"]:
        print_message(
            f"{facts['num_look_alikes']:,} images look so alike that near duplicates among them cannot be told",
            color="yellow",
        )
    if facts["num_unreadable"]:
        print_message(f"{facts['num_unreadable']:,} images could not be read: {_codes(facts)}", color="yellow")
    for group in shown:
        paths = [path_to_text(row.path) for row in group.rows]
        more = f" and {len(paths) - _IMAGES_SHOWN:,} more" if len(paths) > _IMAGES_SHOWN else ""
        print_line((" = " if group.kind == "exact" else " ~ ").join(paths[:_IMAGES_SHOWN]) + more)
    if exact + near > len(shown):
        print_message(f"... and {groups_text(exact + near - len(shown))} more; -o FILE.csv writes all of them")
    for path in written:
        print_message(f"written: {path}")


def _codes(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{num:,} {code}" for code, num in facts["unreadable"].items())
