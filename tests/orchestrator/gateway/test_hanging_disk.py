"""A disk that hangs, while the server and the workers are well: what does not need it goes on."""

import asyncio
import json
import os
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace

import httpx2
import pytest

from modeling.registry.store import ModelStore
from orchestrator.contract.errors import NotFoundError, UnavailableError
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.lines.answers import Answer
from orchestrator.gateway import health as health_module
from orchestrator.gateway.context import GatewayContext
from orchestrator.gateway.health import Health
from orchestrator.gateway.inference.infer import Inference
from orchestrator.gateway.inference.targets import FIND_AGAIN_S, Targets
from orchestrator.gateway.items import push as push_module
from orchestrator.gateway.items import router as router_module
from orchestrator.gateway.items.paths import checked_path
from orchestrator.gateway.jobs import models as models_module
from orchestrator.gateway.jobs import results as results_module
from orchestrator.gateway.jobs import routes as routes_module
from orchestrator.gateway.threads import MOST_CALLS, Questions, QuestionsOfRoots
from orchestrator.gateway.waiters import Waiters
from orchestrator.jobs.pages import JobIndex
from orchestrator.lines.request import make_request
from tests.support.gateway import InProcessGateway, make_context
from tests.support.line_worker import make_line
from tests.support.server import wait_until


class HangingModels:
    """A store of models on a disk that hangs until `back` is set."""

    def __init__(self):
        self.back = threading.Event()

    def find(self, reference):
        self.back.wait(60)
        return SimpleNamespace(digest=reference)

    resolve = find


@pytest.fixture
def models():
    models = HangingModels()
    yield models
    models.back.set()


def test_probes_of_models_on_a_disk_that_hangs_take_no_thread_of_others(tmp_path, models, monkeypatch):
    monkeypatch.setattr(health_module, "LONGEST_LOOK_S", 0.05)
    context = make_context(tmp_path)
    context.models = models
    health = Health(context)
    health._seen, health._seen_at = {"ready": True, "why": None, "lines": {}}, time.monotonic() + 1000

    async def probe():
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
        probes = await asyncio.gather(*(health.ready("model", f"m{number}") for number in range(10)))
        return probes, await asyncio.to_thread(lambda: "a thread is free"), await health.ready("all")

    probes, free, ready = asyncio.run(probe())

    why = "the home's disk has not answered within 0.05 s; try again later"
    assert probes == [{"ready": False, "why": why}] * 10
    assert (free, ready["ready"]) == ("a thread is free", True)


def test_inference_goes_on_with_the_model_as_it_was_found_last(tmp_path, models):
    context = make_context(tmp_path)
    context.models, context.lines._seen_at = models, time.monotonic() + 1000
    targets = Targets(context)
    inference = Inference(targets, Waiters(), Questions("the disk", 1, limit_s=0.05))
    models.back.set()
    before = targets.find("m")
    models.back.clear()
    targets._found["m", ""] = (time.monotonic() - 2 * FIND_AGAIN_S, before)

    async def find_and_open():
        target = await inference._find("m", "")
        with pytest.raises(UnavailableError, match="the disk has not answered"):
            await inference._open(target)
        context.lines._clients["@m"] = "the client of @m"
        return target, await inference._open(target)

    assert targets.known("m", "") is None
    assert asyncio.run(find_and_open()) == (before, "the client of @m")


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs/c1", "/v1/jobs/c1/events", "/v1/jobs/c1/rows", "/v1/models"])
def test_polls_of_a_home_that_hangs_end_and_so_leave_room_for_pushes(tmp_path, monkeypatch, path):
    hangs = threading.Event()
    for module in (routes_module, results_module, models_module):
        monkeypatch.setattr(module, "Calls", partial(Questions, limit_s=0.5))
    monkeypatch.setattr(routes_module, "LONGEST_CALL_S", 0.5)
    for place in ((JobIndex, "page"), (JobFolder, "open"), (ModelStore, "list"), (GatewayContext, "jobs")):
        monkeypatch.setattr(*place, lambda *_: hangs.wait(60))
    app = InProcessGateway(make_context(tmp_path)).app

    async def poll():
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://localhost") as client:
            return await asyncio.gather(*(client.get(path) for _ in range(20)))

    answers = asyncio.run(poll())
    hangs.set()

    assert ({answer.status_code for answer in answers}, app.num_requests) == ({503}, 0)


