"""`pigeonhole weights ...`: pre-trained weights that a training may start from."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modeling.names import path_to_text
from modeling.networks.quality import DEFAULT_QUALITY
from modeling.networks.state_dicts.plain_files import file_sha256, weights_file
from orchestrator.cli.libraries import prepare_for_libraries
from orchestrator.cli.output import (
    cleaned_up_when_terminated,
    confirm_removal,
    json_option,
    print_json,
    print_line,
    print_message,
    print_table,
)
from orchestrator.cli.parameters import architecture_type, weights_key_option
from orchestrator.cli.speaking import doing
from orchestrator.contract.errors import NotFoundError, UsageError
from orchestrator.contract.shown import printable

if TYPE_CHECKING:
    from modeling.exchange.import_pretrained import ImportedWeights
    from modeling.networks.pretrained.at_hand import Found


def print_reading(path: Path) -> None:
    """Say that a file of weights is read whole."""
    print_message(f"reading {path}, once")


@click.group()
def weights() -> None:
    """Pre-trained weights that a training may start from. Nothing is downloaded."""


@weights.command("list")
@json_option
def list_weights(as_json: bool) -> None:
    """List the weights at hand: imported ones, those of the folder of the setting `weights`, and torchvision's cache.

    `pigeonhole train` takes the best of them by itself where it suits the images; --from-weights NAME takes
    that one.

    \b
    Examples:
      pigeonhole weights list
      pigeonhole weights list --json
    """
    from modeling.networks.default_network import HOW_TO_GET_WEIGHTS
    from orchestrator.contract.settings import get_settings
    from orchestrator.jobs.training import weights_at_hand

    with doing("looking for weights"):
        found = weights_at_hand(get_settings(), print_reading)
    if as_json:
        print_json([_to_json(each) for each in found])
    elif found:
        print_table(("name", "architecture", "classes", "digest", "from"), [_row(each) for each in found])
    else:
        print_message(f"no pre-trained weights are at hand; {HOW_TO_GET_WEIGHTS}")


def _row(found: "Found") -> tuple[object, ...]:
    from modeling.networks.pretrained.at_hand import UnusableWeights

    if isinstance(found, UnusableWeights):
        return found.name, "-", "-", "-", f"unusable: {found.why}"
    classes = "-" if found.num_classes is None else found.num_classes
    return found.name, found.architecture, classes, found.sha256[:12], found.source


def _to_json(found: "Found") -> dict[str, Any]:
    from modeling.networks.pretrained.at_hand import UnusableWeights

    value: dict[str, Any] = {"name": found.name, "path": path_to_text(str(found.path)), "origin": found.origin}
    if isinstance(found, UnusableWeights):
        return value | {"error": found.why}
    facts = {"architecture": found.architecture, "num_classes": found.num_classes, "sha256": found.sha256}
    return value | facts | {"source": found.source}


@weights.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--name", help="Name to keep them under; default: their architecture's.")
@click.option(
    "--arch",
    "architecture",
    type=architecture_type,
    help="Architecture of the weights; default: recognised by their names and sizes.",
)
@weights_key_option
@json_option
def import_weights(
    file: Path, name: str | None, architecture: str | None, weights_key: str | None, as_json: bool
) -> None:
    """Copy the pre-trained weights in FILE into the home, for trainings to start from.

    FILE is a state dict: safetensors, or saved by torch. It must load into a known architecture with nothing missing
    and nothing left. torchvision keeps such files in ~/.cache/torch/hub/checkpoints, on a machine where it has
    downloaded them. Weights become safetensors; nothing in FILE is executed.

    \b
    Examples:
      pigeonhole weights import mobilenet_v2-7ebf99e0.pth
      pigeonhole weights import checkpoint.pth --name ours --arch resnet18
    """
    from modeling.networks.pretrained.store import WeightsStore, check_weights_name
    from orchestrator.contract.home import make_home
    from orchestrator.contract.settings import get_settings
    from orchestrator.jobs.training import published_weights

    if name is not None:
        check_weights_name(name)
    settings = get_settings()
    with cleaned_up_when_terminated(), doing(f"reading {file}"):
        published = published_weights(settings)
        _check_source(file, published)
        prepare_for_libraries()
        from modeling.exchange.import_pretrained import import_pretrained  # torch

        make_home(settings)
        made = import_pretrained(
            file,
            WeightsStore(settings.imported_weights),
            name,
            architecture,
            weights_key,
            check=lambda sha256: _check_unpublished(file, sha256, published),
        )
    for note in made.notes:
        print_message(printable(note))
    _print_imported(made)
    print_json(_to_json(made.at_hand)) if as_json else print_line(made.name)


def _print_imported(made: "ImportedWeights") -> None:
    from modeling.networks.default_network import SMALL_SIDE, DataFacts, choose_network

    record = made.record
    classes = "without a last layer" if record.num_classes is None else f"{record.num_classes} classes"
    known = "imported" if made.is_new else "already imported"
    print_message(f"{known}: {record.architecture}, {classes}, digest {record.sha256[:12]}")
    photographs = DataFacts(num_images=1, num_classes=2, median_side=2 * SMALL_SIDE, channels=3)
    if choose_network(photographs, [made.at_hand], DEFAULT_QUALITY).weights is None:
        print_message(
            f"they are not taken unasked, as their classes are few or the network is small: --from-weights {made.name}"
        )
    else:
        print_message(f"`pigeonhole train` takes them where they suit the images, --from-weights {made.name} always")


def _check_source(file: Path, published: dict[str, str]) -> None:
    """Raises PigeonholeError for what is not a file of weights, or holds those of a model published here."""
    from modeling.registry.card import CARD_FILE

    if not file.exists():
        raise NotFoundError(f"there is no {str(file)!r}; give a file of weights")
    if file.is_dir() and (file / CARD_FILE).exists():
        raise UsageError(f"{str(file)!r} is a model; `pigeonhole models import` takes it")
    _check_unpublished(file, file_sha256(weights_file(file) if file.is_dir() else file), published)


def _check_unpublished(file: Path, sha256: str, published: dict[str, str]) -> None:
    """Raises UsageError if weights in the file have the digest of a published model's."""
    if (ref := published.get(sha256)) is not None:
        raise UsageError(
            f"{str(file)!r} holds the weights of {ref}, which has seen images that a new model may be tested on; "
            f"go on from it on purpose, with --from-weights {ref}"
        )


@weights.command("remove")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@json_option
def remove_weights(name: str, yes: bool, as_json: bool) -> None:
    """Remove the imported weights NAME. Trainings that were submitted with them keep a copy.

    \b
    Examples:
      pigeonhole weights remove mobilenet_v2
    """
    from modeling.networks.pretrained.store import WeightsStore
    from orchestrator.contract.settings import get_settings
    from orchestrator.jobs.training import weights_at_hand

    store = WeightsStore(get_settings().imported_weights)
    if name not in store.names():
        for found in weights_at_hand(get_settings(), only=name):
            raise UsageError(f"the weights {name!r} were not imported; delete the file {str(found.path)!r} yourself")
        store.record(name)  # raises, with the names that there are
    if not yes:
        confirm_removal(f"remove the weights {name!r} permanently?")
    store.remove(name)
    print_json({"removed": name}) if as_json else print_message(f"removed the weights {name}")
