"""The panels of one model: computes what is asked for, and gives what each sheet shows as data too."""

import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from modeling.explain import panels
from modeling.explain.drawing import Sheet
from modeling.explain.features import feature_maps, grad_cam
from modeling.explain.filters import edge_filters, edge_responses, learned_filters, learned_responses, weight_images
from modeling.explain.ideal import Ascent, ideal_image
from modeling.explain.kinds import Kind
from modeling.explain.layers import first_convolution, last_tokens
from modeling.explain.panels import PredictedImage
from modeling.explain.request import ExplainRequest, Picture
from modeling.explain.robustness import Attack, Flip, fooled_at, smallest_flip
from modeling.inference.classifier import Classifier
from modeling.networks.architectures import get_architecture

MOST_IDEAL = 12  # labels whose ideal images are made by default

SheetWithFacts = tuple[Sheet, dict[str, Any]]  # a sheet, and what it shows as data


@dataclass(frozen=True, slots=True)
class ExplainedModel:
    """The model to explain, with its name on the sheets, and a second one to compare with."""

    name: str
    classifier: Classifier
    second_name: str | None = None
    second: Classifier | None = None

    @property
    def network(self) -> nn.Module:
        return self.classifier.network

    @property
    def temperature(self) -> float:
        calibration = self.classifier.card.calibration
        return calibration.temperature if calibration else 1.0


@dataclass(frozen=True, slots=True)
class Panel:
    """A file that will be written. `make` computes the sheet and its data."""

    kind: Kind
    file_name: str
    make: Callable[[], SheetWithFacts]


def feature_layers(explained: ExplainedModel, request: ExplainRequest) -> list[str]:
    """The layer asked for, or the first convolution and the layer of Grad-CAM."""
    if request.layer is not None:
        return [request.layer]
    first = first_convolution(explained.network)
    layers = [first[0] if first else None, cam_layer(explained, request)]
    return list(dict.fromkeys(layer for layer in layers if layer is not None))


def cam_layer(explained: ExplainedModel, request: ExplainRequest) -> str | None:
    """The layer of Grad-CAM: the one asked for, the architecture's, or a transformer's last tokens."""
    own = get_architecture(explained.classifier.card.architecture).cam_layer
    return request.layer or own or last_tokens(explained.network)


