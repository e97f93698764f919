"""`pigeonhole models explain`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from modeling.explain.kinds import KINDS
from orchestrator.cli.libraries import prepare_for_libraries
from orchestrator.cli.output import json_option, print_json, print_line, print_message
from orchestrator.cli.speaking import doing

if TYPE_CHECKING:
    from modeling.explain.explain import Written
    from modeling.explain.renderer import ExplainedModel
    from modeling.explain.request import ExplainRequest


@click.command("explain")
@click.argument("model")
@click.argument("images", nargs=-1, type=click.Path(path_type=Path), metavar="[IMAGE]...")
@click.option(
    "-o", "--output", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder for the pictures."
)
@click.option(
    "--show",
    multiple=True,
    type=click.Choice(KINDS),
    help="What to show; may be repeated. Default: all but ideal that the model and images allow.",
)
@click.option(
    "--label", "labels", multiple=True, metavar="LABEL",
    help="For weights, gradcam and ideal: this label; may be repeated. Default: the predicted one.",
)  # fmt: skip
@click.option("--layer", metavar="NAME", help="For features and gradcam: this layer of the network.")
@click.option("--second-model", metavar="MODEL", help="For robustness: test the changed images on this model, too.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed of ideal images and noise."
)
@click.option("--device", default="auto", show_default=True, help="Where the network runs: auto, cpu or cuda:N.")
@click.option("--overwrite", is_flag=True, help="Replace pictures of the same name in the folder.")
@json_option
def explain_model(
    model: str,
    images: tuple[Path, ...],
    output: Path,
    second_model: str | None,
    device: str,
    overwrite: bool,
    as_json: bool,
    **options: object,
) -> None:
    """Draw what MODEL has learned, and how it responds to each IMAGE.

    \b
    Kinds, and what they need:
      weights     a perceptron: how each pixel counts for and against a label
      filters     a convolution: its filters beside fixed edge filters; with images, their responses
      features    a convolution and images: the outputs of layers
      gradcam     a convolution and images: the regions that count for a label
      ideal       any model: the image with the highest score for a label; many seconds, so only on request
      robustness  images: the smallest change that flips the answer

    \b
    Examples:
      pigeonhole models explain digits -o explained
      pigeonhole models explain birds photos/owl.jpg -o explained --show gradcam --label owl --label cat
      pigeonhole models explain birds photos/*.jpg -o explained --show robustness --second-model birds@1
    """
    prepare_for_libraries()
    with doing("importing torch"):
        from modeling.explain.explain import plan, write

    with doing(f"loading {model}"):
        explained, request = _prepare(model, second_model, device, images, options)
    planned = plan(explained, request)
    for kind, reason in planned.left_out.items():
        print_message(f"{kind} is left out: {reason}")
    with doing("drawing") as replace_words:
        pictures = []
        for picture in write(planned, output, overwrite=overwrite, report=replace_words):
            pictures.append({"show": picture.kind, "path": str(picture.path), **picture.facts})
            if not as_json:
                _print(picture)
    if as_json:
        print_json(pictures)


def _print(picture: "Written") -> None:
    print_line(str(picture.path))
    if "summary" in picture.facts:
        print_message(picture.facts["summary"])


def _prepare(
    model: str, second_model: str | None, device: str, images: tuple[Path, ...], options: dict[str, object]
) -> "tuple[ExplainedModel, ExplainRequest]":
    """The loaded models and the request; images are read first, because errors in them are cheap to find."""
    from modeling.explain.request import ExplainRequest, read_pictures
    from modeling.registry.store import ModelStore
    from orchestrator.contract.settings import get_settings

    store = ModelStore(get_settings().models)
    version = store.resolve(model)
    second = store.resolve(second_model) if second_model else None
    pictures = read_pictures(images, store.card(version.ref).preprocessing)

    from modeling.explain.renderer import ExplainedModel
    from modeling.inference.classifier import Classifier

    explained = ExplainedModel(
        version.ref,
        Classifier.load(version.path, device),
        second.ref if second else None,
        Classifier.load(second.path, device) if second else None,
    )
    return explained, ExplainRequest(pictures=pictures, **options)  # type: ignore[arg-type]
