"""What the protocol says of a server, and of a model: metadata, configuration, the index of the repository."""

import json
from importlib.metadata import version
from typing import Any

from orchestrator.contract.lines.model_lines import model_line_name
from orchestrator.contract.lines.settings import Line
from orchestrator.gateway.context import GatewayContext
from orchestrator.gateway.health import why_not_ready
from orchestrator.gateway.inference.images import IMAGE, MOST_IMAGES, PIXELS
from orchestrator.gateway.inference.targets import InferenceTarget

PLATFORM = "pigeonhole"
EXTENSIONS = (
    "binary_tensor_data", "classification", "schedule_policy", "statistics", "model_configuration", "parameters",
)  # fmt: skip
_INPUTS: dict[str, tuple[str, list[int]]] = {IMAGE: ("BYTES", []), PIXELS: ("UINT8", [-1, -1, 3])}


def server_metadata() -> dict[str, Any]:
    """Name, version and extensions."""
    return {"name": PLATFORM, "version": version("pigeonhole"), "extensions": EXTENSIONS}


def model_metadata(context: GatewayContext, target: InferenceTarget, num_labels: int) -> dict[str, Any]:
    """Versions, inputs and outputs. One of the two inputs is given; the first dimension is the batch."""
    return {
        "name": target.name,
        "versions": _versions(context, target),
        "platform": PLATFORM,
        "inputs": [
            {"name": name, "datatype": datatype, "shape": [-1, *dims]} for name, (datatype, dims) in _INPUTS.items()
        ],
        "outputs": [
            {"name": name, "datatype": datatype, "shape": [-1, *_dims(name, num_labels)]}
            for name, datatype in target.outputs.items()
        ],
    }


def model_config(target: InferenceTarget, labels: tuple[str, ...]) -> dict[str, Any]:
    """The same as a configuration, with the labels; dimensions are those of one image."""
    model = target.model
    parameters = {"labels": json.dumps(labels, ensure_ascii=False)}
    if model is not None:
        parameters |= {"model": model.ref, "digest": model.digest}
    return {
        "name": target.name,
        "platform": PLATFORM,
        "backend": PLATFORM,
        "max_batch_size": MOST_IMAGES,
        "input": [
            {"name": name, "data_type": _config_type(datatype), "dims": dims, "optional": True}
            for name, (datatype, dims) in _INPUTS.items()
        ],
        "output": [
            {"name": name, "data_type": _config_type(datatype), "dims": _dims(name, len(labels))}
            for name, datatype in target.outputs.items()
        ],
        "parameters": {name: {"string_value": text} for name, text in parameters.items()},
    }


def repository_index(context: GatewayContext, *, only_ready: bool) -> list[dict[str, str]]:
    """All versions of all models, and the lines, with their states."""
    states = {name: _state(context, line) for name, line in context.lines.all().items()}
    found = [{"name": name, "version": ""} | state for name, state in states.items() if not name.startswith("@")]
    models = context.models.list()
    newest = {model.name: model.ref for model in models}  # sorted by number
    for model in models:
        by_name = [model.name] if newest[model.name] == model.ref else []
        opened = [states[line] for each in (model.ref, *by_name) if (line := model_line_name(each)) in states]
        state = max(opened, key=lambda each: each["state"] == "READY", default=_NOT_OPEN)
        found.append({"name": model.name, "version": str(model.version)} | state)
    return [each for each in found if each["state"] == "READY" or not only_ready]


_NOT_OPEN = {"state": "UNAVAILABLE", "reason": "not open; a worker loads it when it is asked for (ready, infer)"}


def _state(context: GatewayContext, line: Line) -> dict[str, str]:
    why = why_not_ready(context, line)
    if why is None:
        return {"state": "READY", "reason": ""}
    return {"state": "LOADING" if why.startswith("opening") else "UNAVAILABLE", "reason": why}


def _versions(context: GatewayContext, target: InferenceTarget) -> list[str]:
    """Of the model; a line has none, since its model changes while it runs."""
    if target.reference is None or target.model is None:
        return []
    return [str(each.version) for each in context.models.list() if each.name == target.model.name]


def _dims(output: str, num_labels: int) -> list[int]:
    return [num_labels] if output == "scores" else []


def _config_type(datatype: str) -> str:
    return "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"
