"""Comparing two models in folders on the images of a data set."""

# Shapes: N images.
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modeling.evaluation.gather import Gathered, Indices, gather
from modeling.evaluation.parts import choose, num_trained_on, parts_of
from modeling.evaluation.request import DataPart
from modeling.images.progress import Emit
from modeling.metrics.answers import Answers
from modeling.metrics.comparison import Comparison, compare, label_places


@dataclass(frozen=True, slots=True)
class CompareRequest:
    """Compare the models in folders `a` and `b` on the labelled images of `data`.

    part: as EvaluateRequest has it; the split is model A's.
    """

    a: Path
    b: Path
    data: Path
    device: str = "cpu"
    part: DataPart = "all"


@dataclass(frozen=True, slots=True)
class Compared:
    """A comparison, the images that a model could not read, and those that each model was trained on.

    num_trained_on: of A and of B; None where a model does not say which images it was trained on.
    """

    comparison: Comparison
    num_unreadable: int
    num_trained_on: tuple[int | None, int | None]


def compare_models(request: CompareRequest, emit: Emit) -> Compared:
    """Ask both models about every image, one model after the other, and compare their answers.

    Events go to `emit`: `evaluate` with `model` (`a` or `b`), `num_done` and `num_images`.

    Raises:
        ModelingError: a model, the data or the device cannot be used, or the models know other labels.
    """
    from modeling.data.forms.open import open_dataset
    from modeling.inference.classifier import Classifier  # torch: only where a model is wanted

    classifiers = [Classifier.load(path, request.device) for path in (request.a, request.b)]
    label_places(classifiers[1].labels, classifiers[0].labels)  # says at once what cannot be compared
    splits = [parts_of(path) for path in (request.a, request.b)]
    dataset = open_dataset(request.data)
    indices = choose(dataset, request.part, splits[0])

    def ask(which: int) -> Gathered:
        def report(num_done: int, num_images: int | None) -> None:
            emit({"event": "evaluate", "model": "ab"[which], "num_done": num_done, "num_images": num_images})

        return gather(classifiers[which], dataset, indices, hashed=any(splits), on_progress=report)

    a, b = ask(0), ask(1)
    common = np.intersect1d(a.indices_N, b.indices_N)
    comparison = compare(_only(a, common), _only(b, common), classifiers[0].calibration, classifiers[1].calibration)
    return Compared(
        comparison,
        len(indices) - len(common),
        (num_trained_on(splits[0], a.sha256), num_trained_on(splits[1], a.sha256)),
    )


def _only(gathered: Gathered, indices_N: Indices) -> Answers:
    """The answers to the images at these indices of the data set: what is readable may hang on a model's size."""
    kept_N = np.flatnonzero(np.isin(gathered.indices_N, indices_N))
    answers = gathered.answers
    names = tuple(answers.names[place] for place in kept_N.tolist())
    return Answers(answers.labels, names, answers.targets_N[kept_N], answers.logits_NL[kept_N])
