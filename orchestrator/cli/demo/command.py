"""`pigeonhole demo`: which demo runs, and where its files go."""

from pathlib import Path

import click

from orchestrator.cli.output import cleaned_up_when_terminated, json_option

PAGE_OUTPUT, LINE_OUTPUT = Path("demo-output"), Path("demo-line-output")


@click.command()
@click.option(
    "--line",
    is_flag=True,
    help="Show a line instead: half a minute of postcards on a belt, a worker killed and a model replaced meanwhile.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help=f"Folder for all files of the demo; that of an earlier demo is replaced. Default: {PAGE_OUTPUT}; "
    f"with --line {LINE_OUTPUT}.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Random seed of the page and the scan, or of the postcards.",
)
@json_option
def demo(line: bool, output: Path | None, seed: int, as_json: bool) -> None:
    """Print a page, scan it askew, and read it back with a classifier trained on other fonts.

    With --line: sort postcards that pass a camera, each with an answer before it reaches the gate, and account for
    every one. Training and classification use a server and workers of the demo's own, which are stopped at the end.

    \b
    Examples:
      pigeonhole demo
      pigeonhole demo --line
    """
    from modeling.durable import target_of

    folder = target_of(Path.cwd() / (output or (LINE_OUTPUT if line else PAGE_OUTPUT)))
    with cleaned_up_when_terminated():
        if line:
            from orchestrator.cli.demo.line_report import run_line_demo

            run_line_demo(folder, seed, as_json=as_json)
        else:
            from orchestrator.cli.demo.page import run_page_demo

            run_page_demo(folder, seed, as_json=as_json)
