"""Writes the folder of a trained model: weights, card, records of the training, and the report."""

# Shapes: N images of the data set, M chosen images, L labels.
import contextlib
import hashlib
import json
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
from numpy.typing import NDArray
from torch import nn

from modeling.data.dataset import Targets
from modeling.data.duplicates import Duplicates
from modeling.data.images import Indices, load_image
from modeling.data.splits import write_split
from modeling.durable import replaced_folder
from modeling.errors import ImageError, ModelingError
from modeling.images.preprocessing import Preprocessing
from modeling.metrics.answers import Answers, Scored
from modeling.metrics.calibration import Calibration
from modeling.metrics.evaluation import Evaluation, NothingAccepted, document_text
from modeling.metrics.figures import evaluate_answers
from modeling.metrics.thresholds import fit_calibration, why_nothing_accepted
from modeling.registry.card import CARD_FILE, INT8_FILE, WEIGHTS_FILE, ModelCard
from modeling.report.content import LabelledPicture, Picture, ReportContent, Sample
from modeling.training.data import TrainingData, data_facts
from modeling.training.fit.history import HISTORY_FILE, EpochRow, history_csv
from modeling.training.request import TrainRequest

SPLIT_FILE = "split.csv"
DATA_REPORT_FILE = "data_report.json"
QUARANTINE_FILE = "quarantine.csv"
EVALUATION_FILE = "evaluation.json"
_NUM_SAMPLES, _NUM_PAIRS = 24, 12


@dataclass(frozen=True, slots=True, eq=False)
class TrainedNetwork:
    """A trained network, a function from image indices to its logits ML, and facts about its training."""

    network: nn.Module
    preprocessing: Preprocessing
    logits_of: Callable[[Indices], NDArray[np.float32]]
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A model's card, and the bytes of its weights file and of its quantised network, if it has one."""

    card: ModelCard
    weights: bytes
    int8: bytes | None = None


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutResults:
    """Results on the held-out images: calibration and accuracy on validation, the evaluation on `part`.

    nothing_accepted: why the thresholds accept no image; None if they accept some, or there are none. engine: what
    answered `part`.
    """

    calibration: Calibration | None
    validation_accuracy: float | None
    part: str
    indices_M: Targets
    answers: Answers | None
    evaluation: Evaluation | None
    nothing_accepted: NothingAccepted | None
    engine: str = "torch fp32"

    @property
    def document(self) -> dict[str, Any]:
        """The content of `evaluation.json`."""
        assert self.evaluation is not None
        nothing = None if self.nothing_accepted is None else asdict(self.nothing_accepted)
        return {"part": self.part, "engine": self.engine} | self.evaluation.to_json() | {"nothing_accepted": nothing}


def calibrate_and_test(data: TrainingData, trained: TrainedNetwork, *, max_error: float) -> HeldOutResults:
    """Calibrate on the validation part, then evaluate once on the test part (on validation if there is none)."""
    (validation, validation_M), (test, test_M) = (
        _answers(data, trained, part) for part in (data.split.validation, data.split.test)
    )
    calibration = fit_calibration(validation, max_error=max_error) if validation else None
    nothing = why_nothing_accepted(validation, calibration) if validation and calibration else None
    accuracy = None
    if validation:
        accuracy = float((validation.logits_NL.argmax(axis=1) == validation.targets_N).mean())
    part, indices, answers = ("test", test_M, test)
    if test is None:
        part, indices, answers = ("validation", validation_M, validation)
    evaluation = evaluate_answers(answers, calibration) if answers else None
    return HeldOutResults(calibration, accuracy, part, indices, answers, evaluation, nothing)


def _answers(data: TrainingData, trained: TrainedNetwork, indices_M: Indices) -> tuple[Answers | None, Indices]:
    """The network's answers on a part, without its lost images, and their indices; None if there are none."""
    if not len(indices_M):
        return None, indices_M
    logits_ML = trained.logits_of(indices_M)
    kept_M = ~data.lost.mask(indices_M)  # after reading them
    if not kept_M.any():
        return None, indices_M[kept_M]
    indices_M = indices_M[kept_M]
    names = tuple(data.dataset.name(int(index)) for index in indices_M)
    return Answers(data.dataset.labels, names, data.dataset.targets_N[indices_M], logits_ML[kept_M]), indices_M


