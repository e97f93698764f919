"""Which tensors of a file are those of a network: below which prefix, and which of several sets of weights."""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch

from modeling.errors import ModelingError
from modeling.networks.state_dicts.files import TOP, SavedTensors, State
from modeling.networks.state_dicts.plain_files import few

_AVERAGED = re.compile(r"(?:^|[._-])(?:ema|swa|averaged?|avg)(?=$|[._-])", re.IGNORECASE)
_DROPPED = ("n_averaged", "total_ops", "total_params")  # counts of averaging and of profilers
_LOSSES = ("criterion.", "loss.", "loss_fn.", "loss_func.", "loss_function.")  # class weights, which change no answer
_FILLED = "num_batches_tracked"  # by batch norm, used in training alone; missing in files older than torch 0.4.1
_NUM_SHOWN = 3
MOST_SETS = 32  # of weights in one file, which are compared with one another


@dataclass(frozen=True, slots=True)
class SelectedWeights:
    """The weights that were taken from a file.

    prefix: what stands before their names in the file. state: by the network's names, as far as they fit.
    left_out: names in the file of what lies beside them.
    note: which set of weights was taken of several; empty if there is one.
    """

    prefix: str
    state: State
    left_out: tuple[str, ...]
    note: str = ""

    def notes(self) -> list[str]:
        """What an operator should know."""
        found = [self.note] if self.note else []
        if self.left_out:
            more = ", ..." if len(self.left_out) > _NUM_SHOWN else ""
            shown = ", ".join(self.left_out[:_NUM_SHOWN]) + more
            found.append(f"left out, as not of the network: {len(self.left_out)} tensors ({shown})")
        return found


def required_names(own: Collection[str], head: str, *, with_head: bool = True) -> frozenset[str]:
    """The names of a network's tensors without those that can be filled in."""
    return frozenset(
        name
        for name in own
        if not name.endswith(_FILLED) and name != f"{head}.bias" and (with_head or not name.startswith(f"{head}."))
    )


def select(saved: SavedTensors, wanted: frozenset[str]) -> SelectedWeights:
    """The tensors that have these names after a common prefix, whatever it is.

    If none have all of them, those that have the most. If there are averaged weights (EMA) beside raw ones, the
    averaged ones, as evaluations use them.

    Raises:
        ModelingError: several sets of weights fit; the message lists their keys.
    """
    hits = _prefixes(saved.tensors, wanted)
    complete = _complete(hits, wanted)
    if complete:
        prefix, note = _choose(saved, complete, wanted)
        return _selection(saved, prefix, wanted, complete, note)
    if hits:
        return _selection(saved, max(hits, key=lambda prefix: (hits[prefix], -len(prefix))), wanted, [])
    group = saved.largest_group()
    return _selection(saved, f"{group}." if group else "", wanted, [])


def complete_selections(saved: SavedTensors, wanted: frozenset[str]) -> list[SelectedWeights]:
    """Every set of weights in a file that has all of these names."""
    complete = _complete(_prefixes(saved.tensors, wanted), wanted)
    return [_selection(saved, prefix, wanted, complete) for prefix in complete]


def _complete(hits: Mapping[str, int], wanted: frozenset[str]) -> list[str]:
    """The prefixes after which all wanted names stand, shortest first; of too many the first ones."""
    found = [prefix for prefix, count in hits.items() if count == len(wanted)]
    return sorted(found, key=lambda prefix: (len(prefix), prefix))[:MOST_SETS]


def _prefixes(names: Collection[str], wanted: frozenset[str]) -> Counter[str]:
    """How many of the wanted names stand after each prefix, which is empty or ends with a dot."""
    found: Counter[str] = Counter()
    for name in names:
        start = 0
        while True:
            if name[start:] in wanted:
                found[name[:start]] += 1
            start = name.find(".", start) + 1
            if not start:
                break
    return found


def _choose(saved: SavedTensors, complete: list[str], wanted: frozenset[str]) -> tuple[str, str]:
    """The prefix of the weights to take, and what to say about it."""
    distinct: list[str] = []
    for prefix in complete:
        if not any(_are_equal(saved.tensors, prefix, other, wanted) for other in distinct):
            distinct.append(prefix)
    averaged = [prefix for prefix in distinct if _AVERAGED.search(prefix)]
    if len(distinct) == 1:
        return distinct[0], ""
    raw = [_key(prefix) for prefix in distinct if prefix not in averaged]
    if len(averaged) == 1 and len(raw) == 1:
        note = f"the averaged weights (EMA) under {_key(averaged[0])!r} are taken; --weights-key {raw[0]} takes the raw"
        return averaged[0], note
    keys = few(_key(prefix) for prefix in distinct)
    raise ModelingError(f"{saved.source} holds {len(distinct)} sets of weights that fit: {keys}; choose --weights-key")


def _key(prefix: str) -> str:
    return prefix.rstrip(".") or TOP


def _are_equal(tensors: State, first: str, second: str, names: Collection[str]) -> bool:
    return all(
        tensors[first + name] is tensors[second + name] or torch.equal(tensors[first + name], tensors[second + name])
        for name in names
    )


def _selection(
    saved: SavedTensors, prefix: str, wanted: frozenset[str], complete: Collection[str], note: str = ""
) -> SelectedWeights:
    """The tensors after a prefix, from the mappings that the wanted ones are in."""
    found = [prefix + name for name in wanted if prefix + name in saved.tensors]
    groups = {saved.groups[name] for name in found} or {saved.largest_group()}
    others = tuple(other for other in complete if other != prefix and not prefix.startswith(other))
    elsewhere = {other + name for other in complete if other != prefix for name in wanted}
    state: State = {}
    left_out = []
    for name, tensor in saved.tensors.items():
        if saved.groups[name] not in groups or name in elsewhere or name.startswith(others):
            continue
        inner = name.removeprefix(prefix)
        if is_irrelevant(inner):
            continue
        if name.startswith(prefix):
            state[inner] = tensor
        else:
            left_out.append(name)
    return SelectedWeights(prefix, state, tuple(left_out), note)


def is_irrelevant(name: str) -> bool:
    """Whether a tensor of this name, without the prefix, is none of any network: a count, or a part of a loss."""
    return name.rpartition(".")[2] in _DROPPED or name.startswith(_LOSSES)


def with_counts(state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> State:
    """The state with the network's own counts of batches where it lacks them, without those that it has too many."""
    counts = {name: tensor for name, tensor in own.items() if name.endswith(_FILLED)}
    kept = {name: tensor for name, tensor in state.items() if name in own or not name.endswith(_FILLED)}
    return counts | kept
