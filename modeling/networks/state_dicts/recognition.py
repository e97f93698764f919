"""Which of the known architectures the tensors of a file belong to, by their names and sizes."""

import functools
import re
from collections.abc import Iterable

import torch
from torch import Tensor

from modeling.errors import ArchitectureError
from modeling.networks.architectures import ARCHITECTURES, Architecture, default_preprocessing
from modeling.networks.build import blank_network, build_network
from modeling.networks.state_dicts.files import SavedTensors
from modeling.networks.state_dicts.selection import MOST_SETS, complete_selections, is_irrelevant, required_names
from modeling.networks.torchvision_table import ROWS

AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")  # outputs of googlenet and inception_v3 that only training uses
_POSITIONS, _TOKEN = "encoder.pos_embedding", "class_token"  # of vision transformers
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")
_OLD_VIT = re.compile(r"\.mlp\.linear_([12])\.")
_SIDE = 32  # px: for the names of a network that takes any size
_NUM_SHOWN = 3


def recognise(saved: SavedTensors) -> list[str]:
    """The architectures whose tensors a file holds whole, in the order of the table: one, none, rarely several."""
    own = [name for name, known in ARCHITECTURES.items() if known.family != "torchvision" and _is_own(known, saved)]
    if own:
        return own
    sizes = {head: _sizes(saved, head) for head in {row.head for row in ROWS}}
    candidates = [
        row for row in ROWS if any(_num_values(row.name, *size) == row.num_values for size in sizes[row.head])
    ]
    return [row.name for row in candidates if _has_names(ARCHITECTURES[row.name], saved)]


def the_architecture(saved: SavedTensors) -> str:
    """The only architecture that a file's tensors belong to.

    Raises:
        ArchitectureError: there is none, or there are several.
    """
    found = recognise(saved)
    if len(found) == 1:
        return found[0]
    if found:
        raise ArchitectureError(f"{saved.source} holds weights of {' and '.join(found)}; choose one with --arch")
    names = list(saved.tensors)
    shown = ", ".join(names[:_NUM_SHOWN]) + (", ..." if len(names) > _NUM_SHOWN else "")
    raise ArchitectureError(
        f"{saved.source}: its {len(names)} tensors ({shown}) are those of no architecture that is known here; "
        "with --arch NAME the error says what does not fit (`pigeonhole models architectures` lists the names)"
    )


@functools.cache
def _names(name: str) -> frozenset[str]:
    """The names of an architecture's required tensors."""
    known = ARCHITECTURES[name]
    preprocessing = default_preprocessing(known, known.image_size or _SIDE)
    if known.family != "torchvision":
        return required_names(blank_network(name, preprocessing, 2).state_dict(), known.head)
    with torch.device("meta"):
        return required_names(build_network(name, preprocessing, 2).state_dict(), known.head)


def _is_own(known: Architecture, saved: SavedTensors) -> bool:
    """Whether a file holds nothing but one of Pigeonhole's own networks: its names are those of parts of others too."""
    allowed = _names(known.name) | {f"{known.head}.bias"}
    found = [
        selection
        for selection in complete_selections(saved, _names(known.name))
        if all(name in allowed or name.endswith("num_batches_tracked") for name in selection.state)
    ]
    prefixes = tuple(selection.prefix for selection in found)
    groups = {saved.groups[selection.prefix + name] for selection in found for name in selection.state}
    others = [name for name, group in saved.groups.items() if group in groups and not name.startswith(prefixes)]
    return bool(found) and all(map(is_irrelevant, others))


def _has_names(known: Architecture, saved: SavedTensors) -> bool:
    """Whether a file holds all tensors of an architecture, by their names."""
    return bool(complete_selections(saved.renamed(lambda name: current_name(known, name)), _names(known.name)))


def current_name(known: Architecture, name: str) -> str:
    """The name that a tensor of torchvision's older releases has in today's."""
    if known.name.startswith("densenet"):
        return _OLD_DENSENET.sub(r"\1\2", name)
    if known.name.startswith("vit_"):
        return _OLD_VIT.sub(lambda match: f".mlp.{3 * (int(match[1]) - 1)}.", name)
    return name


def _sizes(saved: SavedTensors, head: str) -> list[tuple[int, int, int]]:
    """For each set of weights with this head: the numbers in it but for the head, in its positions and in its token."""
    weight = f"{head}.weight"
    ends = (name for name in saved.tensors if name == weight or name.endswith(f".{weight}"))
    found = sorted((name.removesuffix(weight) for name in ends), key=len)[:MOST_SETS]
    sizes = []
    for prefix in found:
        group = saved.groups[prefix + weight]
        others = tuple(other for other in found if other != prefix and not prefix.startswith(other))
        inside = {
            name.removeprefix(prefix): tensor
            for name, tensor in saved.tensors.items()
            if name.startswith(prefix) and saved.groups[name] == group and not name.startswith(others)
        }
        skipped = (f"{head}.", *AUXILIARY)
        total = _count(tensor for name, tensor in inside.items() if not name.startswith(skipped))
        positions, token = ([inside[name]] if name in inside else [] for name in (_POSITIONS, _TOKEN))
        sizes.append((total, _count(positions), _count(token)))
    return sizes


def _count(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors if tensor.is_floating_point())


def _num_values(name: str, total: int, num_positions: int, num_token: int) -> int:
    """The numbers that the weights would have at the architecture's default image size."""
    known = ARCHITECTURES[name]
    if not num_positions or not name.startswith("vit_") or known.image_size is None:
        return total
    return total - num_positions + ((known.image_size // known.step) ** 2 + 1) * num_token
