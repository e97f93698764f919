"""Requests that are predicted together, and whether that is in time."""

from dataclasses import dataclass

from workers.lines.model import LineModel
from workers.lines.requests import OpenLine, Request

ANSWER_MS = 3.0  # from a prediction to its answer on the server, before that was measured


@dataclass(slots=True, eq=False)
class Batch:
    """Requests that are predicted together, with one model. all_cores: nothing else is at work."""

    line: OpenLine
    model: LineModel
    requests: list[Request]
    all_cores: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Coming:
    """What will probably be predicted next. all_cores: it is one image, and nothing else is at work."""

    model: LineModel
    all_cores: bool


def model_now(request: Request) -> LineModel:
    """The model to predict with: a newer one also takes pixels that were decoded for its predecessor alike."""
    now = request.line.model_for(request.held)
    assert request.model is not None
    return now if now.preprocessing == request.model.preprocessing else request.model


def in_time(request: Request, model: LineModel, size: int, now_s: float) -> bool:
    needed_ms = model.timings.expected_ms(size) + answer_ms(request.line)
    return now_s + needed_ms / 1e3 <= request.deadline_s


def answer_ms(line: OpenLine) -> float:
    return line.answer.expected_ms or ANSWER_MS
