"""`pigeonhole models export` and `import`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from modeling.networks.state_dicts.plain_files import path_inside
from orchestrator.cli.libraries import prepare_for_libraries
from orchestrator.cli.output import (
    cleaned_up_when_terminated,
    json_option,
    print_json,
    print_line,
    print_message,
)
from orchestrator.cli.parameters import architecture_type, weights_key_option
from orchestrator.cli.speaking import doing
from orchestrator.contract.errors import NotFoundError, UsageError
from orchestrator.contract.shown import printable

if TYPE_CHECKING:
    from modeling.exchange.import_weights import StagedModel, WeightsImport
    from modeling.registry.store import ModelVersion

_CONFIG_FILE = "config.json"  # of timm and Hugging Face
_OPTIONS = {
    "architecture": "--arch",
    "labels": "--labels",
    "image_size": "--image-size",
    "preprocessing": "--preprocessing",
    "weights_key": "--weights-key",
}
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("export")
@click.argument("model")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="File or folder to write; must not exist."
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["onnx", "folder"]),
    default="onnx",
    show_default=True,
    help="One self-contained ONNX file, or a folder with safetensors and JSON.",
)
@json_option
def export_model(model: str, output: Path, kind: Literal["onnx", "folder"], as_json: bool) -> None:
    """Write MODEL for use elsewhere.

    The ONNX file takes decoded uint8 images (batch x height x width x channels, any batch size) and gives `logits` and
    calibrated `scores`; its answers are compared with the model's before it is written. Labels, preprocessing and
    calibration are in its metadata. A folder can be imported again, as the same model.

    \b
    Examples:
      pigeonhole models export birds@champion -o birds.onnx
      pigeonhole models export birds@2 -o birds/ --format folder
    """
    from modeling.registry.store import ModelStore
    from orchestrator.contract.settings import get_settings

    version = ModelStore(get_settings().models).resolve(model)
    prepare_for_libraries()
    if output.exists():
        raise UsageError(f"output {str(output)!r} exists; name one that does not")
    if kind == "onnx" and output.suffix.lower() != ".onnx":
        raise UsageError(f"output {str(output)!r} does not end in .onnx; give it that suffix, or add --format folder")
    facts = {"model": version.ref, "digest": version.digest, "format": kind}
    with cleaned_up_when_terminated():
        facts |= _write_onnx(version, output) if kind == "onnx" else _write_folder(version, output)
    print_json(facts) if as_json else print_line(output)


def _write_onnx(version: "ModelVersion", output: Path) -> dict[str, Any]:
    from modeling.exchange.export import export_onnx

    words = f"translating {version.ref} to ONNX and comparing the answers"
    print_message(words)
    with doing(words):
        written = export_onnx(version.path, output)
    print_message(f"opset {written.opset}; logits differ from torch's by at most {written.largest_difference:.2g}")
    return written.to_json()


def _write_folder(version: "ModelVersion", output: Path) -> dict[str, Any]:
    from modeling.exchange.export import export_folder

    return export_folder(version.path, output).to_json()


@click.command("import")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="Name to publish the model under; every import adds a version.")
@click.option(
    "--arch",
    "architecture",
    type=architecture_type,
    help="Architecture of the weights, such as resnet18; default: recognised by their names and sizes.",
)
@click.option(
    "--labels",
    type=_FILE,
    help="File of names in the order of the outputs: JSON, torchvision's class index, the config.json of timm or "
    "Hugging Face, text with one a line, or CSV of number and name; default: config.json, if SOURCE is a folder.",
)
@weights_key_option
@click.option(
    "--image-size",
    type=click.IntRange(min=8),
    help="Side of the square the network sees, in pixels; default: the architecture's.",
)
@click.option(
    "--preprocessing",
    type=_FILE,
    help="JSON file in the format of `preprocessing` in `models show --json`; default: the architecture's, which "
    "for small networks is a mean and deviation of 0.5.",
)
@json_option
def import_model(source: Path, name: str, as_json: bool, **options: object) -> None:
    """Publish weights from elsewhere, or a folder that was exported.

    SOURCE is a state dict (safetensors, also in shards, or saved by torch, nested or not), a folder that holds one, or
    an exported folder. Every tensor of the network must be there and match; prefixes such as `module.` are understood.

    \b
    Examples:
      pigeonhole models import resnet.safetensors --name birds --labels labels.json
      pigeonhole models import checkpoint.pth --name birds --labels labels.txt --weights-key state_dict_ema
      pigeonhole models import birds/ --name birds
    """
    from modeling.exchange.labels import numbered
    from modeling.registry.card import CARD_FILE
    from modeling.registry.store import check_model_name

    check_model_name(name)
    given = {key: value for key, value in options.items() if value is not None}
    if not source.exists():
        raise NotFoundError(f"there is no {str(source)!r}; give a file of weights or an exported folder")
    if source.is_file() and _is_onnx(source):
        raise UsageError(
            f"{str(source)!r} is an ONNX file, which cannot be imported; export the model with --format folder"
        )
    spec = None if os.path.lexists(source / CARD_FILE) else _weights_import(source, given)
    if spec is None and given:
        option = _OPTIONS[next(iter(given))]
        raise UsageError(f"{str(source)!r} is a model folder, which holds what {option} would set; leave it out")
    prepare_for_libraries()
    with cleaned_up_when_terminated(), doing(f"checking the weights in {source}"):
        version, staged = _publish(source, spec, name)
    facts = {"model": version.ref, "digest": version.digest, "path": str(version.path)}
    for note in staged.notes:
        print_message(printable(note))
    for warning in staged.warnings:
        print_message(printable(warning), color="yellow")
    print_message(printable(f"labels by output: {numbered(staged.card.labels)}"))
    print_message(f"published {version.ref}; use it with `pigeonhole classify SOURCE --model {version.ref}`")
    print_json(facts) if as_json else print_line(version.ref)


def _publish(source: Path, spec: "WeightsImport | None", name: str) -> "tuple[ModelVersion, StagedModel]":
    from modeling.durable import staging_folder
    from modeling.exchange.import_weights import stage_folder, stage_weights  # torch
    from modeling.registry.store import ModelStore
    from orchestrator.contract.home import make_home
    from orchestrator.contract.settings import get_settings

    make_home(get_settings())
    store = ModelStore(get_settings().models)
    store.root.mkdir(parents=True, exist_ok=True)
    with staging_folder(store.root, ".importing-") as folder:
        staged = stage_folder(source, folder) if spec is None else stage_weights(spec, folder)
        return store.publish(folder, name), staged


def _is_onnx(file: Path) -> bool:
    """By its name, or by its first bytes: field 1 of its message, the version, then the producer, graph or opset."""
    if file.suffix.lower() == ".onnx":
        return True
    with file.open("rb") as opened:
        head = opened.read(9)
    is_safetensors = head[8:] == b"{"  # after eight bytes of length
    return head[:1] == b"\x08" and head[2:3] in (b"\x12", b"\x3a", b"\x42") and not is_safetensors


def _weights_import(source: Path, given: dict[str, object]) -> "WeightsImport":
    from modeling.networks.architectures import get_architecture
    from modeling.registry.card import CARD_FILE

    if source.is_dir() and "labels" not in given and os.path.lexists(source / _CONFIG_FILE):
        given["labels"] = path_inside(source, _CONFIG_FILE)
    if "labels" not in given:
        raise UsageError(
            f"{str(source)!r} is a file of weights; --labels is required, because the file does not hold them"
            if source.is_file()
            else f"{str(source)!r} is not an exported model, as it has no {CARD_FILE}; --labels is required for weights"
        )
    if "architecture" in given:
        get_architecture(str(given["architecture"]))
    from modeling.exchange.import_weights import WeightsImport  # torch

    return WeightsImport(file=source, **({"architecture": None} | given))  # type: ignore[arg-type]  # as click's types have it
