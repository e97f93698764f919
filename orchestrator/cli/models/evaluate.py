"""`pigeonhole models evaluate`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modeling.data.layout import PARTS, DataPart, Layout
from modeling.inference.engines.precision import WANTED_PRECISIONS, WantedPrecision
from modeling.metrics.evaluation import EngineFigures
from modeling.metrics.verdict import EvaluationVerdict
from modeling.names import text_to_path
from orchestrator.cli.client import submit_and_follow
from orchestrator.cli.output import json_option, print_json, print_line, print_table
from orchestrator.cli.parameters import layout_option, notify_option, priority_option
from orchestrator.contract.errors import IntegrityError
from orchestrator.contract.ledger.record import JobRecord
from orchestrator.contract.ledger.words import Priority

if TYPE_CHECKING:
    from orchestrator.contract.settings import Settings

WORST_CLASSES = 5  # shown; the report has all
ABSENT_SHOWN = 10  # classes without images; the JSON has all


@click.command("evaluate")
@click.argument("model")
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path),
    help="The folder to create for figures, predictions and report; default: one in the job's folder.",
)  # fmt: skip
@click.option(
    "--part", type=click.Choice(PARTS), default="all", show_default=True,
    help="Use only the images of this part of the model's training split, or of DATA's own parts.",
)  # fmt: skip
@click.option(
    "--precision", type=click.Choice(WANTED_PRECISIONS), default="auto", show_default=True,
    help="Number format of the network, as for `classify`; auto: the one that jobs use.",
)  # fmt: skip
@layout_option
@click.option("--idempotency-key", help="Submit only once, however often the command is repeated with the same key.")
@priority_option
@notify_option
@click.option("--detach", is_flag=True, help="Print the job's id and return immediately.")
@json_option
def evaluate_model(
    model: str,
    data: Path,
    output: Path | None,
    part: DataPart,
    precision: WantedPrecision,
    layout: Layout | None,
    idempotency_key: str | None,
    priority: Priority,
    notify: str | None,
    detach: bool,
    as_json: bool,
) -> None:
    """Evaluate MODEL on DATA, labelled images as for `pigeonhole train`.

    A worker runs the evaluation with the engine that classify jobs use. The result is a folder with evaluation.json,
    predictions.csv, report.html and plots. Images of labels that MODEL does not know are left out, and counted. The
    figures name the engine, and how much its answers differ from those of torch in fp32.

    \b
    Examples:
      pigeonhole models evaluate birds@champion new-photos/
      pigeonhole models evaluate birds@2 photos/ --part test -o birds-2-test
      pigeonhole models evaluate birds photos/ --json
    """
    from orchestrator.jobs.specs import EvaluateSpec

    spec = EvaluateSpec(model, data, output, part, precision, layout, idempotency_key, notify, not detach, priority)
    submit_and_follow(spec, _show_evaluation, detach=detach, as_json=as_json)


def _show_evaluation(settings: "Settings", record: JobRecord, as_json: bool) -> None:
    from modeling.durable import decode_json
    from orchestrator.jobs.follow import to_json

    if record.state != "succeeded":
        if as_json:
            print_json(to_json(settings, record))
        return
    folder = Path(text_to_path(record.result))
    path = folder / "evaluation.json"
    figures = decode_json(path.read_bytes(), str(path), error=IntegrityError)
    if as_json:
        print_json(figures)
    else:
        try:
            print_figures(figures)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as err:
            raise IntegrityError(f"{path} is not an evaluation of this release: {err!r}") from err
        print_line()
        print_line(f"report  {folder / 'report.html'}")


def print_figures(figures: Mapping[str, Any]) -> None:
    """Print the main figures of an `evaluation.json`."""
    part = "" if figures["part"] == "all" else f", {figures['part']} part"
    print_line(f"{figures['model']} on {figures['data']}{part}: {figures['num_images']:,} images{_left_out(figures)}")
    print_line()
    for name, text in _facts(figures):
        print_line(f"{name:14}  {text}")
    rows = _worst_classes(figures)
    if rows:
        print_line()
        print_table(("worst classes", "images", "recall", "precision", "most often taken for"), rows)


def _left_out(figures: Mapping[str, Any]) -> str:
    """The images that no figure has, as the model does not know their labels."""
    num, labels = figures["num_left_out"], figures["labels_left_out"]
    shown = ", ".join(labels[:ABSENT_SHOWN]) + (", ..." if len(labels) > ABSENT_SHOWN else "")
    return f"; {num:,} more left out, of labels that the model does not know: {shown}" if num else ""


def _facts(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    low, high = figures["accuracy_interval"]
    facts = [("accuracy", f"{figures['accuracy']:.4f}  ({low:.4f} to {high:.4f} with 95 % confidence)")]
    facts += [(f"top-{k}", f"{share:.4f}") for k, share in figures["top_k"].items()]
    facts.append(("macro F1", f"{figures['macro_f1']:.4f}"))
    calibrated = figures["decisions"] is not None
    before = f"  ({figures['raw_ece']:.4f} before calibration)" if calibrated else "  (the model is not calibrated)"
    facts.append(("ECE", f"{figures['ece']:.4f}{before}"))
    facts += _decisions(figures) if calibrated else []
    if absent := figures["classes_without_images"]:
        more = ", ..." if len(absent) > ABSENT_SHOWN else ""
        facts.append(("not measured", f"no images of {', '.join(map(repr, absent[:ABSENT_SHOWN]))}{more}"))
    engine = EngineFigures.from_json(figures)
    return [*facts, ("engine", f"{engine.engine}: {engine.describe()}")]


def _decisions(figures: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The effect of the model's thresholds on these images."""
    decisions, num_images = figures["decisions"], figures["num_images"]
    accepted = EvaluationVerdict.from_json(figures).accepted
    return [
        ("accepted", accepted.removeprefix("accepted ")),
        ("to review", f"{decisions['num_reviewed'] / num_images:.2%}"),
        ("rejected", f"{decisions['num_rejected'] / num_images:.2%}"),
    ]


def _worst_classes(figures: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The classes of which most images are missed, the worst first, and what these were taken for."""
    taken_for = _taken_for(figures)
    missed = [
        (figure["recall"], place, figure)
        for place, figure in enumerate(figures["classes"])
        if figure["recall"] is not None and figure["recall"] < 1
    ]
    return [
        (
            figure["label"],
            f"{figure['num_images']:,}",
            f"{recall:.4f}",
            "-" if figure["precision"] is None else f"{figure['precision']:.4f}",
            taken_for.get(figure["label"], "-"),
        )
        for recall, _, figure in sorted(missed, key=lambda each: each[:2])[:WORST_CLASSES]
    ]


def _taken_for(figures: Mapping[str, Any]) -> dict[str, str]:
    """By label, what its images are most often taken for, the first of equals, and how many."""
    most: dict[str, tuple[int, str]] = {}
    for cell in figures["confusion"]:
        label, predicted, num_images = cell["label"], cell["predicted"], cell["num_images"]
        if label != predicted and num_images > most.get(label, (0, ""))[0]:
            most[label] = (num_images, predicted)
    return {label: f"{predicted} ({num_images:,})" for label, (num_images, predicted) in most.items()}
