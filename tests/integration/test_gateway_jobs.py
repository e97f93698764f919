"""Jobs over HTTP with a real server: submitted by a process of their own, listed, followed, cancelled, read."""

import json
import os
import sys
from pathlib import Path

import httpx2
import pytest

from orchestrator.contract.jobs.job_folder import JobFolder, all_jobs
from orchestrator.contract.jobs.requests import ClassifyRequest, EvaluateJobRequest, TrainJobRequest
from orchestrator.contract.jobs.rows import FORMATS
from orchestrator.gateway.jobs import submissions as submissions_module
from tests.support.gateway import InProcessGateway, make_context, served
from tests.support.published_models import make_pngs, publish_model
from tests.support.server import Server, wait_until
from tests.support.workers import Cluster

pytestmark = pytest.mark.integration


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A root with labelled images."""
    for label in "01":
        make_pngs(tmp_path / "data" / "digits" / label, 2)
    return tmp_path / "data"


@pytest.fixture
def gateway(tmp_path: Path, server: Server, data: Path) -> InProcessGateway:
    """A gateway in this process, without a worker; the home has a model."""
    publish_model(tmp_path / "home" / "models", "digits")
    return InProcessGateway(make_context(tmp_path / "home", server_url=server.url, roots=(data,)))


def classify(data: Path, **options: object) -> dict[str, object]:
    return {"kind": "classify", "source": str(data / "digits"), "model": "digits", **options}


def test_a_job_is_submitted_once_however_often_it_is_sent_with_its_key(gateway: InProcessGateway, data: Path):
    key = {"idempotency-key": "monday"}
    first = gateway.post("/v1/jobs", json=classify(data, top_k=3, output=str(data / "out.csv")), headers=key)
    (data / "out.csv").touch()

    second = gateway.post("/v1/jobs", json=classify(data, top_k=3, output=str(data / "out.csv")), headers=key)
    other = gateway.post("/v1/jobs", json=classify(data, top_k=2), headers=key)

    job = first.json()["job"]
    assert (first.status_code, first.json(), first.headers["location"]) == (
        201, {"job": job, "existed": False}, f"/v1/jobs/{job}",
    )  # fmt: skip
    assert (second.status_code, second.json()) == (200, {"job": job, "existed": True})
    assert (other.status_code, other.json()["type"]) == (409, "urn:pigeonhole:taken")
    assert all_jobs(gateway.context.settings) == [job]
    request = JobFolder.open(gateway.context.settings, job).request()
    assert isinstance(request, ClassifyRequest)
    assert (request.top_k, request.follow_symlinks, request.output) == (3, False, str(data / "out.csv"))


def test_trainings_and_evaluations_are_submitted_too(gateway: InProcessGateway, data: Path):
    train = {"kind": "train", "data": [str(data / "digits")], "name": "mine", "architecture": "cnn", "epochs": 3}
    evaluate = {"kind": "evaluate", "model": "digits@1", "data": str(data / "digits")}

    jobs = [gateway.post("/v1/jobs", json=body).json()["job"] for body in (train, evaluate)]

    requests = [JobFolder.open(gateway.context.settings, job).request() for job in jobs]
    assert isinstance(requests[0], TrainJobRequest)
    assert (requests[0].name, requests[0].train["epochs"]) == ("mine", 3)
    assert isinstance(requests[1], EvaluateJobRequest)
    assert requests[1].model.ref == "digits@1"
    listed = gateway.get("/v1/jobs?kind=train").json()
    assert [(job["job"], job["state"], job["num_images"]) for job in listed["jobs"]] == [(jobs[0], "queued", 4)]


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"source": "/etc"}, 403, "outside_roots"),
        ({"source": "{data}/../home"}, 403, "outside_roots"),
        ({"output": "/tmp/x.csv"}, 403, "outside_roots"),
        ({"since": "{data}/../home/x.csv"}, 403, "outside_roots"),
        ({"since": "{data}/x.csv"}, 404, "not_found"),
        ({"since": "c261129-143355-7f3a2b"}, 404, "not_found"),
        ({"source": "{data}/nothing"}, 404, "not_found"),
        ({"model": "nobody"}, 404, "not_found"),
        ({"precision": "int8"}, 400, "invalid"),
        ({"top_k": 0}, 422, "invalid"),
        ({"unknown": 1}, 422, "invalid"),
    ],
)
def test_a_job_that_cannot_be_is_refused_with_the_reason_and_leaves_nothing(
    gateway: InProcessGateway, data: Path, changes: dict[str, object], status: int, code: str
):
    body = classify(data, **{k: v.format(data=data) if isinstance(v, str) else v for k, v in changes.items()})

    answer = gateway.post("/v1/jobs", json=body)

    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:pigeonhole:{code}")
    assert answer.headers["content-type"] == "application/problem+json"
    assert all_jobs(gateway.context.settings) == []


def test_the_gateway_answers_before_a_large_source_is_listed_and_the_listing_goes_on_without_it(
    gateway: InProcessGateway, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    slow_lister = (
        "import runpy, orchestrator.jobs.submit as s\n"
        "run = s.Lister.run\n"
        f"s.Lister.run = lambda self, *given: open({str(gate)!r}).read() or run(self, *given)\n"
        "runpy.run_module('orchestrator.gateway.jobs.submitter', run_name='__main__')"
    )
    monkeypatch.setattr(submissions_module, "_COMMAND", (sys.executable, "-c", slow_lister))

    job = gateway.post("/v1/jobs", json=classify(data)).json()["job"]
    before = gateway.get(f"/v1/jobs/{job}").json()
    another = InProcessGateway(gateway.context)  # nothing of the first one is needed any more
    gate.write_text("")  # waits until the lister reads

    assert (before["listed"], before["num_images"]) == (False, 0)
    wait_until(lambda: another.get(f"/v1/jobs/{job}").json()["listed"], what="the images are listed")
    assert another.get(f"/v1/jobs/{job}").json()["num_images"] == 4


def test_without_a_server_jobs_are_shown_from_the_disk_and_none_is_taken(
    own_server: Server, tmp_path: Path, data: Path
):
    publish_model(tmp_path / "home" / "models", "digits")
    gateway = InProcessGateway(make_context(tmp_path / "home", server_url=own_server.url, roots=(data,)))
    job = gateway.post("/v1/jobs", json=classify(data)).json()["job"]
    assert gateway.get(f"/v1/jobs/{job}").json()["state"] == "queued"
    own_server.kill()

    shown, listed = gateway.get(f"/v1/jobs/{job}"), gateway.get("/v1/jobs").json()
    refused = gateway.post("/v1/jobs", json=classify(data))

    assert (shown.status_code, shown.json()["state"], shown.json()["num_images"]) == (200, "unknown", 4)
    assert (listed["server_away"], [each["job"] for each in listed["jobs"]]) == (True, [job])
    assert (refused.status_code, refused.json()["type"]) == (503, "urn:pigeonhole:unavailable")
    assert int(refused.headers["retry-after"]) >= 1
    assert all_jobs(gateway.context.settings) == [job]


def test_a_training_that_has_diverged_is_shown(gateway: InProcessGateway, data: Path):
    body = {"kind": "train", "data": [str(data / "digits")], "name": "mine", "architecture": "cnn"}
    job = gateway.post("/v1/jobs", json=body).json()["job"]
    gateway.context.jobs().ledger.report_progress(job, '{"event": "epoch", "loss": NaN, "epoch": 1, "epochs": 2}')

    shown, listed = gateway.get(f"/v1/jobs/{job}"), gateway.get("/v1/jobs")
    gateway.post(f"/v1/jobs/{job}/cancel")
    stream = gateway.get(f"/v1/jobs/{job}/events")

    assert (shown.status_code, listed.status_code, stream.status_code) == (200, 200, 200)
    assert shown.json()["progress"]["loss"] is None
    end = stream.text.rstrip().rpartition("data: ")[2]
    assert json.loads(end, parse_constant=pytest.fail)["progress"]["loss"] is None


def test_a_cancel_ends_a_job_and_its_events(gateway: InProcessGateway, data: Path):
    job = gateway.post("/v1/jobs", json=classify(data)).json()["job"]
    wait_until(lambda: gateway.get(f"/v1/jobs/{job}").json()["listed"], what="the images are listed")

    cancelled = [gateway.post(f"/v1/jobs/{job}/cancel").json() for _ in range(2)]
    stream = gateway.get(f"/v1/jobs/{job}/events")
    last_id = stream.text.split("id: ")[1].split("\n")[0]
    again = gateway.get(f"/v1/jobs/{job}/events", headers={"last-event-id": last_id})

    assert cancelled == [{"job": job, "state": "cancelled"}] * 2
    assert (stream.status_code, stream.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert stream.text.count("event: ") == stream.text.count("event: end") == 1
    assert again.status_code == 204


def test_an_open_stream_of_events_does_not_hold_up_the_end_of_a_gateway(tmp_path: Path, server: Server, data: Path):
    publish_model(tmp_path / "home" / "models", "digits")
    context = make_context(tmp_path / "home", server_url=server.url, port=0, roots=(data,))
    with served(context) as gateway, httpx2.Client(base_url=gateway.url, timeout=60) as client:
        job = client.post("/v1/jobs", json=classify(data)).json()["job"]
        with client.stream("GET", f"/v1/jobs/{job}/events") as stream:
            lines = stream.iter_lines()
            first = [next(lines) for _ in range(4)]
            gateway.stop()
            rest = list(lines)  # ends, and not by an error

    assert first[0] == "retry: 2000"
    assert first[3] == "event: progress"
    assert [line for line in rest if line.startswith("event")] == []


def test_what_is_no_job_is_not_found(gateway: InProcessGateway):
    names = ["c000000-000000-000000", "nothing", "%2e%2e", "..%2f..%2fetc", "c261129-053434-9EE0DB"]
    paths = ["", "/events", "/manifest", "/summary", "/rows", "/errors"]

    answers = [gateway.get(f"/v1/jobs/{name}{path}") for name in names for path in paths]
    answers += [gateway.post(f"/v1/jobs/{name}/cancel") for name in names]

    assert {(answer.status_code, answer.json()["type"]) for answer in answers} == {(404, "urn:pigeonhole:not_found")}


def test_the_results_of_a_job_by_page_by_range_and_whole(running_cluster: Cluster, tmp_path: Path):
    make_pngs(tmp_path / "data" / "in", 6)
    (tmp_path / "data" / "in" / "broken.png").write_bytes(b"no image")
    url, roots = running_cluster.server.url, (tmp_path / "data",)
    gateway = InProcessGateway(make_context(running_cluster.home, server_url=url, roots=roots))
    output = tmp_path / "data" / "out.csv"

    body = {"kind": "classify", "source": str(tmp_path / "data" / "in"), "model": "digits", "output": str(output)}
    job = gateway.post("/v1/jobs", json=body).json()["job"]
    stream = gateway.get(f"/v1/jobs/{job}/events").text  # ends with the job
    end = json.loads(stream.rstrip().rpartition("data: ")[2])
    whole = gateway.get(f"/v1/jobs/{job}/manifest")
    part = gateway.get(f"/v1/jobs/{job}/manifest", headers={"range": "bytes=5-20", "if-range": whole.headers["etag"]})
    known = gateway.get(f"/v1/jobs/{job}/manifest", headers={"if-none-match": whole.headers["etag"]})
    pages, cursor = [], ""
    while cursor is not None:
        page = gateway.get(f"/v1/jobs/{job}/rows?limit=3&cursor={cursor}" if cursor else f"/v1/jobs/{job}/rows?limit=3")
        pages.append([row["path"] for row in page.json()["rows"]])
        cursor = page.json()["next"]
    errors = gateway.get(f"/v1/jobs/{job}/errors").json()

    assert (end["state"], end["num_done"], end["num_failed"], end["result"]) == ("partial", 7, 1, str(output))
    assert whole.content == output.read_bytes()
    assert (part.status_code, part.content) == (206, whole.content[5:21])
    assert (known.status_code, known.content) == (304, b"")
    assert gateway.request("HEAD", f"/v1/jobs/{job}/manifest").headers["content-length"] == str(len(whole.content))
    assert [len(page) for page in pages] == [3, 3, 1]
    assert [path for page in pages for path in page] == [row.path for row in FORMATS["csv"].read(output)]
    assert [(row["path"], row["error_code"]) for row in errors["rows"]] == [("broken.png", "not_an_image")]
    assert errors["error_codes"] == {"not_an_image": 1}
    assert gateway.get(f"/v1/jobs/{job}/summary").json()["job"] == job


def test_what_is_new_since_a_job_or_a_manifest_below_a_root_is_classified(running_cluster: Cluster, tmp_path: Path):
    source, output = tmp_path / "data" / "in", tmp_path / "data" / "out.csv"
    make_pngs(source, 3)
    url, roots = running_cluster.server.url, (tmp_path / "data",)
    gateway = InProcessGateway(make_context(running_cluster.home, server_url=url, roots=roots))
    body = {"kind": "classify", "source": str(source), "model": "digits", "output": str(output)}

    def job_of(**options: object) -> str:
        job = gateway.post("/v1/jobs", json=body | options).json()["job"]
        gateway.get(f"/v1/jobs/{job}/events")  # ends with the job
        return job

    first = job_of(checksum=True, priority="high")
    (source / "new.png").write_bytes(next(source.rglob("*.png")).read_bytes())
    second = job_of(since=first)
    third = job_of(since=str(output))

    shown = gateway.get(f"/v1/jobs/{first}").json()
    assert (shown["state"], shown["priority"], shown["num_images"]) == ("succeeded", "high", 3)
    attempts = gateway.get(f"/v1/jobs/{second}/summary").json()["attempts"]
    assert [(each["job"], each["num_rows"]) for each in attempts] == [(first, 3), (second, 1)]
    summary = gateway.get(f"/v1/jobs/{third}/summary").json()
    assert [each["num_rows"] for each in summary["attempts"]][:2] == [3, 1]
    assert summary["sidecar"]["checksum"] is True
