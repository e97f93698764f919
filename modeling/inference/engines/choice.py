"""The engine that was chosen for a model on some hardware, as it is stored beside the version; needs no torch."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from modeling.durable import STRICT, Number, decode_json, replace_durably, temporary_beside, validated
from modeling.errors import ModelFormatError, trouble_of
from modeling.inference.engines.graphs import GRAPH_FILE
from modeling.inference.engines.precision import WantedPrecision

if TYPE_CHECKING:
    from modeling.registry.card import ModelCard

LARGEST_BATCH = 256  # images, that is measured
CORES, GPU = "cores", "nvjpeg"  # decoders of JPEGs


@dataclass(frozen=True, slots=True)
class Choice:
    """The measured choice.

    images_per_sec: of batches of random images, by engine. batch_sizes: images per second by batch size, on the
    engine that was chosen. refused: why an engine, or the GPU's decoder, is not used.
    graph_sha256: of the ONNX file that the engine is built from; None: it needs none, or an older choice.
    decoder: CORES or GPU. decoded_per_sec: images per second by decoder; empty without a GPU.
    """

    engine: str
    batch_size: int
    hardware: str
    images_per_sec: dict[str, Number] = field(default_factory=dict)
    batch_sizes: dict[str, Number] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    decoder: str = CORES
    decoded_per_sec: dict[str, Number] = field(default_factory=dict)
    graph_sha256: str | None = None

    __pydantic_config__ = STRICT

    @property
    def speed(self) -> float:
        """Images per second of the chosen engine at the chosen batch size."""
        return self.batch_sizes[str(self.batch_size)]


def choice_path(artifacts: Path, precision: WantedPrecision, hardware_key: str) -> Path:
    """The file with the choice for some hardware."""
    return artifacts / f"{precision}-{hardware_key}.json"


def network_key(card: "ModelCard", hardware_key: str, *, has_int8: bool) -> str:
    """16 hexadecimal digits that change with what decides how fast engines compute a network on some hardware.

    Weights do not; the number of labels does as a power of two.
    """
    preprocessing, num_labels = card.preprocessing, 1 << (len(card.labels) - 1).bit_length()
    facts = [card.architecture, *preprocessing.shape, preprocessing.resize, num_labels, has_int8, hardware_key]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def read_choice(path: Path) -> Choice | None:
    """A stored choice; None if there is none, or it cannot be read."""
    try:
        choice = validated(Choice, decode_json(path.read_bytes(), str(path)), str(path), whole=False)
        usable = choice.speed > 0
    except (OSError, ModelFormatError, KeyError) as err:
        if trouble_of(err):
            raise
        return None
    return choice if usable else None


def write_choice(path: Path, choice: Choice) -> None:
    """Store a choice."""
    replace_durably(path, (json.dumps(asdict(choice), indent=2, sort_keys=True) + "\n").encode())


def copy_artifacts(source: Path, target: Path) -> None:
    """Store the choices of one folder of artifacts in another, with the graph that they need; what is there stays."""
    for path in sorted(source.glob("*.json")):
        if (choice := read_choice(path)) is not None and not (target / path.name).exists():
            target.mkdir(parents=True, exist_ok=True)
            write_choice(target / path.name, choice)
    if known_graphs(target) and (source / GRAPH_FILE).is_file() and not (target / GRAPH_FILE).exists():
        with temporary_beside(target / GRAPH_FILE) as temporary:  # not durable: one of another digest is built anew
            shutil.copyfile(source / GRAPH_FILE, temporary)
            temporary.replace(target / GRAPH_FILE)


def known_graphs(artifacts: Path) -> set[str]:
    """The digests of the graphs that engines in this folder were chosen with, on any hardware."""
    found = (read_choice(path) for path in artifacts.glob("*.json"))
    return {choice.graph_sha256 for choice in found if choice and choice.graph_sha256}


def read_choices(artifacts: Path, precision: WantedPrecision) -> Iterator[Choice]:
    """The choices of all hardware that has used this precision."""
    for path in sorted(artifacts.glob(f"{precision}-*.json")):
        if choice := read_choice(path):
            yield choice
