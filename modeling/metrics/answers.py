"""What a network answered to images whose class is known."""

# Shapes: N images, L labels.
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """A network's logits beside the truth, in the order of the data.

    names: what each image is called in its data set (path relative to it, or part and number), for people.
    targets_N: index into `labels` of each image's class.
    logits_NL: float32, before any temperature.
    """

    labels: tuple[str, ...]
    names: tuple[str, ...]
    targets_N: NDArray[np.int64]
    logits_NL: NDArray[np.float32]

    def __post_init__(self) -> None:
        expected = (len(self.names), len(self.labels))
        if self.logits_NL.shape != expected or self.targets_N.shape != expected[:1]:
            found = f"{self.logits_NL.shape} logits and {self.targets_N.shape} targets"
            raise ValueError(f"{expected[0]} images of {expected[1]} labels do not fit {found}")