class Renderer:
    """Makes the panels of one model; each image is classified once."""

    def __init__(self, explained: ExplainedModel, request: ExplainRequest) -> None:
        self._explained = explained
        self._request = request
        self._labels = explained.classifier.labels
        self._index = {label: i for i, label in enumerate(self._labels)}
        self._scores: dict[int, dict[str, float]] = {}

    def panels(self, kind: Kind) -> list[Panel]:
        """The panels of a kind."""
        whole: dict[Kind, Callable[[], SheetWithFacts]] = {
            "weights": self._weights,
            "filters": self._filters,
            "ideal": self._ideal,
            "robustness": self._robustness,
        }
        each: dict[Kind, Callable[[int], SheetWithFacts]] = {
            "filters": self._responses,
            "features": self._features,
            "gradcam": self._gradcam,
        }
        made = [Panel(kind, f"{kind}.png", whole[kind])] if kind in whole else []
        if kind in each:
            names = _file_names(kind, self._request.pictures)
            made += [Panel(kind, name, lambda i=i: each[kind](i)) for i, name in enumerate(names)]  # type: ignore[misc]
        return made

    def _weights(self) -> SheetWithFacts:
        found = weight_images(self._explained.network, self._explained.classifier.preprocessing)
        chosen = [self._index[label] for label in self._request.labels or self._labels]
        shown = [self._labels[i] for i in chosen[: panels.MOST_LABELS]]
        return panels.weights_sheet(self._explained.name, found, self._labels, chosen), {"labels": shown}

    def _filters(self) -> SheetWithFacts:
        learned = learned_filters(self._explained.network)
        facts = {"layer": learned.layer, "num_filters": len(learned.kernels_FhwC)}
        return panels.filters_sheet(self._explained.name, learned, edge_filters()), facts

    def _responses(self, i: int) -> SheetWithFacts:
        pixels_HWC, fixed = self._request.pictures[i].pixels_HWC, edge_filters()
        learned = learned_filters(self._explained.network)
        learned_FHW = learned_responses(self._explained.network, pixels_HWC, self._explained.classifier.preprocessing)
        responses = edge_responses(pixels_HWC, fixed)
        sheet = panels.responses_sheet(self._predicted(i), learned, learned_FHW, fixed, responses)
        return sheet, self._facts(i) | {"layer": learned.layer}

    def _features(self, i: int) -> SheetWithFacts:
        pixels_HWC, preprocessing = self._request.pictures[i].pixels_HWC, self._explained.classifier.preprocessing
        found = [
            feature_maps(self._explained.network, pixels_HWC, preprocessing, layer)
            for layer in feature_layers(self._explained, self._request)
        ]
        strongest = {maps.layer: [int(channel) for channel in maps.channels_F[: panels.MOST_MAPS]] for maps in found}
        return panels.features_sheet(self._predicted(i), found), self._facts(i) | {"strongest": strongest}

    def _gradcam(self, i: int) -> SheetWithFacts:
        predicted, pixels_HWC = self._predicted(i), self._request.pictures[i].pixels_HWC
        classifier = self._explained.classifier
        layer = cam_layer(self._explained, self._request)
        assert layer is not None, "the plan leaves gradcam out without a layer"
        heats = []
        for label in self._request.labels or (predicted.label,):
            heat = grad_cam(classifier.network, pixels_HWC, classifier.preprocessing, layer, self._index[label])
            heats.append((label, self._answers(i)[label], heat))
        scores = {label: round(score, 6) for label, score, _ in heats}
        return panels.gradcam_sheet(predicted, heats), self._facts(i) | {"layer": layer, "scores": scores}

    def _ideal(self) -> SheetWithFacts:
        ascent, explained = Ascent(seed=self._request.seed), self._explained
        network, preprocessing = explained.network, explained.classifier.preprocessing
        found = [
            ideal_image(network, preprocessing, self._index[label], ascent, explained.temperature)
            for label in self._ideal_labels()
        ]
        scores = {self._labels[image.label]: round(image.score, 6) for image in found}
        return panels.ideal_sheet(explained.name, found, self._labels, ascent), {"scores": scores, "seed": ascent.seed}

    def _ideal_labels(self) -> Sequence[str]:
        if self._request.labels or len(self._labels) <= MOST_IDEAL:
            return self._request.labels or self._labels
        predicted = dict.fromkeys(self._predicted(i).label for i in range(len(self._request.pictures)))
        return list(predicted)[:MOST_IDEAL]

    def _robustness(self) -> SheetWithFacts:
        explained, attack = self._explained, Attack(seed=self._request.seed)
        rows: list[tuple[PredictedImage, Flip, float | None]] = []
        for i, picture in enumerate(self._request.pictures):
            network, preprocessing = explained.network, explained.classifier.preprocessing
            flip = smallest_flip(network, picture.pixels_HWC, preprocessing, attack, explained.temperature)
            rows.append((self._predicted(i), flip, self._multiple(flip)))
        flips = [flip for _, flip, _ in rows]
        images = [
            self._facts(i) | _change(flip, self._labels, multiple, compared=explained.second is not None)
            for i, (_, flip, multiple) in enumerate(rows)
        ]
        summary = _summary(flips, attack)
        sheet = panels.robustness_sheet(explained.name, rows, self._labels, summary, explained.second_name)
        return sheet, {"median_epsilon": _median(flips), "summary": summary, "images": images}

    def _multiple(self, flip: Flip) -> float | None:
        second = self._explained.second
        if second is None or flip.epsilon is None:
            return None
        return fooled_at(second.network, second.preprocessing, flip)

    def _predicted(self, i: int) -> PredictedImage:
        picture = self._request.pictures[i]
        label, score = next(iter(self._answers(i).items()))
        return PredictedImage(picture.path.name, picture.pixels_HWC, label, score)

    def _answers(self, i: int) -> dict[str, float]:
        """Every label's score of a picture, best first, as the model reports it."""
        if i not in self._scores:
            pixels_1HWC = self._request.pictures[i].pixels_HWC[None]
            (prediction,) = self._explained.classifier.predict(pixels_1HWC, len(self._labels))
            self._scores[i] = dict(zip(prediction.labels, prediction.scores, strict=True))
        return self._scores[i]

    def _facts(self, i: int) -> dict[str, Any]:
        predicted, path = self._predicted(i), str(self._request.pictures[i].path)
        return {"image": path, "label": predicted.label, "score": round(predicted.score, 6)}


def _change(flip: Flip, labels: Sequence[str], multiple: float | None, *, compared: bool) -> dict[str, Any]:
    """The result of the robustness search for one image, as data; epsilon in grey levels of 255."""
    second = {"second_model_fooled": multiple == 1.0, "second_model_fooled_at": multiple} if compared else {}
    return {
        "epsilon": flip.epsilon,
        "flipped_to": labels[flip.flipped] if flip.epsilon is not None else None,
        "noise_flips": flip.num_noise_flips,
        "noises": flip.num_noises,
        "survives_saving": flip.survives_saving,
    } | second


def _median(flips: Sequence[Flip]) -> float | None:
    """The median of the smallest changes, in grey levels; an image that no change flips counts as the largest."""
    epsilons = [float("inf") if flip.epsilon is None else flip.epsilon for flip in flips]
    middle = statistics.median(epsilons)
    return None if middle == float("inf") else middle


def _summary(flips: Sequence[Flip], attack: Attack) -> str:
    median = _median(flips)
    num_noises, num_flips = sum(flip.num_noises for flip in flips), sum(flip.num_noise_flips for flip in flips)
    found = f"more than {attack.largest:g}" if median is None else f"{median:.2g}"
    change = f"Median of {len(flips)} images: a change of" if len(flips) > 1 else "A change of"
    return (
        f"{change} {found} grey levels of 255 flips the answer; noise as large did {num_flips} of {num_noises} times."
    )


def _file_names(kind: Kind, pictures: Sequence[Picture]) -> list[str]:
    """A file name for each image's sheet, after the image's own; equal names are numbered."""
    names: list[str] = []
    for picture in pictures:
        stem = re.sub(r"[^\w.-]+", "-", picture.path.stem)[:100] or "image"
        number, name = 1, f"{kind}-{stem}.png"
        while name.lower() in {taken.lower() for taken in names}:
            number += 1
            name = f"{kind}-{stem}-{number}.png"
        names.append(name)
    return names
