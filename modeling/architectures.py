"""The architectures by name, with the recipe each is trained by unless the operator says otherwise."""

import difflib
from dataclasses import asdict, dataclass
from typing import Any, Literal

from modeling.errors import ArchitectureError


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network is trained: AdamW under a one-cycle schedule that peaks at `learning_rate`."""

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    augmentation: Literal["none", "affine"]

    def to_json(self) -> dict[str, Any]:
        """A dict that JSON can hold."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network family. `builder` is "module:function", imported when a network is built (it needs torch)."""

    name: str
    summary: str
    builder: str
    recipe: Recipe


_ALL = (
    Architecture(
        name="perceptron",
        summary="one dense layer from pixels to labels; the baseline",
        builder="modeling.networks:perceptron",
        recipe=Recipe(epochs=5, batch_size=128, learning_rate=2e-3, weight_decay=1e-4, augmentation="none"),
    ),
    Architecture(
        name="mlp",
        summary="two hidden dense layers",
        builder="modeling.networks:mlp",
        recipe=Recipe(epochs=8, batch_size=128, learning_rate=2e-3, weight_decay=1e-2, augmentation="affine"),
    ),
    Architecture(
        name="cnn",
        summary="one convolution, pooling and a dense head; strong on characters and digits",
        builder="modeling.networks:cnn",
        recipe=Recipe(epochs=5, batch_size=128, learning_rate=3e-3, weight_decay=1e-2, augmentation="affine"),
    ),
)

ARCHITECTURES: dict[str, Architecture] = {architecture.name: architecture for architecture in _ALL}


def get_architecture(name: str) -> Architecture:
    """The architecture of that name.

    Raises:
        ArchitectureError: there is none; lists the choices.
    """
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    near = difflib.get_close_matches(str(name).lower(), ARCHITECTURES, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ArchitectureError(f"unknown architecture {name!r}; {hint}choose one of {', '.join(ARCHITECTURES)}")
