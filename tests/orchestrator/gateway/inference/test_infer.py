"""How a request's images are pushed, and tried again."""

import asyncio
import gc
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import pytest

from orchestrator.contract.errors import PushRefusedError
from orchestrator.contract.lines.answers import Answer
from orchestrator.gateway.inference.infer import Push, push_all, push_until_predicted
from orchestrator.gateway.inference.targets import InferenceTarget
from orchestrator.gateway.problems import ProblemError
from orchestrator.gateway.waiters import Waiters
from orchestrator.lines.request import PushOptions

GOOD = Answer("a", 1, "none", label="cat", score=0.9)
LATE = Answer("a", 1, "none", "late", label="cat", score=0.9)
UNREADABLE = Answer("a", 1, "none", "unreadable", error="not_an_image: junk")
BUSY = PushRefusedError("@m", "busy", 2.5)


@dataclass
class FakeClient:
    """Answers each item and pass with what the test says."""

    answers: dict[tuple[str, int], Answer | Exception]
    pushed: list[tuple[str, int]] = field(default_factory=list)
    options: list[PushOptions] = field(default_factory=list)

    def submit_with(self, image: bytes, item: str, pass_: int, options: PushOptions) -> "Future[Answer]":
        self.pushed.append((item, pass_))
        self.options.append(options)
        answer, future = self.answers[item, pass_], Future[Answer]()
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
        return future


def pushed(
    client: FakeClient, *items: str, deadline_s: float = 60.0, function: Any = push_until_predicted
) -> list[Answer]:
    images = [b"image"] * len(items)
    found: list[Answer] = asyncio.run(
        function(client, images, items, Push("m", Waiters(), {}, time.perf_counter(), deadline_s, wait=False))
    )
    return found


def test_only_images_without_a_prediction_are_pushed_again_as_another_pass_with_the_time_that_is_left():
    client = FakeClient({("a", 1): GOOD, ("b", 1): LATE, ("c", 1): UNREADABLE, ("b", 2): LATE, ("b", 3): GOOD})

    assert pushed(client, "a", "b", "c") == [GOOD, GOOD, UNREADABLE]
    assert client.pushed == [("a", 1), ("b", 1), ("c", 1), ("b", 2), ("b", 3)]
    assert (client.options[0].deadline, client.options[0].retry) == (60.0, False)
    assert all(options.deadline < 60 for options in client.options[3:])


def test_an_image_that_is_not_predicted_by_the_deadline_is_an_error_of_the_model():
    client = FakeClient({("a", 1): LATE})

    with pytest.raises(ProblemError) as caught:
        pushed(client, "a", deadline_s=0.01)

    assert (caught.value.status_code, caught.value.detail) == (503, "m: late: not predicted by the deadline")
    assert caught.value.headers == {"retry-after": "1"}


def test_records_of_failures_are_tried_again_some_times_only():
    client = FakeClient({("a", pass_): LATE for pass_ in range(1, 20)})

    with pytest.raises(ProblemError):
        pushed(client, "a")

    assert len(client.pushed) == 10


def test_a_refusal_says_when_to_come_again():
    client = FakeClient({("a", 1): GOOD, ("b", 1): BUSY})

    with pytest.raises(ProblemError) as caught:
        pushed(client, "a", "b")

    assert (caught.value.status_code, caught.value.headers) == (503, {"retry-after": "3"})
    assert caught.value.detail == "m is busy: refused: more is asked for than the workers can do"


def test_refusals_of_a_batch_leave_nothing_for_the_log(caplog):
    with pytest.raises(ProblemError):
        pushed(FakeClient({(item, 1): BUSY for item in "abc"}), "a", "b", "c")
    gc.collect()

    assert caplog.text == ""


def test_a_line_answers_also_what_was_late():
    assert pushed(FakeClient({("a", 1): LATE}), "a", function=push_all) == [LATE]


@pytest.mark.parametrize(
    ("timeout_us", "priority", "of_model", "of_line"),
    [
        (0, 0, 50.0, None),
        (0, 1, 25.0, None),
        (0, 2, 50.0, None),
        (0, 9, 225.0, None),
        (0, 1 << 63, 3600.0, None),
        (250_000, 7, 0.25, 0.25),
        (1, 0, 0.001, 0.001),
        (1 << 63, 0, 3600.0, 3600.0),
    ],
)
def test_a_timeout_is_the_deadline_and_without_one_a_lower_priority_waits_longer(
    timeout_us, priority, of_model, of_line
):
    model, line = InferenceTarget("m", "", "@m", "m", None), InferenceTarget("post", "", "post", None, None)

    assert model.deadline_s(timeout_us, priority) == of_model
    assert line.deadline_s(timeout_us, priority) == of_line
