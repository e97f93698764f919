"""Answers as tensors, and the bytes of a response."""

import json
import struct
from typing import Any

import pytest

from orchestrator.contract.lines.answers import Answer
from orchestrator.gateway.inference.outputs import OUTPUTS, OUTPUTS_OF_LINES, Labels, chosen_outputs, tensor_of
from orchestrator.gateway.inference.requests import InferenceRequest, RequestedOutput
from orchestrator.gateway.inference.responses import InferenceResponse
from orchestrator.gateway.inference.tensors import OutputTensor
from orchestrator.gateway.problems import ProblemError

LABELS = Labels(("ash", "birch", "cedar"))
BAD = Answer("b", 1, "F", "unreadable", error="not_an_image: no known image format (3 bytes)")


def good(**changes: Any) -> Answer:
    facts: dict[str, Any] = {
        "label": "birch", "score": 0.75, "decision": "accept",
        "scores": (("birch", 0.75), ("ash", 0.25), ("cedar", 0.0)),
    }  # fmt: skip
    return Answer("a", 1, "4", **(facts | changes))


def values(name: str, *answers: Answer, classes: int = 0) -> tuple[tuple[int, ...], list[Any]]:
    tensor = tensor_of(RequestedOutput(name, False, classes), answers, LABELS)
    return tensor.shape, list(tensor.values)


def request(*outputs: RequestedOutput) -> InferenceRequest:
    return InferenceRequest("", (), outputs or None, binary=True)


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("label", (2,), ["birch", ""]),
        ("score", (2,), [0.75, 0.0]),
        ("decision", (2,), ["accept", ""]),
        ("scores", (2, 3), [0.25, 0.75, 0.0, 0.0, 0.0, 0.0]),
        ("reason", (2,), ["", "unreadable"]),
        ("bin", (2,), ["4", "F"]),
    ],
)
def test_outputs_have_a_row_for_each_image_and_nothing_for_an_unreadable_one(name, shape, expected):
    assert values(name, good(), BAD) == (shape, expected)


def test_classification_names_the_best_labels_and_no_more_than_there_are():
    two = ["0.750000:1:birch", "0.250000:0:ash"]

    assert values("scores", good(), classes=2) == ((1, 2), two)
    assert values("scores", good(), BAD, classes=9) == ((2, 3), [*two, "0.000000:2:cedar", "", "", ""])
    assert values("scores", good(scores=(("birch", 0.75),)), good(), classes=2)[0] == (2, 1)


def test_labels_of_another_version_have_no_place():
    assert values("scores", good(scores=(("oak", 0.9), ("ash", 0.1)))) == ((1, 3), [0.1, 0.0, 0.0])


def test_all_outputs_are_returned_where_none_is_named():
    assert [output.name for output in chosen_outputs(request(), OUTPUTS)] == [
        "label", "score", "decision", "scores", "reason",
    ]  # fmt: skip
    assert [output.name for output in chosen_outputs(request(), OUTPUTS_OF_LINES)][-1] == "bin"


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (RequestedOutput("bin", True), "there is no output 'bin'; there are: label, score"),
        (RequestedOutput("label", True, 2), "classification is for the output 'scores', not 'label'"),
    ],
)
def test_outputs_that_there_are_not_are_refused(output, words):
    with pytest.raises(ProblemError, match=words) as caught:
        chosen_outputs(request(output), OUTPUTS)

    assert caught.value.status_code == 400


def test_a_response_has_its_json_and_then_the_bytes_of_binary_outputs_in_their_order():
    outputs = [
        OutputTensor("label", "BYTES", (2,), ["Bärlauch", ""], True),
        OutputTensor("score", "FP32", (2,), [0.5, 0.0], False),
        OutputTensor("scores", "FP32", (1, 2), [0.5, 0.25], True),
    ]

    body, length = InferenceResponse("trees", "3", "7", outputs, {"model": "trees@3"}).encode()

    text = "Bärlauch".encode()
    label = struct.pack("<I", len(text)) + text + struct.pack("<I", 0)
    assert length is not None
    assert body[length:] == label + struct.pack("<2f", 0.5, 0.25)
    assert json.loads(body[:length]) == {
        "model_name": "trees",
        "model_version": "3",
        "id": "7",
        "parameters": {"model": "trees@3"},
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": len(label)}},
            {"name": "score", "datatype": "FP32", "shape": [2], "data": [0.5, 0.0]},
            {"name": "scores", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}},
        ],
    }


def test_a_response_in_json_alone_says_no_length():
    body, length = InferenceResponse("trees", "3", "", [OutputTensor("label", "BYTES", (1,), ["ash"], False)]).encode()

    assert length is None
    assert json.loads(body) == {
        "model_name": "trees",
        "model_version": "3",
        "outputs": [{"name": "label", "datatype": "BYTES", "shape": [1], "data": ["ash"]}],
    }
