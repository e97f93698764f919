"""`pigeonhole models export` and `import`."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from modeling.durable import staging_folder
from modeling.networks.architectures import ARCHITECTURES, get_architecture
from modeling.registry.store import ModelStore, check_model_name
from orchestrator.cli.output import json_option, print_json, print_line, print_message
from orchestrator.cli.parameters import OneOf
from orchestrator.contract.errors import NotFoundError, UsageError
from orchestrator.contract.settings import get_settings

if TYPE_CHECKING:
    from modeling.exchange.import_weights import WeightsImport

_OPTIONS = {
    "architecture": "--arch",
    "labels": "--labels",
    "image_size": "--image-size",
    "preprocessing": "--preprocessing",
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
    version = ModelStore(get_settings().models).resolve(model)
    if output.exists():
        raise UsageError(f"output {str(output)!r} exists; name one that does not")
    if kind == "onnx" and output.suffix.lower() != ".onnx":
        raise UsageError(f"output {str(output)!r} does not end in .onnx; give it that suffix, or add --format folder")
    facts = {"model": version.ref, "digest": version.digest, "format": kind}
    if kind == "onnx":
        from modeling.exchange.export import export_onnx

        print_message(f"translating {version.ref} to ONNX and comparing the answers")
        written = export_onnx(version.path, output)
        facts |= written.to_json()
        print_message(f"opset {written.opset}; logits differ from torch's by at most {written.largest_difference:.2g}")
    else:
        from modeling.exchange.export import export_folder

        facts |= export_folder(version.path, output).to_json()
    print_json(facts) if as_json else print_line(output)


@click.command("import")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="Name to publish the model under; every import adds a version.")
@click.option(
    "--arch",
    "architecture",
    type=OneOf("ARCHITECTURE", lambda: list(ARCHITECTURES), "`pigeonhole models architectures` lists them"),
    help="Architecture of the weights, such as resnet18; not for a folder, which holds it.",
)
@click.option("--labels", type=_FILE, help='JSON file of names, a list or {"0": name}, in the order of the outputs.')
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

    SOURCE is a state dict (safetensors, or saved by torch) or an exported folder. Every tensor must match.

    \b
    Examples:
      pigeonhole models import resnet.safetensors --name birds --arch resnet18 --labels labels.json
      pigeonhole models import birds/ --name birds
    """
    check_model_name(name)
    given = {key: value for key, value in options.items() if value is not None}
    if not source.exists():
        raise NotFoundError(f"there is no {str(source)!r}; give a file of weights or an exported folder")
    if source.is_file() and _is_onnx(source):
        raise UsageError(
            f"{str(source)!r} is an ONNX file, which cannot be imported; export the model with --format folder"
        )
    spec = None if source.is_dir() else _weights_import(source, given)
    if spec is None and given:
        option = _OPTIONS[next(iter(given))]
        raise UsageError(f"{str(source)!r} is a folder, which holds what {option} would set; leave the option out")
    from modeling.exchange.import_weights import stage_folder, stage_weights  # torch

    store = ModelStore(get_settings().models)
    store.root.mkdir(parents=True, exist_ok=True)
    with staging_folder(store.root, ".importing-") as staged:
        stage_folder(source, staged) if spec is None else stage_weights(spec, staged)
        version = store.publish(staged, name)
    facts = {"model": version.ref, "digest": version.digest, "path": str(version.path)}
    print_message(f"published {version.ref}; use it with `pigeonhole classify SOURCE --model {version.ref}`")
    print_json(facts) if as_json else print_line(version.ref)


def _is_onnx(file: Path) -> bool:
    """By its name, or by its first bytes: field 1 of its message, the version, then the producer, graph or opset."""
    if file.suffix.lower() == ".onnx":
        return True
    with file.open("rb") as opened:
        head = opened.read(9)
    is_safetensors = head[8:] == b"{"  # after eight bytes of length
    return head[:1] == b"\x08" and head[2:3] in (b"\x12", b"\x3a", b"\x42") and not is_safetensors


def _weights_import(source: Path, given: dict[str, object]) -> "WeightsImport":
    for key in ("architecture", "labels"):
        if key not in given:
            raise UsageError(
                f"{str(source)!r} is a file of weights; {_OPTIONS[key]} is required, because the file does not hold it"
            )
    get_architecture(str(given["architecture"]))
    from modeling.exchange.import_weights import WeightsImport  # torch

    return WeightsImport(file=source, **given)  # type: ignore[arg-type]  # as click's types and this table have them
