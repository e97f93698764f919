"""Panels that explain a model: planned before anything is computed, then written as PNG files."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from modeling.durable import replace_durably, target_of
from modeling.errors import ModelingError
from modeling.explain.drawing import draw
from modeling.explain.filters import is_one_dense_layer
from modeling.explain.kinds import BY_DEFAULT, Kind
from modeling.explain.layers import find_layer, first_convolution
from modeling.explain.renderer import MOST_IDEAL, ExplainedModel, Panel, Renderer, cam_layer, feature_layers
from modeling.explain.request import ExplainRequest
from modeling.images.progress import Report, unreported
from modeling.networks.architectures import ARCHITECTURES

_ARCHITECTURES_SHOWN = 8


@dataclass(frozen=True, slots=True)
class ExplainPlan:
    """The files to write, and the kinds that are left out because they do not suit the model, with the reason."""

    panels: tuple[Panel, ...]
    left_out: dict[Kind, str]


@dataclass(frozen=True, slots=True)
class Written:
    """A file that was written; `facts` holds what it shows as data."""

    kind: Kind
    path: Path
    facts: dict[str, Any]


def plan(explained: ExplainedModel, request: ExplainRequest) -> ExplainPlan:
    """The panels that a request gives; nothing is computed yet.

    Raises:
        ModelingError: an unknown label or layer, or a kind asked for that does not suit the model or lacks images.
    """
    _check_labels(explained, request.labels)
    if request.layer is not None:
        find_layer(explained.network, request.layer)
    reasons = {kind: _obstacle(kind, explained, request) for kind in request.show or BY_DEFAULT}
    left_out = {kind: reason for kind, reason in reasons.items() if reason is not None}
    if request.show and left_out:
        raise ModelingError("; ".join(f"{kind}: {reason}" for kind, reason in left_out.items()))
    renderer = Renderer(explained, request)
    wanted = [kind for kind in reasons if kind not in left_out]
    return ExplainPlan(tuple(panel for kind in wanted for panel in renderer.panels(kind)), left_out)


def write(planned: ExplainPlan, output: Path, *, overwrite: bool, report: Report = unreported) -> Iterator[Written]:
    """Compute and write the planned files into a folder, one after another; each appears whole or not at all.

    report: receives which one comes next.

    Raises:
        ModelingError: before anything is computed, if a file exists and `overwrite` is not set.
    """
    taken = [panel.file_name for panel in planned.panels if os.path.lexists(output / panel.file_name)]
    if taken and not overwrite:
        more = f" and {len(taken) - 1} more" if len(taken) > 1 else ""
        raise ModelingError(f"{output / taken[0]}{more} exists; give another folder, or --overwrite to replace it")
    target_of(output).mkdir(parents=True, exist_ok=True)
    return _written(planned, output, report)


def _written(planned: ExplainPlan, output: Path, report: Report) -> Iterator[Written]:
    for number, panel in enumerate(planned.panels, 1):
        report(f"drawing {panel.file_name}, {number} of {len(planned.panels)}")
        sheet, facts = panel.make()
        path = output / panel.file_name
        replace_durably(path, draw(sheet), mode=None)
        yield Written(panel.kind, path, facts)


def _check_labels(explained: ExplainedModel, labels: Sequence[str]) -> None:
    known = explained.classifier.labels
    for label in labels:
        if label not in known:
            near = get_close_matches(label, known, n=3) or known[:10]
            more = ", ..." if near == known[:10] and len(known) > 10 else ""
            choices = ", ".join(near) + more
            raise ModelingError(f"{explained.name} has no label {label!r}; choose one of its own: {choices}")


def _obstacle(kind: Kind, explained: ExplainedModel, request: ExplainRequest) -> str | None:
    """Why a kind cannot be shown, and what to do; None where it can."""
    architecture = explained.classifier.card.architecture
    if kind == "weights":
        suits = is_one_dense_layer(explained.network)
        return None if suits else f"only a perceptron has one weight a pixel and label; this model is a {architecture}"
    if kind == "filters":
        found = first_convolution(explained.network)
        return f"a {architecture} has no convolution, so it has no filters" if found is None else None
    if kind == "ideal":
        many = len(explained.classifier.labels) > MOST_IDEAL and not request.labels and not request.pictures
        return f"{len(explained.classifier.labels)} labels are too many; choose some with --label" if many else None
    if not request.pictures:
        return "no image was given"
    if kind == "robustness" and len(explained.classifier.labels) == 1:
        return "a model of one label has no other answer"
    if kind == "features" and not feature_layers(explained, request):
        return f"a {architecture} keeps no places apart, so it has no feature maps"
    if kind == "gradcam" and cam_layer(explained, request) is None:
        return f"a {architecture} has no last layer of places; {_with_cam_layer()}, or a layer with --layer"
    return None


def _with_cam_layer() -> str:
    names = [name for name, architecture in ARCHITECTURES.items() if architecture.cam_layer]
    more = f" and {len(names) - _ARCHITECTURES_SHOWN} more" if len(names) > _ARCHITECTURES_SHOWN else ""
    return f"choose a model of {', '.join(names[:_ARCHITECTURES_SHOWN])}{more}"
