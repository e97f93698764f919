"""`pigeonhole models summary` and `architectures`: the networks that there are, and their layers."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.libraries import prepare_for_libraries
from orchestrator.cli.output import json_option, print_json, print_line, print_table
from orchestrator.contract.errors import UsageError

if TYPE_CHECKING:
    from modeling.images.preprocessing import Preprocessing
    from modeling.networks.summary import Layer, Summary

_IMAGENET_CLASSES = 1000
_DIGITS = 10
_DIGIT_SIDE = 28  # px: MNIST's, for networks without a size of their own


@click.command("summary")
@click.argument("name", metavar="MODEL|ARCHITECTURE")
@click.option(
    "--num-classes",
    type=click.IntRange(min=1),
    help="Number of labels, for an architecture; default: 1000, for small ones 10.",
)
@click.option("--image-size", type=click.IntRange(min=1), help="Side of the image in pixels, for an architecture.")
@json_option
def summarise_model(name: str, num_classes: int | None, image_size: int | None, as_json: bool) -> None:
    """Show layers, shapes, parameters and cost of a model or an architecture.

    Multiply-adds count convolutions, matrix products and attention for one image. If a model has the name of an
    architecture, NAME is the architecture and NAME@latest the model.

    \b
    Examples:
      pigeonhole models summary birds@2
      pigeonhole models summary mobilenet_v2 --num-classes 12
    """
    from modeling.networks.architectures import ARCHITECTURES
    from modeling.registry.store import ModelStore
    from orchestrator.contract.settings import get_settings

    if name in ARCHITECTURES:
        architecture, preprocessing, num_labels = _of_architecture(name, num_classes, image_size)
    elif num_classes or image_size:
        raise UsageError(
            f"--num-classes and --image-size are for architectures; {name!r} is none, or a model that has both"
        )
    else:
        card = ModelStore(get_settings().models).card(name)
        architecture, preprocessing, num_labels = card.architecture, card.preprocessing, len(card.labels)
    facts = {"architecture": architecture, "num_labels": num_labels}
    summary = _summary(architecture, preprocessing, num_labels)
    if as_json:
        print_json({"name": name} | facts | asdict(summary))
    else:
        _print(summary)


@click.command("architectures")
@json_option
def list_architectures(as_json: bool) -> None:
    """List the networks that can be trained.

    \b
    Example:
      pigeonhole models architectures
    """
    from modeling.networks.architectures import ARCHITECTURES

    rows: list[dict[str, Any]] = [
        {"name": known.name, "summary": known.summary, "image_size": known.image_size, "weights": known.weights}
        for known in ARCHITECTURES.values()
    ]
    if as_json:
        print_json(rows)
        return
    print_table(
        ("name", "image", "pre-trained", "summary"),
        [(row["name"], row["image_size"] or "any", row["weights"] or "-", row["summary"]) for row in rows],
    )


def _of_architecture(name: str, num_classes: int | None, image_size: int | None) -> tuple[str, "Preprocessing", int]:
    from modeling.networks.architectures import default_preprocessing, get_architecture

    known = get_architecture(name)
    preprocessing = default_preprocessing(known, image_size or known.image_size or _DIGIT_SIDE)
    return name, preprocessing, num_classes or (_IMAGENET_CLASSES if known.weights else _DIGITS)


def _summary(architecture: str, preprocessing: "Preprocessing", num_labels: int) -> "Summary":
    """From shapes alone: no weights are read or made."""
    prepare_for_libraries()
    import torch

    from modeling.networks.build import build_network
    from modeling.networks.summary import summarise

    with torch.device("meta"):
        network = build_network(architecture, preprocessing, num_labels)
    return summarise(network, preprocessing)


def _print(summary: "Summary") -> None:
    print_table(("layer", "type", "output", "parameters", "multiply-adds"), [_row(layer) for layer in summary.layers])
    height, width, channels = summary.image
    print_line(f"image          {height} x {width} px, {'grey' if channels == 1 else 'colour'}")
    print_line(f"parameters     {summary.parameters:,} ({summary.trainable:,} trainable)")
    print_line(f"multiply-adds  {summary.multiply_adds:,} for one image")
    print_line(f"size           {summary.size_bytes / 2**20:.1f} MiB")


def _row(layer: "Layer") -> Sequence[object]:
    return (
        layer.name,
        layer.kind,
        " x ".join(map(str, layer.output)) if layer.output else "-",
        f"{layer.parameters:,}" if layer.parameters else "-",
        f"{layer.multiply_adds:,}" if layer.multiply_adds else "-",
    )
