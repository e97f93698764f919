"""Which images of a data set a model can be asked about: those of labels that it knows."""

# Shapes: N images.
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modeling.data.dataset import Dataset, abbreviate
from modeling.errors import DataError, ModelingError
from modeling.names import class_name

Indices = NDArray[np.int64]

_LABELS_SHOWN = 20


@dataclass(frozen=True, slots=True, eq=False)
class KnownImages:
    """The images of labels that all models know, and those that are left out because one does not know theirs."""

    indices: Indices
    num_left_out: int
    labels_left_out: tuple[str, ...]

    def describe(self, who: str = "the model does not know") -> str:
        """What was left out, for a headline; empty without any."""
        if not self.num_left_out:
            return ""
        images = "1 image is" if self.num_left_out == 1 else f"{self.num_left_out:,} images are"
        return f"{images} left out, of labels that {who}: {abbreviate(self.labels_left_out)}"


def known_images(dataset: Dataset, indices: Indices, *label_sets: Sequence[str]) -> KnownImages:
    """Those of the images whose labels are in all sets, each the labels of a model.

    Raises:
        DataError: there are images, and none of a label that all models know.
    """
    targets = dataset.targets_N[indices]
    known = set.intersection(*(set(label_places(labels)) for labels in label_sets))
    is_known_L = np.array([label in known for label in dataset.labels], dtype=bool)
    known_N = is_known_L[targets]
    left_out = tuple(dataset.labels[target] for target in np.unique(targets[~known_N]).tolist())
    if len(indices) and not known_N.any():
        knows = "the model does not know; it knows" if len(label_sets) == 1 else "not both models know; both know"
        raise DataError(f"{dataset.shown} has images of {_some(left_out)}, which {knows} {_some(sorted(known))}")
    return KnownImages(indices[known_N], int((~known_N).sum()), left_out)


def model_targets(dataset: Dataset, indices: Indices, labels: Sequence[str]) -> Indices:
    """The class of each image as an index into a model's labels, which know them all (see `known_images`)."""
    places = label_places(labels)
    return np.array([places.get(label, -1) for label in dataset.labels], dtype=np.int64)[dataset.targets_N[indices]]


def labels_of_one(a: Sequence[str], b: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The labels that only A and only B know, by their `class_name`, as `metrics.comparison` joins them.

    Raises:
        ModelingError: they have none in common.
    """
    names_a, names_b = ({class_name(label) for label in labels} for labels in (a, b))
    if not names_a & names_b:
        raise ModelingError(f"the models have no label in common: A knows {abbreviate(a)}, B knows {abbreviate(b)}")
    return (
        tuple(label for label in a if class_name(label) not in names_b),
        tuple(label for label in b if class_name(label) not in names_a),
    )


def label_places(labels: Sequence[str]) -> Mapping[str, int]:
    """The place of each label of a model by its name, for older models also by its `class_name`."""
    places = {class_name(label): place for place, label in enumerate(labels)}
    return places | {label: place for place, label in enumerate(labels)}


def _some(labels: Sequence[str]) -> str:
    """Labels in words; of many the first."""
    shown = ", ".join(repr(label) for label in labels[:_LABELS_SHOWN]) or "nothing"
    return shown + (f" and {len(labels) - _LABELS_SHOWN} more" if len(labels) > _LABELS_SHOWN else "")
