"""A model for a few images now: on the engine that is remembered for this machine, or plainly; nothing is measured.

Importing torch takes longer than answering one photograph, so it is imported only where it is needed: by engines of
torch, and to decode and scale images.
"""

import importlib
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from modeling.inference.bisection import Predictor
from modeling.inference.engines.choice import choice_path, read_choice
from modeling.inference.engines.hardware import hardware_key
from modeling.inference.graph_classifier import load_graph
from modeling.registry.store import ModelVersion

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class LoadedAtOnce:
    """A model that answers. remembered: its engine is that of jobs on this machine, so its rows are theirs."""

    predictor: Predictor
    remembered: bool


def load_at_once(version: ModelVersion, device: str = "auto", *, decodes: bool = True) -> LoadedAtOnce:
    """The model version, ready to answer.

    device: as torch names it, or `auto`: the processor, or a GPU where only its engine is remembered.
    decodes: whether images are to be decoded and scaled for the model; torch is imported meanwhile.

    Raises:
        ModelFormatError: the model is damaged.
        ModelingError: no such device.
    """
    if device in ("auto", "cpu"):
        if decodes and _is_remembered(version):  # while OpenVINO compiles the network
            threading.Thread(target=importlib.import_module, args=("torch",), name="import torch").start()
        if (graph := load_graph(version)) is not None:
            return LoadedAtOnce(graph, remembered=True)
    from modeling.inference.classifier import Classifier
    from modeling.networks.build import select_device

    for name in _devices(version) if device == "auto" else [device]:
        if _is_remembered(version, select_device(name)):
            from modeling.inference.choose_engine import load_fastest

            return LoadedAtOnce(load_fastest(version, name), remembered=True)
    plain = "cpu" if device == "auto" else device
    select_device(plain)
    return LoadedAtOnce(Classifier.load(version.path, plain), remembered=False)


def _devices(version: ModelVersion) -> list[str]:
    """The devices to look at; asking for a GPU takes time, so only where engines of other hardware are remembered."""
    others = any(version.artifacts.glob("auto-*.json")) and Path("/dev/nvidiactl").exists()
    return ["cpu", "auto"] if others else ["cpu"]


def _is_remembered(version: ModelVersion, device: "torch.device | None" = None) -> bool:
    return read_choice(choice_path(version.artifacts, "auto", hardware_key(device))) is not None
