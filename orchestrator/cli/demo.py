"""`pigeonhole demo`: train on generated glyphs and read a scanned page, with a real server and a real worker."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from modeling.durable import target_of
from modeling.registry.store import ModelStore
from orchestrator.cli.output import duration, json_option, print_json, print_line, print_message
from orchestrator.contract.errors import PigeonholeError, UsageError
from orchestrator.contract.jobs.rows import summary_path
from orchestrator.contract.ledger.ledger import JobRecord
from orchestrator.contract.settings import Settings
from orchestrator.demo.story import Conclusion, Prepared, conclude, prepare
from orchestrator.jobs.prepare import prepare as prepare_job
from orchestrator.jobs.results import find_published
from orchestrator.jobs.specs import ClassifySpec, TrainSpec
from orchestrator.jobs.submit import JobClient
from orchestrator.stack.stack import Stack

MARKER = ".pigeonhole-demo"  # marks a folder that a demo made and may replace
MODEL = "characters"
EPOCHS = 12  # fewer than the recipe's, which suits data sets that are ten times as large


@click.command()
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, file_okay=False), default=Path("demo-output"), show_default=True,
    help="Folder for all files of the demo; that of an earlier demo is replaced.",
)  # fmt: skip
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed of the page and the scan."
)
@json_option
def demo(output: Path, seed: int, as_json: bool) -> None:
    """Print a page, scan it askew, and read it back with a classifier trained on other fonts.

    Training and classification use a server and a worker of the demo's own, which are stopped at the end.

    \b
    Example:
      pigeonhole demo
    """
    started = time.monotonic()
    output = target_of(Path.cwd() / output)
    _clear(output)
    settings = Settings(home=output / "home", server_url=None)
    stack = Stack(settings)
    try:
        with ThreadPoolExecutor(1) as background:
            starting = background.submit(stack.up, ["cpu"])
            print_message("1/4  printing a page in six lines of fonts, scanning it askew, cutting it into characters")
            prepared = prepare(output, seed)
            starting.result()
        print_message(
            f"     {prepared.num_glyphs} glyphs in other fonts to train on, {len(prepared.cut.characters)} to read"
        )
        client = JobClient(settings)
        print_message("2/4  training a character classifier through the queue")
        training = TrainSpec(prepared.glyphs, MODEL, {"architecture": "cnn", "epochs": EPOCHS})
        model = _run(client, client.submit(prepare_job(settings, training)).job)
        print_message("3/4  classifying the page's characters through the queue")
        manifest = output / "characters.csv"
        spec = ClassifySpec(str(prepared.characters), model.result, output=manifest)
        _run(client, client.submit(prepare_job(settings, spec)).job)
        print_message("4/4  joining the answers to text")
        rows = list(find_published(settings, str(manifest)).rows())
        conclusion = conclude(prepared, [(row.prediction.labels, row.prediction.scores) for row in rows])
    finally:
        stack.down()
    facts = _facts(prepared, conclusion, manifest, settings, model.result, time.monotonic() - started)
    print_json(facts) if as_json else _print_result(conclusion, facts)


def _clear(output: Path) -> None:
    """Make the output folder; that of an earlier demo is replaced, any other is refused."""
    if (output / MARKER).exists():
        Stack(Settings(home=output / "home", server_url=None)).down()
        shutil.rmtree(output)
    elif output.exists() and any(output.iterdir()):
        raise UsageError(f"{str(output)!r} holds other files; name another folder with --output")
    output.mkdir(parents=True, exist_ok=True)
    (output / MARKER).touch()


def _run(client: JobClient, job: str) -> JobRecord:
    """Follow a job to its end. Raises PigeonholeError where it did not succeed."""
    from orchestrator.cli.progress import follow_to_end

    record = follow_to_end(client, job)
    if record.state != "succeeded":
        raise PigeonholeError(f"job {job} of the demo ended as {record.state}: {record.error}")
    return record


def _facts(
    prepared: Prepared, conclusion: Conclusion, manifest: Path, settings: Settings, model: str, elapsed_s: float
) -> dict[str, object]:
    return {
        "character_accuracy": round(conclusion.accuracy, 4),
        "character_accuracy_by_shape": round(conclusion.accuracy_by_shape, 4),
        "num_characters": conclusion.num_characters,
        "num_doubtful": conclusion.num_doubtful,
        "seconds": round(elapsed_s, 1),
        "text": conclusion.recognised,
        "scan": str(prepared.scan),
        "picture": str(conclusion.picture),
        "manifest": str(manifest),
        "summary": str(summary_path(manifest)),
        "model": str(ModelStore(settings.models).resolve(model).path),
    }


def _print_result(conclusion: Conclusion, facts: dict[str, object]) -> None:
    print_line()
    for line in conclusion.side_by_side:
        print_line(line)
    print_line()
    print_line(
        f"{conclusion.num_characters} characters, {conclusion.accuracy:.1%} read correctly "
        f"({conclusion.accuracy_by_shape:.1%} by shape alone, without neighbouring characters), "
        f"{conclusion.num_doubtful} doubtful, {duration(float(str(facts['seconds'])))}",
        bold=True,
    )
    for name in ("picture", "manifest", "summary", "model"):
        print_line(f"  {name:10}{facts[name]}")
