"""What a client says and decides, with a server that says what the test wants."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pytest

from orchestrator.contract.errors import PushRefusedError
from orchestrator.contract.lines.answers import Verdict
from orchestrator.contract.lines.requests import Admission, Decided
from orchestrator.lines.drivers import ThreadDriver
from orchestrator.lines.exchange import Exchange
from orchestrator.lines.pushes import Pushes
from orchestrator.lines.request import PushOptions, PushRequest, make_request
from tests.support.fake_line import FakeLineServer, record_of
from tests.support.line_worker import make_line
from tests.support.server import wait_until


class Client:
    """What a client is made of, and a fake server."""

    def __init__(self) -> None:
        self.server = FakeLineServer(make_line(deadline_ms=60_000))
        self.pushes = Pushes("post", None, "G")
        self.exchange = Exchange(self.pushes, self.server, ThreadDriver())

    def connect(self) -> None:
        self.exchange.start()
        wait_until(lambda: self.exchange.is_connected, what="it is connected")

    def push(self, item: str, deadline: float, image: bytes = b"image", *, retry: bool = True) -> PushRequest:
        request = make_request(image, item, 1, PushOptions(deadline=deadline, retry=retry), Future())
        self.exchange.offer(request)
        return request

    def stop(self) -> None:
        for request in self.pushes.waiting():
            self.pushes.decide_alone(request)
        self.exchange.stop()


class IdleDriver:
    """It never looks by itself."""

    wake_at = 0.0

    def start(self, exchange: Exchange) -> None: ...

    def wake(self) -> None: ...

    def call(self, function: Callable[..., None], *args: object) -> None:
        function(*args)

    def watch(self, channels: list[object]) -> None: ...


@pytest.fixture
def client() -> Iterator[Client]:
    made = Client()
    yield made
    made.stop()


def kinds(client: Client) -> list[str]:
    return [push.kind for push in client.server.pushed]


def test_at_the_deadline_the_servers_record_decides(client):
    client.connect()
    client.server.settled = lambda decided: record_of(decided, bin_="3", reason="next_bin")

    answer = client.push("x", 0.05).future.result()

    assert (answer.bin, answer.reason) == ("3", "next_bin")
    assert client.server.asked == ["settle 1/x"]


def test_a_second_push_of_an_item_with_a_shorter_deadline_leaves_the_first_its_time(client):
    client.connect()
    first = client.push("x", 60)
    same, other = client.push("x", 0.05), client.push("x", 0.05, b"other bytes")

    answers = [same.future.result(), other.future.result()]

    assert [(answer.bin, answer.reason) for answer in answers] == [("F", "late"), ("F", "conflict")]
    assert not first.future.done()
    assert (client.server.asked, list(client.pushes.alone)) == ([], [])


def test_deadlines_are_kept_in_their_order_whatever_the_order_of_pushes(client):
    client.connect()
    late, early = client.push("late", 1), client.push("early", 0.2)

    late.future.result()

    assert early.future.done()
    assert " ".join(client.server.asked).replace("settle ", "") == "1/early 1/late"


def test_a_server_that_is_known_to_be_away_is_not_asked(client):
    client.connect()
    client.server.alive = False
    client.server.cut()
    wait_until(lambda: not client.exchange.is_connected, what="the client has noticed")

    answers = [client.push(f"{n}", 0.001 * (n + 1)).future.result() for n in range(20)]

    assert {(answer.bin, answer.reason) for answer in answers} == {("F", "no_server")}
    assert client.server.asked == []


def test_a_server_that_freezes_costs_no_decision_and_decides_again_when_it_is_back(client):
    client.connect()
    client.server.alive = False
    frozen = [client.push(f"{n}", 0.05).future.result() for n in range(3)]

    client.server.alive = True
    client.server.publish("1/nobody asked", b"{}")
    wait_until(lambda: client.push("after", 0.001).future.result().reason == "late", what="it decides")

    assert {(answer.bin, answer.reason) for answer in frozen} == {("F", "no_server")}
    assert client.server.asked[-1] == "settle 1/after"


def test_an_answer_that_has_come_counts_also_where_the_client_looks_too_late():
    server, pushes = FakeLineServer(make_line(deadline_ms=60_000)), Pushes("post", None, "G")
    exchange = Exchange(pushes, server, IdleDriver())
    exchange.saw(server.line)
    exchange.connected(*server.open_channels("c1", lambda message: None, 1.0))
    request = make_request(b"image", "x", 1, PushOptions(deadline=0.001), Future())
    exchange.offer(request)
    wait_until(lambda: exchange.on_time() and server.asked, what="the server is asked")
    wait_until(lambda: time.monotonic() > exchange._deadlines.asked_until, what="that was long ago")

    exchange.on_time()

    assert request.future.result(0).reason == "late"


def test_what_is_published_is_the_answer(client):
    client.connect()
    request = client.push("x", 3600)
    wait_until(lambda: client.server.pushed, what="it is admitted")

    client.server.publish("1/x", record_of(Decided("1/x", Verdict("1"), request.digest), bin_="1", reason="next_bin"))

    assert request.future.result().reason == "next_bin"


def test_decisions_made_alone_are_reported_once_the_server_is_back(client):
    client.server.alive = False
    client.exchange.start()
    alone = client.push("x", 0.01).future.result()

    client.server.alive = True
    wait_until(lambda: client.server.asked, what="it is reported")

    assert (alone.bin, alone.reason) == ("G", "no_server")
    assert client.server.asked == ["deliver 1/x"]
    wait_until(lambda: not client.pushes.alone, what="it is forgotten")


def test_an_emptied_server_that_does_not_know_the_line_decides_nothing(client):
    client.connect()
    client.server.knows_line = False

    answer = client.push("x", 0.05).future.result()

    assert (answer.bin, answer.reason) == ("F", "no_server")


def test_a_busy_line_is_asked_again_without_the_bytes_which_travel_when_they_are_welcome(client):
    client.connect()
    verdicts = iter(["busy", "busy", "welcome", "admitted"])
    client.server.admission = lambda push: Admission(next(verdicts), retry_ms=1)

    client.push("x", 3.0)
    wait_until(lambda: len(client.server.pushed) == 4, what="it is admitted")

    assert kinds(client) == ["image", "ask", "ask", "image"]
    remaining = [push.remaining_ms for push in client.server.pushed]
    assert remaining == sorted(remaining, reverse=True)
    assert remaining[-1] < remaining[0]


def test_while_a_line_refuses_others_ask_before_their_bytes_travel(client):
    client.connect()
    client.server.admission = lambda push: Admission("paused")
    client.push("1", 3600)
    wait_until(lambda: client.server.pushed, what="the line has refused")

    client.push("2", 3600)
    wait_until(lambda: any(push.key == "1/2" for push in client.server.pushed), what="the second is offered")

    assert {push.kind for push in client.server.pushed if push.key == "1/2"} == {"ask"}


def test_a_refusal_is_what_the_client_says_at_the_deadline(client):
    client.connect()
    client.server.admission = lambda push: Admission("paused")
    told = []
    client.server.settled = lambda decided: told.append(decided) or record_of(decided, reason=decided.verdict.reason)

    answer = client.push("x", 1).future.result()

    assert (answer.bin, answer.reason) == ("F", "paused")
    assert [decided.verdict.cause for decided in told] == ["paused"]


@pytest.mark.parametrize(("admission", "retry_s"), [(Admission("busy", retry_ms=70), 0.07), (Admission("paused"), 1.0)])
def test_a_push_that_is_not_tried_again_is_told_of_a_refusal_at_once(client, admission, retry_s):
    client.connect()
    client.server.admission = lambda push: admission

    with pytest.raises(PushRefusedError, match="line 'post' refuses the push") as refused:
        client.push("x", 3600, retry=False).future.result()

    assert (refused.value.reason, refused.value.retry_s) == (admission.verdict, retry_s)
    assert (len(client.pushes), client.server.asked) == (0, [])


def test_a_refusal_that_ends_one_push_leaves_the_others_of_its_item_theirs(client):
    client.server.alive = False
    first = client.push("x", 3600, retry=False)
    same, other = client.push("x", 3600), client.push("x", 3600, b"other bytes")
    verdicts = iter(["busy", "busy", "welcome", "admitted"])
    client.server.admission = lambda push: Admission(next(verdicts), retry_ms=1)
    client.server.alive = True
    client.connect()

    with pytest.raises(PushRefusedError):
        first.future.result()
    wait_until(lambda: len(client.server.pushed) == 4, what="the second is admitted")

    assert client.server.pushed[-1].payload == b"image"
    assert [each.future.done() for each in (same, other)] == [False, False]


def test_a_line_that_an_emptied_server_forgot_is_offered_again_until_it_knows_it(client):
    client.connect()
    verdicts = iter(["unknown", "unknown", "welcome", "admitted"])
    client.server.admission = lambda push: Admission(next(verdicts))

    client.push("x", 3600)

    wait_until(lambda: kinds(client) == ["image", "ask", "ask", "image"], what="it is admitted")


def test_a_new_epoch_makes_the_client_push_again_and_ask_first(client):
    client.connect()
    client.push("x", 3600)
    wait_until(lambda: client.server.pushed, what="it is admitted")
    client.server.admission = lambda push: Admission("welcome" if push.kind == "ask" else "admitted")

    client.server.epoch_now = b"2"

    wait_until(lambda: kinds(client) == ["image", "ask", "image"], what="it is pushed again")


def test_after_a_new_connection_what_awaits_its_answer_is_asked_for(client):
    client.connect()
    client.push("x", 3600)
    wait_until(lambda: client.server.pushed, what="it is admitted")
    client.server.admission = lambda push: Admission("in_flight")

    client.server.cut()

    wait_until(lambda: kinds(client)[:2] == ["image", "ask"], what="it is asked for")


def test_an_image_above_a_limit_that_only_the_server_knew_is_answered_at_once(client):
    client.connect()
    client.server.admission = lambda push: Admission("too_large", limit=3)
    client.server.settled = lambda decided: record_of(decided, reason=decided.verdict.reason)

    answer = client.push("x", 3600).future.result()

    assert answer.reason == "unreadable"


def test_the_heap_forgets_pushes_with_long_deadlines_that_are_decided(client):
    for number in range(3_000):
        request = client.push(f"{number}", 3600)
        client.pushes.decide_alone(request)

    assert len(client.exchange._deadlines._heap) <= 1_001
