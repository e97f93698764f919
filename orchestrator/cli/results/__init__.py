"""`pigeonhole results ...`."""

import click

from orchestrator.cli.lazy import LazyCommand, LazyGroup

COMMANDS = {
    "show": LazyCommand("results.show:show", "Show the counts and the first rows of a manifest."),
    "errors": LazyCommand("results.show:errors", "Show which images failed, and why."),
    "diff": LazyCommand("results.diff:diff", "Show what differs between two manifests of one source."),
    "sheet": LazyCommand("results.sheet:sheet", "Write a contact sheet: one HTML file with a picture of each image."),
    "verify": LazyCommand(
        "results.verify:verify_results", "Verify a manifest: rows, counts, checksums, listing and model."
    ),
    "duplicates": LazyCommand("results.duplicates:duplicates", "Find images that show the same picture."),
    "sort": LazyCommand("results.sort:sort_results", "Sort the images into folders by label or decision."),
    "unsort": LazyCommand("results.sort:unsort_results", "Undo a sort: every image is where it was."),
    "export": LazyCommand("results.export:export_results", "Write the answers for other programs."),
}


@click.group(cls=LazyGroup, table=COMMANDS)
def results() -> None:
    """Show, verify and filter a job's manifest. JOB is a job's id or a manifest's path."""
