"""A gateway whose server is emptied, lines whose own server is away, models that nobody serves."""

import httpx2
import pytest

from orchestrator.contract.lines.model_lines import model_line_settings
from orchestrator.contract.lines.registry import LINES_KEY, LineRegistry
from orchestrator.contract.lines.settings import Line
from orchestrator.contract.server import connect_raw
from orchestrator.gateway.health import readiness
from orchestrator.gateway.inference.targets import Targets
from tests.support.gateway import make_context, served
from tests.support.line_worker import enter_line, line_worker, make_line
from tests.support.published_models import publish_model
from tests.support.server import wait_until

pytestmark = pytest.mark.integration

AWAY = "redis://127.0.0.1:1/0"


@pytest.fixture
def context(tmp_path, server):
    return make_context(tmp_path / "home", server_url=server.url, port=0)


def test_an_emptied_server_that_no_worker_fills_is_no_line_that_is_gone(context, server):
    context.registry().create(make_line("post").settings)
    with served(context) as gateway, httpx2.Client(base_url=gateway.url, timeout=60) as client:
        first = client.post("/v1/lines/post/items?wait&deadline_ms=500", content=b"1")
        server.empty()
        context.lines.refresh()
        then = client.post("/v1/lines/post/items?wait&deadline_ms=500", content=b"2")

    assert [each.status_code for each in (first, then)] == [200, 200], then.text
    assert then.json()["bin"] == "F"


def test_a_gateway_that_starts_with_an_emptied_server_does_not_deny_the_lines_of_the_disk(context, server):
    context.registry().create(make_line("post").settings)
    server.empty()

    with served(context) as gateway, httpx2.Client(base_url=gateway.url, timeout=60) as client:
        answer = client.post("/v1/lines/post/items?wait", content=b"1")

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


def test_a_line_whose_own_server_is_away_leaves_the_others_ready(context, server):
    enter_line(server.url, make_line("near"))
    far = make_line("far", server=AWAY)
    connect_raw(server.url).hset(LINES_KEY, "far", far.encode())

    with (
        line_worker(server.url, "near"),
        served(context) as gateway,
        httpx2.Client(base_url=gateway.url, timeout=60) as client,
    ):

        def codes() -> list[int]:
            return [client.get(f"/health/ready/lines/{line}").status_code for line in ("near", "far")]

        def states() -> dict[str, str]:
            return {each["name"]: each["state"] for each in client.post("/v2/repository/index").json()}

        wait_until(lambda: codes() == [200, 503], what="near alone is ready")
        wait_until(lambda: states() == {"near": "READY", "far": "UNAVAILABLE"}, what="near alone is listed as ready")


def test_lines_of_models_do_not_make_a_gateway_ready_where_no_worker_lives(context, server):
    enter_line(server.url, Line(model_line_settings("tones")))

    found = readiness(context)

    assert (found["ready"], found["why"]) == (False, "no worker lives")


def test_the_line_of_a_model_that_has_gone_since_it_was_used_is_opened_again(context):
    publish_model(context.settings.models, "digits")
    targets = Targets(context)
    target = targets.find("digits")
    targets.line_of(target)
    LineRegistry(context.settings, context.server()[1]).remove("@digits")
    context.lines.refresh()

    assert targets.line_of(target).name == "@digits"
