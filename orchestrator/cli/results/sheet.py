"""`pigeonhole results sheet`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.item_progress import item_progress
from orchestrator.cli.output import (
    cleaned_up_when_terminated,
    json_option,
    print_json,
    print_line,
    print_message,
    size_text,
)
from orchestrator.cli.outputs import overwrite_option, written_output
from orchestrator.cli.results.options import warn_of_changes, where_option
from orchestrator.contract.errors import UsageError
from orchestrator.jobs.where import Where

if TYPE_CHECKING:
    from orchestrator.jobs.results import Published
    from orchestrator.sheets.select import By, Wanted
    from orchestrator.sheets.sheet import SheetFacts

MOST_PICTURES = 5000  # a page of more is beyond what a phone can show
_SUFFIXES = (".html", ".htm")


@click.command()
@click.argument("job")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The file to write: FILE.html.")
@where_option
@click.option("--by", type=click.Choice(["label", "decision"]), help="Group the pictures.")
@click.option(
    "--limit", type=click.IntRange(1, MOST_PICTURES), default=500, show_default=True,
    help="Pictures to show: the first ones; with --by, shared among the groups.",
)  # fmt: skip
@overwrite_option
@json_option
def sheet(
    job: str, output: Path, where: Where | None, by: "By | None", limit: int, overwrite: bool, as_json: bool
) -> None:
    """Write a contact sheet of JOB's manifest: one HTML file that shows its images with their answers.

    The images are read where the job read them; one that is gone has its reason in the place of its picture.

    \b
    Examples:
      pigeonhole results sheet birds.csv -o birds.html
      pigeonhole results sheet birds.csv --where decision=review --by label -o review.html
    """
    from orchestrator.contract.settings import get_settings
    from orchestrator.jobs.results import find_published
    from orchestrator.sheets.select import Wanted

    published = find_published(get_settings(), job)
    _check_output(output, published, overwrite=overwrite)
    warn_of_changes(published)
    facts = _write(published, output, Wanted(where, by, limit), overwrite=overwrite)
    if as_json:
        print_json({"sheet": str(output), "bytes": output.stat().st_size, **asdict(facts)})
        return
    if not facts.num_fitting:
        print_message("no row fits, and the sheet is empty", color="yellow")
    for code, num in facts.without_picture.most_common():
        print_message(f"{num:,} without a picture: {code}", color="yellow")
    of = f" of {facts.num_fitting:,}" if facts.num_fitting > facts.num_shown else ""
    print_line(f"{output}: {facts.num_shown:,}{of} images, {size_text(output.stat().st_size)}")


def _check_output(output: Path, published: "Published", *, overwrite: bool) -> None:
    """Raises UsageError for an output whose name is not that of a page, or that cannot be written."""
    from modeling.durable import target_of
    from orchestrator.jobs.derived_outputs import check_derived_file

    if output.suffix.lower() not in _SUFFIXES or target_of(output).suffix.lower() not in _SUFFIXES:
        raise UsageError(f"{str(output)!r} does not end in {' or '.join(_SUFFIXES)}; the sheet is a page of HTML")
    check_derived_file(output, published, overwrite=overwrite)


def _write(published: "Published", output: Path, wanted: "Wanted", *, overwrite: bool) -> "SheetFacts":
    from orchestrator.contract.settings import get_settings
    from orchestrator.jobs.row_images import image_root
    from orchestrator.sheets.sheet import write_sheet
    from orchestrator.sheets.thumbnails import ImageSource

    settings = get_settings()
    source = ImageSource(image_root(published), settings.max_file_bytes, settings.max_pixels)
    with (
        cleaned_up_when_terminated(),
        written_output(output, overwrite=overwrite) as file,
        item_progress("making the sheet") as progress,
    ):
        return write_sheet(published, wanted, source, file, progress)
