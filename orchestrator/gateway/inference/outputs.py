"""The answers to a request's images, as the tensors that are returned."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from orchestrator.contract.lines.answers import Answer
from orchestrator.gateway.inference.errors import bad_request
from orchestrator.gateway.inference.requests import InferenceRequest, RequestedOutput
from orchestrator.gateway.inference.tensors import BYTES, OutputTensor

OUTPUTS = {"label": BYTES, "score": "FP32", "decision": BYTES, "scores": "FP32", "reason": BYTES}
"""The outputs of every model, with their datatypes. What is not known of an image is empty, or 0."""
OUTPUTS_OF_LINES = {**OUTPUTS, "bin": BYTES}

_TEXTS: dict[str, Callable[[Answer], str]] = {
    "label": lambda answer: answer.label or "",
    "decision": lambda answer: answer.decision or "",
    "reason": lambda answer: answer.reason or "",
    "bin": lambda answer: answer.bin,
}


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of a model, in the order of its outputs."""

    names: tuple[str, ...]
    places: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "places", {name: place for place, name in enumerate(self.names)})


def chosen_outputs(request: InferenceRequest, known: dict[str, str]) -> Sequence[RequestedOutput]:
    """The outputs that a request asks for. known: those that there are. Raises ProblemError for another one."""
    if request.outputs is None:
        return [RequestedOutput(name, request.binary) for name in known]
    for output in request.outputs:
        if output.name not in known:
            raise bad_request(f"there is no output {output.name!r}; there are: {', '.join(known)}")
        if output.classes and output.name != "scores":
            raise bad_request(f"classification is for the output 'scores', not {output.name!r}")
    return request.outputs


def tensor_of(output: RequestedOutput, answers: Sequence[Answer], labels: Labels) -> OutputTensor:
    """One output of all images, in their order."""
    if output.name == "scores":
        return _classes(output, answers, labels) if output.classes else _scores(output, answers, labels)
    shape = (len(answers),)
    if output.name == "score":
        return OutputTensor(output.name, "FP32", shape, [answer.score or 0.0 for answer in answers], output.binary)
    text = _TEXTS[output.name]
    return OutputTensor(output.name, BYTES, shape, [text(answer) for answer in answers], output.binary)


def _scores(output: RequestedOutput, answers: Sequence[Answer], labels: Labels) -> OutputTensor:
    """A row for each image, with a score for each label; those that the answer does not name have 0."""
    num = len(labels.names)
    values = [0.0] * (num * len(answers))
    for row, answer in enumerate(answers):
        for label, score in answer.scores:
            if (place := labels.places.get(label)) is not None:
                values[row * num + place] = score
    return OutputTensor(output.name, "FP32", (len(answers), num), values, output.binary)


def _classes(output: RequestedOutput, answers: Sequence[Answer], labels: Labels) -> OutputTensor:
    """The best labels of each image as `score:place:label`; empty for an image without a prediction."""
    known = [[pair for pair in answer.scores if pair[0] in labels.places] for answer in answers]
    count = min(output.classes, len(labels.names), *(len(pairs) for pairs in known if pairs))
    values: list[str] = []
    for pairs in known:
        texts = [f"{score:f}:{labels.places[label]}:{label}" for label, score in pairs[:count]]
        values += texts or [""] * count
    return OutputTensor(output.name, BYTES, (len(answers), count), values, output.binary)
