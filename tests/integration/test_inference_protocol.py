"""The open inference protocol over HTTP: a real server, gateway and workers in this process, fake models."""

import gzip
import json
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import httpx2
import pytest

from orchestrator.contract.lines.store import LineStore
from orchestrator.contract.settings import Settings
from orchestrator.gateway.inference import infer, requests
from orchestrator.gateway.inference.outputs import OUTPUTS_OF_LINES
from tests.support.gateway import InProcessGateway, bearer, make_context, served, write_tokens
from tests.support.images import grey_png
from tests.support.line_worker import UNANSWERED
from tests.support.line_workers import LineHome
from tests.support.pushes import wait_until_open
from tests.support.server import wait_until

pytestmark = pytest.mark.integration

LIGHT, DARK = grey_png(250), grey_png(5)
INFER = "/v2/models/tones/infer"


@pytest.fixture
def home(tmp_path, server) -> Iterator[LineHome]:
    home = LineHome(Settings(home=tmp_path / "home", server_url=server.url))
    home.publish("tones")
    yield home
    home.close()


@pytest.fixture
def gateway(home: LineHome) -> Iterator[httpx2.Client]:
    with client_of(home) as client:
        yield client


@contextmanager
def client_of(home: LineHome, **options: Any) -> Iterator[httpx2.Client]:
    """A client of a gateway of this home."""
    context = make_context(home.settings.home, server_url=home.settings.require_server_url(), port=0, **options)
    with served(context) as gateway, httpx2.Client(base_url=gateway.url, timeout=60) as client:
        yield client


def request_of(*images: bytes, **changes: Any) -> dict[str, Any]:
    """What is posted for inference."""
    binary = b"".join(struct.pack("<I", len(image)) + image for image in images)
    tensor = {"name": "image", "datatype": "BYTES", "shape": [len(images)]}
    tensor["parameters"] = {"binary_data_size": len(binary)}
    header = json.dumps({"inputs": [tensor]} | changes).encode()
    return {"content": header + binary, "headers": {"inference-header-content-length": str(len(header))}}


def values(answer: httpx2.Response, name: str) -> list[Any]:
    assert answer.status_code == 200, answer.text
    return next(output["data"] for output in answer.json()["outputs"] if output["name"] == name)


def test_a_model_is_opened_by_the_first_request_for_it(home, gateway):
    home.start("w1")

    before = gateway.post("/v2/repository/index").json()
    answer = gateway.post(INFER, **request_of(LIGHT, DARK))

    assert before[0] | {"reason": ""} == {"name": "tones", "version": "1", "state": "UNAVAILABLE", "reason": ""}
    assert values(answer, "label") == ["light", "dark"]
    assert home.registry.names() == ["@tones"]
    ready = [{"name": "tones", "version": "1", "state": "READY", "reason": ""}]
    wait_until(lambda: gateway.post("/v2/repository/index", json={"ready": True}).json() == ready, what="it is said")


def test_the_question_whether_a_model_is_ready_opens_it(home, gateway):
    first = gateway.get("/v2/models/tones/versions/1/ready")
    home.start("w1")

    assert (first.status_code, first.json()) == (400, {"error": "tones is not ready: opening"})
    wait_until(lambda: gateway.get("/v2/models/tones/versions/1/ready").status_code == 200, what="it is ready")


def test_a_request_that_is_sent_twice_is_predicted_once(home, gateway):
    home.start("w1")
    twice = [gateway.post(INFER, **request_of(LIGHT, id="1")) for _ in range(2)]
    other = gateway.post(INFER, **request_of(DARK, id="1"))

    assert [values(answer, "label") for answer in (*twice, other)] == [["light"], ["light"], ["dark"]]
    assert [answer.json()["id"] for answer in (*twice, other)] == ["1", "1", "1"]
    assert home.predictor("tones@1").batches == [[250], [5]]


def test_a_higher_priority_is_ahead_of_what_waits(home, gateway):
    priorities = {"second": 2, "also second": 0, "last": 9, "first": 1}
    gateway.get("/v2/models/tones/ready")
    store = home.registry.store(home.registry.get("@tones"))
    with ThreadPoolExecutor() as pool:
        answers = []
        for number, (name, priority) in enumerate(priorities.items(), 1):
            asked = request_of(LIGHT, id=name, parameters={"priority": priority})
            answers.append(pool.submit(gateway.post, INFER, **asked))
            wait_until(partial(waits_for, store, number), what=f"{number} requests wait")
        waiting = [key.decode() for key in store.client.zrange(store.key("ready"), 0, -1)]
        home.start("w1")

        assert {answer.result().status_code for answer in answers} == {200}

    assert [key.partition("/")[2].partition(".")[0] for key in waiting] == ["first", "second", "also second", "last"]


def waits_for(store: LineStore, num: int) -> bool:
    return int(store.client.zcard(store.key("deadlines"))) == num


def test_without_a_worker_a_model_is_unavailable_at_the_deadline(gateway):
    answer = gateway.post(INFER, **request_of(LIGHT, parameters={"timeout": 1_000_000}))

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["error"].startswith(tuple(f"tones: {reason}: " for reason in UNANSWERED))