def weights_of(network: nn.Module) -> bytes:
    """The content of `model.safetensors`."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    return safetensors.torch.save(state)


def make_model(request: TrainRequest, data: TrainingData, trained: TrainedNetwork, held_out: HeldOutResults) -> Model:
    """Create weights and card; two runs that end with the same weights give the same bytes."""
    weights = weights_of(trained.network)
    training = {"data": data_facts(data), "seed": request.seed, **_origin(request), **trained.facts}
    if held_out.nothing_accepted is not None:
        training["nothing_accepted"] = asdict(held_out.nothing_accepted)
    card = ModelCard(
        architecture=request.architecture,
        labels=data.dataset.labels,
        preprocessing=trained.preprocessing,
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        metrics=metrics_of(data, held_out),
        training=training | {"versions": _versions()},
        calibration=held_out.calibration,
    )
    return Model(card, weights)


def _origin(request: TrainRequest) -> dict[str, Any]:
    """What the training started from, and why, where that was chosen by rule."""
    pin = request.weights_pin
    weights = {"weights": request.weights} if pin is None else {"weights": pin.name, "weights_sha256": pin.sha256}
    return weights | ({} if request.chosen is None else {"chosen": asdict(request.chosen)})


def metrics_of(data: TrainingData, held_out: HeldOutResults) -> dict[str, float]:
    """The metrics of a card."""
    counts = ("train", "validation", "test")
    metrics: dict[str, float] = {f"num_{part}": len(getattr(data.split, part)) for part in counts}
    if held_out.validation_accuracy is not None:
        metrics["validation_accuracy"] = held_out.validation_accuracy
    figures = held_out.evaluation
    if figures is None or held_out.part != "test":
        return metrics
    metrics |= {"test_num_right": figures.num_right, "test_accuracy": figures.accuracy}
    metrics["test_macro_f1"] = figures.macro_f1
    metrics |= {"test_nll": figures.nll, "test_ece": figures.ece, "test_ece_raw": figures.raw_ece}
    if figures.decisions is not None:
        metrics |= {"test_num_accepted": figures.decisions.num_accepted}
        metrics |= {"test_num_accepted_wrong": figures.decisions.num_accepted_wrong}
        shares = {"review": figures.decisions.num_reviewed, "reject": figures.decisions.num_rejected}
        metrics |= {f"test_{name}_rate": count / figures.num_images for name, count in shares.items()}
        if figures.decisions.accepted_error is not None:
            metrics["test_accepted_error"] = figures.decisions.accepted_error
    return {name: round(value, 9) for name, value in metrics.items()}


def check_output(output: Path) -> None:
    """Reject an output that exists, unless it is an empty folder or an earlier model.

    Raises:
        ModelingError: the output contains something else.
    """
    if output.exists() and not (output.is_dir() and ((output / CARD_FILE).is_file() or not os.listdir(output))):
        raise ModelingError(f"output {output} exists and is not a model; give another folder")


def write_model(
    request: TrainRequest,
    data: TrainingData,
    trained: TrainedNetwork,
    held_out: HeldOutResults,
    model: Model,
    history: Sequence[EpochRow],
) -> None:
    """Write all files to a folder beside the output, then rename it.

    Raises:
        ModelingError: the disk is full or another write error occurs; the output does not change.
    """
    output = request.output
    try:
        with replaced_folder(output) as staging:  # replaces at most an earlier model: check_output has checked that
            (staging / WEIGHTS_FILE).write_bytes(model.weights)
            (staging / CARD_FILE).write_bytes(model.card.to_bytes())
            if model.int8 is not None:
                (staging / INT8_FILE).write_bytes(model.int8)
            _write_record(staging, data, held_out, history)
            _write_report(staging, data, trained, held_out, model.card, history)
    except OSError as err:
        raise ModelingError(
            f"the trained model cannot be written to {output}: {err.strerror or err}; check the disk and its "
            "free space, and train again: the training resumes from its last checkpoint"
        ) from err


def _write_record(folder: Path, data: TrainingData, held_out: HeldOutResults, history: Sequence[EpochRow]) -> None:
    """Write the files for programs: split, data report, quarantine list, history and evaluation."""
    write_split(folder / SPLIT_FILE, data.dataset, data.report, data.split)
    (folder / DATA_REPORT_FILE).write_bytes(
        (json.dumps(data.report.to_json(), indent=2, ensure_ascii=False) + "\n").encode()
    )
    data.report.write_quarantine(folder / QUARANTINE_FILE)
    if history:
        (folder / HISTORY_FILE).write_bytes(history_csv(history))
    if held_out.evaluation is not None:
        (folder / EVALUATION_FILE).write_bytes(document_text(held_out.document).encode())


def _write_report(
    folder: Path,
    data: TrainingData,
    trained: TrainedNetwork,
    held_out: HeldOutResults,
    card: ModelCard,
    history: Sequence[EpochRow],
) -> None:
    """Write the report for people."""
    from modeling.report.write import write_report  # matplotlib is slow to import

    def picture(index: int) -> Picture | None:
        place = int(held_out.indices_M[index])
        try:
            return load_image(data.dataset, place, trained.preprocessing, digest=data.report.digests[place])
        except ImageError:
            return None

    mixed = data.report.mixed_duplicates()
    content = ReportContent(
        title=f"{card.architecture}, {len(card.labels)} classes",
        facts=_facts(card),
        history=[dict(row) for row in history],
        data=data.report.to_json(),
        evaluation=held_out.evaluation,
        calibration=held_out.calibration,
        part=held_out.part,
        picture=picture,
        samples=_samples(held_out, picture),
        doubtful=[_pair(data, found, trained.preprocessing) for found in mixed[:_NUM_PAIRS]],
        num_doubtful=len(mixed),
    )
    write_report(folder, content)


def _pair(
    data: TrainingData, found: Duplicates, preprocessing: Preprocessing
) -> tuple[LabelledPicture, LabelledPicture, bool]:
    """The first image of a set of copies in several classes, and the first one of another class."""
    targets_N = data.dataset.targets_N
    first = found.indices[0]
    second = next(index for index in found.indices if targets_N[index] != targets_N[first])

    def labelled(index: int) -> LabelledPicture:
        pixels = None
        with contextlib.suppress(ImageError):
            pixels = load_image(data.dataset, index, preprocessing, digest=data.report.digests[index])
        return LabelledPicture(data.dataset.name(index), data.dataset.labels[targets_N[index]], pixels)

    return labelled(first), labelled(second), found.exact


def _facts(card: ModelCard) -> list[tuple[str, str]]:
    """The lines at the end of a report."""
    preprocessing = card.preprocessing
    lines = [
        ("architecture", card.architecture),
        ("images", f"{preprocessing.height} x {preprocessing.width} px, {preprocessing.mode}"),
        ("seed", str(card.training["seed"])),
        ("weights sha256", card.weights_sha256),
    ]
    if card.training.get("weights"):
        digest = card.training.get("weights_sha256", "")[:12]
        lines.append(("started from", f"{card.training['weights']} {digest}".rstrip()))
    if chosen := card.training.get("chosen"):
        lines.append(("network chosen", f"{chosen['reason']} (quality {chosen['quality']})"))
    recipe = card.training.get("plan", {}).get("recipe", {})
    return lines + [(name.replace("_", " "), str(value)) for name, value in recipe.items()]


def _samples(held_out: HeldOutResults, picture: Callable[[int], Picture | None]) -> list[Sample]:
    """An evenly spaced sample of the part's images, with the model's answers."""
    if held_out.answers is None:
        return []
    answers, calibration = held_out.answers, held_out.calibration
    scored = Scored.of(answers, calibration.temperature if calibration else 1.0)
    samples = []
    for index in np.linspace(0, len(answers.names) - 1, min(_NUM_SAMPLES, len(answers.names))).astype(int).tolist():
        pixels = picture(index)
        if pixels is None:
            continue
        predicted, score = int(scored.predicted_N[index]), float(scored.scores_N[index])
        samples.append(
            Sample(
                name=answers.names[index],
                label=answers.labels[int(answers.targets_N[index])],
                predicted=answers.labels[predicted],
                score=score,
                decision=calibration.decide(predicted, score) if calibration else None,
                picture=pixels,
            )
        )
    return samples


def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: version(name) for name in ("torch", "numpy", "pillow")}
