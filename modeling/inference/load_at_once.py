"""A model for a few images now: on the engine that is remembered for this machine, or plainly; nothing is measured.

Importing torch takes longer than answering one photograph, so it is imported only where it is needed: by engines of
torch, and to decode and scale images.
"""

import importlib
import threading
from dataclasses import dataclass
from pathlib import Path

from modeling.inference.bisection import Predictor
from modeling.inference.graph_classifier import load_graph
from modeling.networks.dynamo import deferred_meta_kernels
from modeling.registry.store import ModelVersion


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
        if decodes and _has_choice(version.artifacts):  # while OpenVINO compiles the network
            threading.Thread(target=_import_torch, name="import torch").start()
        if (graph := load_graph(version)) is not None:
            return LoadedAtOnce(graph, remembered=True)
    _import_torch()
    from modeling.inference.choose_engine import load_remembered
    from modeling.inference.classifier import Classifier

    for name in _devices(version) if device == "auto" else [device]:
        if (classifier := load_remembered(version, name)) is not None:
            return LoadedAtOnce(classifier, remembered=True)
    return LoadedAtOnce(Classifier.load(version.path, "cpu" if device == "auto" else device), remembered=False)


def _import_torch() -> None:
    with deferred_meta_kernels():
        importlib.import_module("torch")


def _devices(version: ModelVersion) -> list[str]:
    """The devices to look at; asking for a GPU takes time, so only where any engines are remembered."""
    remembered = _has_choice(version.artifacts) or _has_choice(version.shared_artifacts)
    return ["cpu", "auto"] if remembered and Path("/dev/nvidiactl").exists() else ["cpu"]


def _has_choice(folder: Path) -> bool:
    return any(folder.glob("auto-*.json"))