def test_a_line_has_its_name_and_bins_and_the_model_of_the_same_name_is_found_by_version(home, gateway):
    home.start("w1")
    home.create("tones")

    of_line = gateway.post(INFER, **request_of(LIGHT))
    of_model = gateway.post("/v2/models/tones/versions/1/infer", **request_of(LIGHT))

    assert [output["name"] for output in of_line.json()["outputs"]] == list(OUTPUTS_OF_LINES)
    assert values(of_line, "bin") == ["L1"]
    assert "bin" not in [output["name"] for output in of_model.json()["outputs"]]
    assert [gateway.get(f"/v2/models/tones{path}").json()["versions"] for path in ("", "/versions/1")] == [[], ["1"]]


def test_a_paused_line_refuses_at_once_or_answers_at_the_deadline(home, gateway):
    home.start("w1")
    home.create("post", deadline_ms=1000)
    home.registry.change("post", lambda line: replace(line, paused=True))

    refused = gateway.post("/v2/models/post/infer", **request_of(LIGHT, parameters={"timeout": 9_000_000}))
    waited = gateway.post("/v2/models/post/infer", **request_of(LIGHT, parameters={"wait": True}))

    assert (refused.status_code, "paused" in refused.json()["error"]) == (503, True)
    assert int(refused.headers["retry-after"]) >= 1
    assert (values(waited, "bin"), values(waited, "reason")) == (["F"], ["paused"])
    assert "paused" in gateway.get("/v2/models/post/ready").json()["error"]


def test_a_busy_line_is_not_ready_and_says_when_to_come_again(home, gateway):
    home.start("w1")
    post = home.create("post", deadline_ms=1)
    wait_until_open(post.store)

    refused = gateway.post("/v2/models/post/infer", **request_of(LIGHT, parameters={"timeout": 9_000_000}))

    def not_ready() -> bool:
        said = gateway.get("/v2/models/post/ready").json().get("error", "")
        return bool(said.startswith("post is not ready: busy: an answer would take"))

    assert values(refused, "bin") == ["L1"]
    wait_until(not_ready, what="it says that it is busy")


BODIES: list[tuple[dict[str, Any], int]] = [
    ({"headers": {"content-encoding": "br"}}, 415),
    ({"headers": {"content-encoding": "gzip"}}, 400),
    ({"headers": {"content-encoding": "gzip"}, "content": gzip.compress(bytes(50_000))}, 413),
    ({"content": bytes(50_000)}, 413),
    ({"headers": {"inference-header-content-length": "-1"}}, 400),
    ({"headers": {"inference-header-content-length": "9999999"}}, 400),
    ({"content": b"{" * 9_000}, 413),
    ({"content": b'{"inputs":[' + b"[" * 5_000}, 400),
    ({"content": b""}, 400),
]


def test_bodies_that_cannot_be_used_are_refused_as_the_protocol_has_it(gateway, monkeypatch):
    monkeypatch.setattr(infer, "MOST_BODY_BYTES", 10_000)
    monkeypatch.setattr(requests, "MOST_JSON_BYTES", 8_000)
    plain = {"content": request_of(LIGHT)["content"]}

    answers = [gateway.post(INFER, **(plain | changes)) for changes, _ in BODIES]

    assert [answer.status_code for answer in answers] == [status for _, status in BODIES]
    assert {tuple(answer.json()) for answer in answers} == {("error",)}


CALLS = {
    "GET /v2/no-such-path": 404,
    "PUT /v2/models/tones": 405,
    "GET /v2/models/no-such-model": 404,
    "GET /v2/models/No%20Such": 404,
    "GET /v2/models/..%2F..%2Fetc/config": 404,
    "GET /v2/models/tones/versions/0": 404,
    "GET /v2/models/tones/versions/x%00": 404,
    "GET /v2/models/@tones": 404,
    "POST /v2/models/%2E%2E/infer": 404,
    "POST /v2/models/tones@1/versions/1/infer": 404,
    "POST /v2/repository/models/tones/load": 501,
}


def test_errors_have_the_form_of_the_protocol(gateway):
    answers = {call: gateway.request(*call.split()) for call in CALLS}

    assert {call: answer.status_code for call, answer in answers.items()} == CALLS
    assert {tuple(answer.json()) for answer in answers.values()} == {("error",)}


def test_a_server_that_is_away_is_not_ready_and_unavailable(tmp_path):
    gateway = InProcessGateway(make_context(tmp_path / "home", server_url="redis://127.0.0.1:1/0"))

    ready, answer = gateway.get("/v2/health/ready"), gateway.post(INFER, **request_of(LIGHT))

    assert (ready.status_code, list(ready.json())) == (400, ["error"])
    assert (answer.status_code, list(answer.json())) == (503, ["error"])
    assert gateway.get("/v2/health/live").status_code == 200


def test_tokens_look_with_view_infer_with_push_and_health_needs_none(home, tmp_path):
    home.start("w1")
    with client_of(home, token_file=write_tokens(tmp_path)) as gateway:
        check_roles(gateway)


def check_roles(gateway: httpx2.Client) -> None:
    def infer_as(role: str) -> int:
        asked = request_of(LIGHT)
        return gateway.post(INFER, content=asked["content"], headers=asked["headers"] | bearer(role)).status_code

    assert gateway.get("/v2/models/tones").json()["error"].startswith("send a token")
    assert gateway.get("/v2/models/tones", headers=bearer("view")).status_code == 200
    assert gateway.post("/v2/repository/index", headers=bearer("view")).status_code == 200
    assert (infer_as("view"), infer_as("push")) == (403, 200)
    wait_until(lambda: gateway.get("/v2/health/ready").status_code == 200, what="the worker has said that it is ready")
