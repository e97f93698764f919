"""The demo of jobs: train on generated glyphs and read a scanned page, with a real server and a real worker."""

import shlex
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from modeling.registry.store import ModelStore
from orchestrator.cli.demo.own_stack import clear, own_settings, run_to_success
from orchestrator.cli.output import duration, print_json, print_line, print_message
from orchestrator.contract.jobs.rows import summary_path
from orchestrator.contract.settings import Settings
from orchestrator.demo.story import Conclusion, Prepared, conclude, prepare
from orchestrator.jobs.prepare import prepare as prepare_job
from orchestrator.jobs.results import find_published
from orchestrator.jobs.specs import ClassifySpec, TrainSpec
from orchestrator.jobs.submit import JobClient
from orchestrator.stack.stack import Stack

MODEL = "characters"
EPOCHS = 12  # fewer than the recipe's, which suits data sets that are ten times as large


def run_page_demo(output: Path, seed: int, *, as_json: bool) -> None:
    """Run the demo in a folder that is empty, or of an earlier demo, and print its result."""
    started = time.monotonic()
    clear(output)
    settings = own_settings(output)
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
        model = run_to_success(client, client.submit(prepare_job(settings, training)).job)
        print_message("3/4  classifying the page's characters through the queue")
        manifest = output / "characters.csv"
        spec = ClassifySpec(str(prepared.characters), model.result, output=manifest)
        run_to_success(client, client.submit(prepare_job(settings, spec)).job)
        print_message("4/4  joining the answers to text")
        rows = list(find_published(settings, str(manifest)).rows())
        conclusion = conclude(prepared, [(row.prediction.labels, row.prediction.scores) for row in rows])
    finally:
        stack.down()
    facts = _facts(prepared, conclusion, manifest, settings, model.result, time.monotonic() - started)
    print_json(facts) if as_json else _print_result(conclusion, facts)


def _facts(
    prepared: Prepared, conclusion: Conclusion, manifest: Path, settings: Settings, model: str, elapsed_s: float
) -> dict[str, object]:
    version = ModelStore(settings.models).resolve(model)
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
        "model": str(version.path),
        "import": shlex.join(["pigeonhole", "models", "import", _near(version.path), "--name", version.name]),
        "read": shlex.join(["pigeonhole", "read", _near(prepared.scan), "--model", version.name]),
    }


def _near(path: Path) -> str:
    """The path as short as the present folder allows."""
    present = Path.cwd()
    return str(path.relative_to(present) if path.is_relative_to(present) else path)


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
    print_line("use the model for pages of your own:", bold=True)
    for name in ("import", "read"):
        print_line(f"  {facts[name]}")