def test_streams_of_more_jobs_than_calls_may_wait_are_looked_at(tmp_path, monkeypatch):
    hangs = threading.Event()

    def look(_):
        hangs.wait(60)
        raise NotFoundError("no such job")

    monkeypatch.setattr(GatewayContext, "jobs", look)
    app = InProcessGateway(make_context(tmp_path)).app
    paths = [f"/v1/jobs/c{number}/events" for number in range(MOST_CALLS + 20)]

    async def follow():
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://localhost") as client:
            following = [asyncio.create_task(client.get(path)) for path in paths]
            await asyncio.to_thread(wait_until, lambda: app.num_requests == len(paths), what="all ask")
            hangs.set()
            return {answer.status_code for answer in await asyncio.gather(*following)}

    assert asyncio.run(follow()) == {404}


def test_pushes_by_path_from_a_disk_that_hangs_are_refused_and_others_are_answered(tmp_path):
    context = make_context(tmp_path / "home")
    answered = Future()
    answered.set_result(Answer("1", 1, "B"))
    client = SimpleNamespace(submit_with=lambda *_: answered, offer=None, abandon=lambda: None)
    line = make_line(roots=[str(tmp_path)])
    context.lines._clients["post"], context.lines._lines["post"] = client, line
    context.images = QuestionsOfRoots("the disk of the images", 1, limit_s=0.05)
    hangs = threading.Event()
    with pytest.raises(UnavailableError):
        context.images.of((tmp_path,)).wait("another", lambda: hangs.wait(60))
    gateway = InProcessGateway(context)
    body = {"path": str(tmp_path / "1.jpg")}

    by_path = gateway.post("/v1/lines/post/items?wait", json=body)
    batch = gateway.post("/v1/lines/post/batch?wait", json={"items": [body, body]})
    raw = gateway.post("/v1/lines/post/items?wait", content=b"1")
    hangs.set()

    assert (by_path.status_code, by_path.headers["retry-after"]) == (503, "1")
    assert "the disk of the images has not answered" in by_path.json()["detail"]
    assert [each["status"] for each in batch.json()["results"]] == [503, 503]
    assert raw.status_code == 200


class Roots:
    """A line with two roots; the first hangs until `back` is set. offered: what the line's client was given."""

    def __init__(self, folder):
        self.back, self.offered, self.looked = threading.Event(), [], []
        self.paths = [str(folder / name / "1.jpg") for name in ("hanging", "well")]
        self.context = make_context(folder / "home")
        self.context.lines._clients["post"] = SimpleNamespace(offer=self.offer, abandon=lambda: None)
        roots = [str(folder / "hanging"), str(folder / "well")]
        self.context.lines._lines["post"] = make_line(roots=roots)
        self.gateway = InProcessGateway(self.context)

    def offer(self, request):
        self.offered.append(request.item)
        request.end(Answer(request.item, 1, "B"))

    def look(self, path):
        """Of a call that asks the disk."""
        if "/hanging/" in os.fspath(path):
            self.back.wait(60)
        self.looked.append(os.fspath(path))

    def push(self, path, **fields):
        return self.gateway.post("/v1/lines/post/items?wait", json={"path": path} | fields)


@pytest.fixture
def roots(tmp_path):
    roots = Roots(tmp_path)
    yield roots
    roots.back.set()


