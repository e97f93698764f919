"""Comparing two models in folders on the images of a data set."""

# Shapes: N images.
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modeling.data.layout import DataPart, Layout
from modeling.evaluation.engine import engine_figures, load_classifier
from modeling.evaluation.labels import KnownImages, known_images, labels_of_one
from modeling.evaluation.parts import choose_images, count_trained_on, lacks_record, parts_of
from modeling.evaluation.predict import DatasetAnswers, predict_dataset
from modeling.images.progress import Emit
from modeling.inference.engines.precision import WantedPrecision
from modeling.metrics.comparison import Comparison, compare
from modeling.metrics.evaluation import EngineFigures


@dataclass(frozen=True, slots=True)
class CompareRequest:
    """Compare the models in folders `a` and `b` on the labelled images of `data`.

    part, precision, layout: as EvaluateRequest has them; the split is model A's.
    """

    a: Path
    b: Path
    data: Path
    device: str = "cpu"
    part: DataPart = "all"
    precision: WantedPrecision = "auto"
    layout: Layout | None = None


@dataclass(frozen=True, slots=True)
class Compared:
    """A comparison, the images that a model could not read, and those that each model was trained on.

    known: the images of labels that both models know, which were compared.
    only: the labels that only A and only B know.
    num_trained_on: of A and of B; None where a model does not say which images it was trained on.
    lacks_record: of A and of B, whether it should, because Pigeonhole trained it.
    engines: what answered for A and for B.
    """

    comparison: Comparison
    known: KnownImages
    only: tuple[tuple[str, ...], tuple[str, ...]]
    num_unreadable: int
    num_trained_on: tuple[int | None, int | None]
    lacks_record: tuple[bool, bool]
    engines: tuple[EngineFigures, EngineFigures]

    def conclusion(self, a: str = "A", b: str = "B") -> str:
        """One sentence for people; `a` and `b` are the names of the models."""
        left_out = self.known.describe("not both know")
        return self.comparison.conclusion(a, b) + (f"; {left_out}" if left_out else "")


def compare_models(request: CompareRequest, emit: Emit) -> Compared:
    """Ask both models about every image of a label that both know, one after the other, and compare their answers.

    Each answers with any of its own labels.

    Events go to `emit`: `evaluate` with `model` (`a` or `b`), `num_done` and `num_images`; `note` with a `text`.

    Raises:
        ModelingError: a model, the data, the device or the precision cannot be used, or the models and the data have
            no label in common.
    """
    from modeling.data.forms.open import open_dataset

    classifiers = [load_classifier(path, request.device, request.precision, emit) for path in (request.a, request.b)]
    only = labels_of_one(classifiers[0].labels, classifiers[1].labels)
    splits = [parts_of(path) for path in (request.a, request.b)]
    dataset = open_dataset(request.data, request.layout, to_learn=False)
    chosen = choose_images(dataset, request.part, splits[0])
    known = known_images(dataset, chosen, classifiers[0].labels, classifiers[1].labels)
    indices = known.indices

    def predict(which: int) -> tuple[DatasetAnswers, EngineFigures]:
        def report(num_done: int, num_images: int | None) -> None:
            emit({"event": "evaluate", "model": "ab"[which], "num_done": num_done, "num_images": num_images})

        classifier = classifiers[which]
        predicted = predict_dataset(classifier, dataset, indices, hashed=any(splits), on_progress=report)
        return predicted, engine_figures(classifier, dataset, predicted)

    (a, engine_a), (b, engine_b) = predict(0), predict(1)
    common = np.intersect1d(a.indices_N, b.indices_N)  # whether an image is readable may depend on the model's size
    comparison = compare(a.only(common), b.only(common), classifiers[0].calibration, classifiers[1].calibration)
    num_trained_on = (count_trained_on(splits[0], a.sha256), count_trained_on(splits[1], a.sha256))
    lacking = (
        lacks_record(classifiers[0].card, num_trained_on[0]),
        lacks_record(classifiers[1].card, num_trained_on[1]),
    )
    num_unreadable = len(indices) - len(common)
    return Compared(comparison, known, only, num_unreadable, num_trained_on, lacking, (engine_a, engine_b))
