"""Lines that real workers serve."""

import pytest

from orchestrator.contract.lines.answers import Answer
from tests.support.pushes import Pusher, digit_png, open_line
from tests.support.workers import Cluster

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


@pytest.fixture
def pusher(running_cluster: Cluster, request: pytest.FixtureRequest) -> Pusher:
    """A line that was created while the worker ran."""
    return open_line(running_cluster, f"line-{abs(hash(request.node.name)) % 10**8}")


def test_a_push_gets_the_bin_of_its_label_and_all_that_is_known(pusher: Pusher):
    answer = pusher.ask("a", digit_png(1))

    assert (answer.item, answer.pass_, answer.reason, answer.error) == ("a", 1, None, None)
    assert answer.bin == f"bin-{answer.label}"
    assert answer.scores[0] == (answer.label, answer.score)
    assert (len(answer.scores), answer.model, answer.map_version) == (5, "digits@1", 1)
    assert set(answer.stage_ms) == {"queue", "decode", "device"}


def test_an_unreadable_image_gets_its_own_answer_and_its_neighbours_theirs(pusher: Pusher):
    names = [f"good-{number}" for number in range(20)]
    expected = [pusher.ask(f"before-{number}", digit_png(number)) for number in range(20)]

    for number, name in enumerate(names):
        pusher.push(name, digit_png(number))
        pusher.push(f"bad-{number}", b"\xff\xd8 this is no image")

    assert [(each.label, each.score) for each in pusher.wait_for(*names)] == [
        (each.label, each.score) for each in expected
    ]
    bad = pusher.wait_for(*(f"bad-{number}" for number in range(20)))
    assert {(each.bin, each.reason, each.label) for each in bad} == {("F", "unreadable", None)}
    assert all(isinstance(each, Answer) and each.error for each in bad)
