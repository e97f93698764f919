"""The tensors of a file of weights, by name: safetensors, whole or sharded, or saved by torch, nested or not."""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import safetensors
import safetensors.torch
from torch import Tensor

from modeling.durable import decode_json, validated
from modeling.errors import ModelFormatError, ModelingError
from modeling.networks.state_dicts.plain_files import (
    INDEX_SUFFIX,
    few,
    open_plain,
    path_inside,
    read_plain,
    weights_file,
)
from modeling.networks.state_dicts.torch_files import check_archive, read_torch

State = dict[str, Tensor]

# What DataParallel, torch.compile, FSDP, activation checkpointing and Fabric put into names, anywhere.
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"}
_SHARD = re.compile(r"(.+)-\d+-of-(\d+)(\.\w+)")
_MAX_INDEX_BYTES = 64_000_000
_LONGEST_NAME = 1000  # characters
_POINTER = b"version h"  # https://git-lfs.github.com/spec/v1
_DEPTH = 8  # of mappings in one another
TOP = "."  # the key of what is not nested


@dataclass(frozen=True, slots=True)
class SavedTensors:
    """The tensors of a file.

    source: what the file is called in errors.
    tensors: by name, which begins with the keys of the mappings around it; without the words of wrappers.
    groups: the keys of the mapping that each tensor is in; empty for the outermost.
    """

    source: str
    tensors: State
    groups: dict[str, str]

    @classmethod
    def of(cls, source: str, state: Mapping[str, Tensor]) -> Self:
        """The tensors of a plain state dict."""
        return cls(source, dict(state), dict.fromkeys(state, ""))

    def renamed(self, rename: Callable[[str], str]) -> Self:
        """The same tensors under other names, unless two would have the same."""
        names = {name: rename(name) or name for name in self.tensors}
        if len(set(names.values())) < len(names):
            return self
        tensors = {names[name]: tensor for name, tensor in self.tensors.items()}
        return type(self)(self.source, tensors, {names[name]: rename(group) for name, group in self.groups.items()})

    def under(self, key: str | None) -> Self:
        """The tensors under a key such as `model_ema` or `state_dict.teacher`; all if it is None.

        Raises:
            ModelingError: there are none; the message lists the keys.
        """
        if key is None:
            return self
        wanted = [] if key == TOP else _without_wrappers(key).split(".")
        inside = [name for name in self.tensors if name.split(".")[: len(wanted)] == wanted]
        if key == TOP:
            inside = [name for name in self.tensors if not self.groups[name]]
        inside = inside or [name for name in self.tensors if _contains(name.split(".")[:-1], wanted)]
        if not inside:
            keys = {group.partition(".")[0] for group in self.groups.values()} - {""} or self._first_words()
            raise ModelingError(f"{self.source} has no weights under the key {key!r}; it has {few(sorted(keys))}")
        kept = {name: self.tensors[name] for name in inside}
        return type(self)(self.source, kept, {name: self.groups[name] for name in inside})

    def _first_words(self) -> set[str]:
        return {name.partition(".")[0] for name in self.tensors}

    def largest_group(self) -> str:
        """The keys of the mapping with the most tensors."""
        return Counter(self.groups.values()).most_common(1)[0][0]


def read_tensors(path: Path, key: str | None = None) -> SavedTensors:
    """All tensors of a file, or of the one file of weights in a folder, or those under a key.

    Raises:
        ModelFormatError: it is missing, damaged, or holds no tensors, or something that would have to be unpickled.
        ModelingError: there is nothing under the key.
    """
    file = weights_file(path) if path.is_dir() else path
    shard = _SHARD.fullmatch(file.name)
    if shard and int(shard[2]) > 1:
        index = file.with_name(f"{shard[1]}{shard[3]}{INDEX_SUFFIX}")
        lacking = "" if index.is_file() else ", which is not there: fetch it, too"
        raise ModelFormatError(f"{file} is one of several shards; name their index, {index}{lacking}")
    try:
        loaded = _read(file)
    except OSError as err:
        raise ModelFormatError(f"{file}: cannot be read ({err.strerror or err})") from err
    if not isinstance(loaded, Mapping):
        raise ModelFormatError(f"{file}: contains a {type(loaded).__name__}, not a state dict; {_ADVICE}")
    saved = _flattened(str(file), loaded)
    if not saved.tensors:
        keys = few([str(name) for name in loaded]) or "nothing"
        raise ModelFormatError(f"{file}: contains no tensors, only {keys}; {_ADVICE}")
    return saved.renamed(_without_wrappers).under(key)


_ADVICE = "save network.state_dict()"


def _read(path: Path) -> Any:
    with open_plain(path) as file:
        head = file.read(9)
        if head.startswith(b"PK"):
            check_archive(file, path)
    if head.startswith(b"{") and b"\0" not in head[:8]:
        return _read_shards(path)
    if head.startswith(_POINTER):
        raise ModelFormatError(f"{path} is a pointer of Git LFS, not the weights; fetch them with `git lfs pull`")
    if head[8:] == b"{":  # after eight bytes of length
        return _read_safetensors(path)
    return read_torch(path)


def _read_safetensors(path: Path) -> State:
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as err:  # odd headers
        raise ModelFormatError(f"{path}: a damaged safetensors file ({err})") from err


def _read_shards(index: Path) -> State:
    """The tensors that an index such as `model.safetensors.index.json` finds in the files beside it."""
    value = decode_json(read_plain(index, _MAX_INDEX_BYTES), str(index))
    if not isinstance(value, dict) or "weight_map" not in value:
        raise ModelFormatError(f"{index}: neither weights nor the index of shards, which has a weight_map")
    shard_of = validated(dict[str, str], value["weight_map"], f"{index}: weight_map")
    state: State = {}
    for shard in sorted(set(shard_of.values())):
        found = _read(path_inside(index.parent, shard))
        wanted = [name for name, its_shard in shard_of.items() if its_shard == shard]
        missing = [name for name in wanted if not isinstance(found, Mapping) or name not in found]
        if missing:
            raise ModelFormatError(f"{index}: {shard} has no {few(missing)}; the shard is damaged, or of another model")
        state |= {name: found[name] for name in wanted}
    return state


def _flattened(source: str, loaded: Mapping[Any, Any]) -> SavedTensors:
    tensors: State = {}
    groups: dict[str, str] = {}
    seen: set[int] = set()  # a mapping may hold itself

    def visit(mapping: Mapping[Any, Any], group: str, depth: int) -> None:
        seen.add(id(mapping))
        for key, value in mapping.items():
            name = f"{group}.{key}" if group else str(key)
            if not isinstance(key, str):
                continue
            if len(name) > _LONGEST_NAME:
                raise ModelFormatError(
                    f"{source}: a tensor's name has {len(name):,} characters; it is not a state dict"
                )
            if isinstance(value, Tensor):
                tensors[name], groups[name] = value, group
            elif isinstance(value, Mapping) and depth < _DEPTH and id(value) not in seen:
                visit(value, name, depth + 1)

    visit(loaded, "", 0)
    return SavedTensors(source, tensors, groups)


def _without_wrappers(name: str) -> str:
    return ".".join(word for word in name.split(".") if word not in _WRAPPERS)


def _contains(words: list[str], wanted: list[str]) -> bool:
    return any(words[start : start + len(wanted)] == wanted for start in range(len(words)))
