"""`pigeonhole results export`."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from modeling.names import path_to_text
from orchestrator.cli.item_progress import item_progress
from orchestrator.cli.output import cleaned_up_when_terminated, json_option, print_json, print_message
from orchestrator.cli.outputs import overwrite_option, written_output
from orchestrator.cli.results.options import warn_of_changes, where_option
from orchestrator.export.targets import TARGETS, Target

if TYPE_CHECKING:
    from orchestrator.export.export import Exported, ExportSpec
    from orchestrator.jobs.where import Where


@click.command("export")
@click.argument("job")
@click.option("--to", "target", type=click.Choice(TARGETS), required=True, help="What is to read it.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="OUT",
    required=True,
    help="The file; a folder for ultralytics.",
)
@where_option
@click.option(
    "--prefix", help="What stands before each path in label-studio, cvat and coco, such as s3://bucket/photos/."
)
@click.option("--excel", is_flag=True, help="CSV that Excel opens as UTF-8: with a byte order mark and CRLF.")
@overwrite_option
@json_option
def export_results(
    job: str,
    where: "Where | None",
    target: Target,
    output: Path,
    prefix: str | None,
    excel: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write JOB's answers for other programs: annotation tools, data sets, spreadsheets.

    \b
    Examples:
      pigeonhole results export birds.csv --to label-studio -o tasks.json --where decision=review
      pigeonhole results export birds.csv --to cvat -o annotations.xml
      pigeonhole results export birds.csv --to ultralytics -o dataset --where decision=accept
      pigeonhole results export birds.jsonl --to csv --excel -o birds-excel.csv
    """  # fmt: skip
    from orchestrator.contract.settings import get_settings
    from orchestrator.export.export import ExportSpec, check_export, export
    from orchestrator.export.rows import RowSelection
    from orchestrator.jobs.results import find_published

    selection = RowSelection(find_published(get_settings(), job), where)
    spec = ExportSpec(target, output, prefix, excel, overwrite)
    check_export(spec, selection)
    warn_of_changes(selection.published)
    with cleaned_up_when_terminated(), item_progress("exporting") as progress:
        exported = export(spec, selection, partial(written_output, overwrite=overwrite), progress)
    _print(exported, spec, as_json=as_json)


def _print(exported: "Exported", spec: "ExportSpec", *, as_json: bool) -> None:
    from orchestrator.export.tables import MOST_ROWS

    files = [path_to_text(str(file)) for file in exported.files]
    print_message(f"{exported.num_images:,} images are in {' and '.join(files)}")
    if exported.left_out:
        reasons = ", ".join(f"{num:,} {why}" for why, num in exported.left_out.items())
        print_message(f"left out: {reasons}", color="yellow")
    if exported.num_altered:
        print_message(
            f"{exported.num_altered:,} names are not UTF-8 or hold control characters, which are written as \\xNN: "
            "a reader will not find these images; rename them",
            color="yellow",
        )
    if spec.excel and exported.num_images >= MOST_ROWS:
        print_message(f"Excel shows the first {MOST_ROWS - 1:,} images only; take fewer with --where", color="yellow")
    if as_json:
        facts = {"num_images": exported.num_images, "left_out": exported.left_out}
        print_json({"to": spec.target, "files": files} | facts | {"num_altered": exported.num_altered})
