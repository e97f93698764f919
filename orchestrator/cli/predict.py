"""`pigeonhole predict`."""

import json
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modeling.names import path_to_text
from orchestrator.cli.libraries import prepare_for_libraries
from orchestrator.cli.output import json_option, print_json_line, print_message, print_table
from orchestrator.cli.outputs import check_outputs, check_picture, overwrite_option, picture_option, write_picture
from orchestrator.cli.speaking import doing
from orchestrator.contract.errors import ExitCode, UsageError
from orchestrator.contract.jobs.rows import JsonlFormat, Row

if TYPE_CHECKING:
    from modeling.inference.bisection import Predictor
    from modeling.registry.store import ModelVersion
    from orchestrator.contract.settings import Settings
    from orchestrator.predict.rows import NamedImage

STANDARD_INPUT = "-"


def device_option(function: Any) -> Any:
    """The --device option of commands that answer at once."""
    return click.option(
        "--device", default="auto", show_default=True,
        help="Where the network runs: cpu, cuda:N, or auto: where the workers of this machine have run it.",
    )(function)  # fmt: skip


@click.command()
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--model", required=True, help="A published model: name, name@version, name@alias.")
@click.option("--top-k", type=click.IntRange(1, 1000), default=5, show_default=True, help="Best labels with --json.")
@picture_option("Draw the images with label, score and decision: a PNG.")
@overwrite_option
@device_option
@json_option
def predict(
    images: tuple[str, ...], model: str, top_k: int, picture: Path | None, overwrite: bool, device: str, as_json: bool
) -> None:
    """Classify single IMAGEs at once, without a job, a server or a worker.

    Label and score are those that `classify` gives: the engine is the one that workers of this machine have measured
    for the model. Where none is remembered, the plain one answers (torch in full precision), and a message says so.
    `-` is the bytes of one image from standard input. For folders there is `classify`.

    With --json exactly one line per image, the row that a .jsonl manifest of `classify` has. An image that cannot be
    read is a row with an error code; exits with 3 if all are.

    \b
    Examples:
      pigeonhole predict owl.jpg --model birds
      pigeonhole predict photos/*.jpg --model birds@champion --picture answers.png
      curl -s https://camera.example/now.jpg | pigeonhole predict - --model birds --json
    """
    from modeling.registry.store import ModelStore
    from orchestrator.contract.settings import get_settings

    settings = get_settings()
    check_picture(picture)
    check_outputs([picture], [name for name in images if name != STANDARD_INPUT], overwrite=overwrite)
    _check_images(images, model)
    version = ModelStore(settings.models).resolve(model)
    decides = version.card().calibration is not None
    prepare_for_libraries()
    with doing("reading images"):
        named = [named_image(name, settings) for name in images]
    predictor = load(version, device)
    rows = []
    with doing(f"classifying {len(images):,} images"):
        for row in _rows(named, predictor, settings, top_k=top_k, decides=decides):
            rows.append(row)
            if as_json:
                print_json_line(json.loads(JsonlFormat().encode([row])))
    if not as_json:
        _print(rows)
    if picture is not None:
        with doing(f"drawing {picture}"):
            _draw(picture, named, rows, settings)
    sys.exit(ExitCode.OK if any(row.prediction.ok for row in rows) else ExitCode.TOO_MANY_FAILURES)


def load(version: "ModelVersion", device: str, *, decodes: bool = True) -> "Predictor":
    """The model on the engine that is remembered for this machine, or on the plain one; a message says that."""
    with doing(f"loading {version.ref}"):
        from modeling.inference.load_at_once import load_at_once

        loaded = load_at_once(version, device, decodes=decodes)
    if not loaded.remembered:
        print_message(
            f"no engine of {version.ref} is remembered on this machine: {loaded.predictor.engine_name} answers, and "
            "scores may differ a little from those of `classify`, which measures the engines once"
        )
    return loaded.predictor


def named_image(name: str, settings: "Settings") -> "NamedImage":
    """The image at a path, or the one on standard input, of which not more is read than the limit and a byte."""
    from orchestrator.predict.rows import NamedImage

    if name != STANDARD_INPUT:
        return NamedImage(name)
    return NamedImage(name, sys.stdin.buffer.read(settings.max_file_bytes + 1))


def _check_images(images: Sequence[str], model: str) -> None:
    """Raises UsageError for a folder, and for standard input more than once."""
    if images.count(STANDARD_INPUT) > 1:
        raise UsageError("`-` is given more than once; standard input is one image")
    for name in images:
        if os.path.isdir(name):  # noqa: PTH112 a str keeps the bytes of a name
            command = shlex.join(["pigeonhole", "classify", name, "--model", model, "-o", "out.csv"])
            raise UsageError(f"{name!r} is a folder; `{command}` classifies all images in it")


def _rows(
    images: "Sequence[NamedImage]", predictor: "Predictor", settings: "Settings", *, top_k: int, decides: bool
) -> Iterator[Row]:
    from orchestrator.predict.rows import Limits, predict_rows

    limits = Limits(settings.max_file_bytes, settings.max_pixels)
    return predict_rows(images, predictor, limits, top_k=top_k, decides=decides)


def _print(rows: Sequence[Row]) -> None:
    """A table; why an image could not be read is a message."""
    print_table(("image", "label", "score", "decision", "next"), [_cells(row) for row in rows])
    for row in rows:
        if not row.prediction.ok:
            print_message(f"{path_to_text(row.path)}: {row.prediction.error}", color="yellow")


def _cells(row: Row) -> tuple[str, ...]:
    prediction, path = row.prediction, path_to_text(row.path)
    if not prediction.ok:
        return path, "-", "-", prediction.decision or "-", prediction.error_code or ""
    following = f"{prediction.labels[1]} {prediction.scores[1]:.4f}" if len(prediction.labels) > 1 else ""
    return path, prediction.labels[0], f"{prediction.scores[0]:.4f}", prediction.decision or "-", following


def _draw(picture: Path, images: "Sequence[NamedImage]", rows: Sequence[Row], settings: "Settings") -> None:
    from orchestrator.predict.picture import MOST_DRAWN, draw_answers
    from orchestrator.predict.rows import Limits

    write_picture(draw_answers(images, rows, Limits(settings.max_file_bytes, settings.max_pixels)), picture)
    left_out = f" of the first {MOST_DRAWN} of {len(images)} images" if len(images) > MOST_DRAWN else ""
    print_message(f"drawn in {picture}{left_out}")