def test_what_was_refused_because_its_disk_hung_is_not_pushed_when_the_disk_is_back(roots, monkeypatch):
    def look_slowly(image, *args):
        roots.look(image)
        return make_request(image, *args)

    monkeypatch.setattr(push_module, "make_request", look_slowly)
    roots.context.images = QuestionsOfRoots("the disk of the images", 2, limit_s=0.5)
    hanging, well = roots.paths

    refused = roots.push(hanging, item="1", deadline_ms=500)
    roots.back.set()
    wait_until(lambda: roots.looked == [hanging], what="the call that was given up has ended")
    answered = [roots.push(path, item=item).status_code for path, item in ((well, "2"), (hanging, "1"))]

    assert (refused.status_code, answered) == (503, [200, 200])
    assert roots.offered == ["2", "1"]


def test_a_root_that_hangs_stops_no_pushes_below_another(roots, monkeypatch):
    def check_slowly(text, among):
        roots.look(text)
        return checked_path(text, among)

    monkeypatch.setattr(push_module, "checked_path", check_slowly)
    roots.context.images = QuestionsOfRoots("the disk of the images", 1, limit_s=0.5)
    hanging, well = roots.paths

    statuses = [roots.push(path, item="1").status_code for path in (hanging, f"{hanging}.jpg", well, "/elsewhere/1")]

    assert statuses == [503, 503, 200, 403]


def test_labels_that_cannot_be_read_are_missed_before_an_image_is_pushed_for_its_scores(tmp_path, models):
    answered: Future[Answer] = Future()
    answered.set_result(Answer("1", 1, "B", label="cat", score=1.0, scores=(("cat", 1.0),), model="m@1"))
    pushed = []
    context = make_context(tmp_path)
    context.lines._clients["post"] = SimpleNamespace(
        submit_with=lambda image, *_: pushed.append(image) or answered, abandon=lambda: None
    )
    context.lines._lines["post"], context.lines._seen_at = make_line(), time.monotonic() + 1000
    models.resolve = lambda _: SimpleNamespace(ref="m@1")
    context.models, context.disk = models, Questions("the disk", limit_s=0.5)
    gateway = InProcessGateway(context)

    def infer(output):
        size = {"binary_data_size": 5}
        image = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": size}
        asked = json.dumps({"inputs": [image], "outputs": [{"name": output}]}).encode()
        headers = {"inference-header-content-length": str(len(asked))}
        body = asked + b"\x01\x00\x00\x001"
        return gateway.post("/v2/models/post/infer", content=body, headers=headers).status_code

    assert (infer("scores"), pushed) == (503, [])
    assert (infer("label"), pushed) == (200, [b"1"])


def test_look_ups_of_an_item_share_a_question_but_not_one_that_began_before_its_push(tmp_path, monkeypatch):
    known, asked, goes_on = [], [], threading.Event()

    def find(context, line, item, pass_):
        found = list(known)
        asked.append((line, item, pass_))
        goes_on.wait(60)
        return (found[0] if found else None), False

    monkeypatch.setattr(router_module, "find_item", find)
    app = InProcessGateway(make_context(tmp_path)).app

    async def look_up():
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://localhost") as client:
            first = asyncio.create_task(client.get("/v1/lines/post/items/1"))
            await asyncio.to_thread(wait_until, lambda: asked, what="the first one asks")
            known.append(Answer("1", 1, "B"))
            others = [asyncio.create_task(client.get("/v1/lines/post/items/1")) for _ in range(5)]
            other_pass = asyncio.create_task(client.get("/v1/lines/post/items/1?pass=2"))
            await asyncio.to_thread(wait_until, lambda: len(asked) == 2, what="the other pass is asked for")
            goes_on.set()
            return [answer.status_code for answer in await asyncio.gather(first, *others, other_pass)]

    assert asyncio.run(look_up()) == [200] * 7
    assert asked[:2] == [("post", "1", 1), ("post", "1", 2)]
    assert set(asked[2:]) == {("post", "1", 1)}
