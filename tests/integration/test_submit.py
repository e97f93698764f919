"""Submitting from Python with a real server and no worker: the order of the checks, each made once."""

import errno
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from modeling.registry.card import CARD_FILE
from modeling.registry.store import ModelVersion
from modeling.training.request import TrainOptions
from orchestrator.contract.errors import IntegrityError, NotFoundError, PigeonholeError, UnavailableError, UsageError
from orchestrator.contract.home import join_server
from orchestrator.contract.jobs import job_folder as job_folder_module
from orchestrator.contract.jobs.job_folder import JobFolder, active_jobs, all_jobs
from orchestrator.contract.jobs.listing import ListingWriter
from orchestrator.contract.jobs.requests import ClassifyRequest, TrainJobRequest
from orchestrator.contract.jobs.restore import restore_job
from orchestrator.contract.ledger.live_workers import WORKERS_KEY, WorkerRecord
from orchestrator.contract.settings import Settings
from orchestrator.jobs import lister
from orchestrator.jobs import prepare as prepare_module
from orchestrator.jobs import submit as submit_module
from orchestrator.jobs.prepare import prepare
from orchestrator.jobs.specs import ClassifySpec, EvaluateSpec, TrainSpec
from orchestrator.jobs.submit import JobClient, Submission
from tests.support.opened import count_opened
from tests.support.pretrained import store_weights
from tests.support.published_models import make_photographs, make_pngs, publish_model
from tests.support.server import Server

pytestmark = pytest.mark.integration


@pytest.fixture
def client(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> JobClient:
    """A client in a folder with labelled images, `digits`."""
    for label in "01":
        make_pngs(tmp_path / "here" / "digits" / label, 2)
    monkeypatch.chdir(tmp_path / "here")
    return JobClient(Settings(home=tmp_path / "home", server_url=server.url))  # type: ignore[arg-type]  # pydantic's


@pytest.fixture
def version(client: JobClient) -> ModelVersion:
    """A published model."""
    return publish_model(client.settings.models, "digits")


def submit(client: JobClient, spec: ClassifySpec | TrainSpec | EvaluateSpec) -> Submission:
    """Submit without a worker."""
    return client.submit(prepare(client.settings, replace(spec, need_worker=False)))


def test_model_and_source_are_opened_once_from_preparing_to_the_whole_listing(client: JobClient, version: ModelVersion):
    with count_opened() as opened:
        submission = submit(client, ClassifySpec("digits", "digits", output=Path("out.csv")))

    assert submission.facts is not None
    assert submission.facts.num_images == 4
    assert opened[str(Path.cwd() / "digits")] == 1
    assert opened[str(version.path / CARD_FILE)] == 2  # for its digest, and for its content
    request = JobFolder.open(client.settings, submission.job).request()
    assert isinstance(request, ClassifyRequest)
    assert (request.shard_size, request.model.ref) == (64, "digits@1")


def test_a_training_is_checked_and_its_data_are_listed_once(client: JobClient, monkeypatch: pytest.MonkeyPatch):
    checked = []
    check = TrainOptions.__post_init__
    monkeypatch.setattr(TrainOptions, "__post_init__", lambda self: checked.append(self) or check(self))

    with count_opened() as opened:
        submission = submit(client, TrainSpec(Path("digits"), "mine", {"architecture": "cnn", "epochs": 3}))

    assert len(checked) == 1
    assert opened[str(Path.cwd() / "digits" / "0")] == 1
    request = JobFolder.open(client.settings, submission.job).request()
    assert isinstance(request, TrainJobRequest)
    assert request.train == checked[0].to_json()
    record = client.ledger.record(submission.job)
    assert record is not None
    assert (record.state, record.num_images) == ("queued", 4)


def test_a_job_has_its_own_copy_of_the_weights_that_were_chosen(client: JobClient):
    make_photographs(Path("photos/a"), 2)
    make_photographs(Path("photos/b"), 2)
    weights = store_weights(client.settings.imported_weights, "ours", "resnet18")

    submission = submit(client, TrainSpec(Path("photos"), "mine", {}))

    folder = JobFolder.open(client.settings, submission.job)
    assert folder.weights.read_bytes() == weights.read_bytes()
    prepared = prepare(client.settings, TrainSpec(Path("photos"), "mine", {}, need_worker=False))
    weights.write_bytes(b"others")
    with pytest.raises(IntegrityError, match="was changed since"):
        client.submit(prepared)
    assert [entry.name for entry in client.settings.jobs.iterdir()] == [submission.job]


@pytest.mark.parametrize(
    "spec",
    [
        ClassifySpec("digits", "digits", output=Path("out"), output_format="csv"),
        EvaluateSpec("digits", Path("digits"), output=Path("out")),
    ],
)
def test_the_idempotency_key_is_looked_up_before_an_existing_output_is_refused(
    client: JobClient, version: ModelVersion, spec: ClassifySpec | EvaluateSpec
):
    spec = replace(spec, idempotency_key="monday")
    first = submit(client, spec)
    Path("out").touch()

    second = submit(client, spec)

    assert (second.job, second.existed) == (first.job, True)
    with pytest.raises(UsageError, match="'monday' stands for another request"):
        submit(client, replace(spec, output=Path("other")))
    with pytest.raises(UsageError, match="exists; name"):
        submit(client, replace(spec, idempotency_key="tuesday"))
    assert all_jobs(client.settings) == [first.job]


def test_a_key_of_a_job_whose_folder_was_removed_is_named(client: JobClient, version: ModelVersion):
    spec = ClassifySpec("digits", "digits", idempotency_key="monday")
    first = submit(client, spec)
    shutil.rmtree(client.settings.jobs / first.job)

    with pytest.raises(NotFoundError, match=f"'monday' stands for job {first.job}, whose folder was removed"):
        submit(client, spec)


def test_a_repeated_submission_is_known_even_when_its_images_were_moved(client: JobClient, version: ModelVersion):
    make_pngs(Path("inbox"), 1)
    spec = ClassifySpec("inbox", "digits", idempotency_key="monday")
    first = submit(client, spec)
    Path("inbox/00000").rename("moved")

    assert submit(client, spec) == Submission(first.job, existed=True)


def silent_worker(client: JobClient) -> None:
    """A worker that was last heard of before the server was away."""
    client.ledger.live_workers.heartbeat("w1", {"queues": "classify", "version": "1"})
    client.ledger.client.zincrby(WORKERS_KEY, -60, "w1")


def test_workers_that_are_heard_of_again_after_the_server_was_away_are_waited_for(
    client: JobClient, monkeypatch: pytest.MonkeyPatch
):
    silent_worker(client)
    workers, looks = client.ledger.live_workers.workers, []

    def look() -> list[WorkerRecord]:
        looks.append(workers())
        if len(looks) == 2:
            client.ledger.live_workers.heartbeat("w1", {"queues": "classify"})
        return looks[-1]

    monkeypatch.setattr(client.ledger.live_workers, "workers", look)

    client.require_worker("classify")

    assert [worker.alive for [worker] in looks] == [False, False, True]


def test_workers_that_an_emptied_server_has_forgotten_are_waited_for(
    client: JobClient, server: Server, monkeypatch: pytest.MonkeyPatch
):
    join_server(client.settings, client.ledger.client)
    workers, looks = client.ledger.live_workers.workers, []

    def look() -> list[WorkerRecord]:
        looks.append(workers())
        if len(looks) == 2:
            join_server(client.settings, client.ledger.client)
            client.ledger.live_workers.heartbeat("w1", {"queues": "classify"})
        return looks[-1]

    monkeypatch.setattr(client.ledger.live_workers, "workers", look)
    server.empty()

    client.require_worker("classify")

    assert [[worker.alive for worker in each] for each in looks] == [[], [], [True]]


def test_where_no_worker_has_ever_been_the_refusal_comes_at_once(client: JobClient, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(submit_module.time, "sleep", pytest.fail)

    with pytest.raises(UnavailableError, match="no worker listens to the queue 'classify'"):
        client.require_worker("classify")


def test_a_worker_that_stays_silent_is_none(client: JobClient, monkeypatch: pytest.MonkeyPatch):
    silent_worker(client)
    monkeypatch.setattr(submit_module, "RETURN_S", 0.0)

    with pytest.raises(UnavailableError, match="no worker listens to the queue 'classify'"):
        client.require_worker("classify")


def test_without_a_worker_standard_input_is_not_read(
    client: JobClient, version: ModelVersion, monkeypatch: pytest.MonkeyPatch
):
    class Unread:
        buffer = object()  # has no method to read by

    monkeypatch.setattr(sys, "stdin", Unread)
    with pytest.raises(UnavailableError, match="no worker listens to the queue 'classify'"):
        client.submit(prepare(client.settings, ClassifySpec("-", "digits", idempotency_key="monday")))
    assert all_jobs(client.settings) == []


def fail_once(monkeypatch: pytest.MonkeyPatch, target: object, name: str) -> None:
    """A method that fails as on a full disk."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/full/disk")

    monkeypatch.setattr(target, name, fail)


_WRITES = [(job_folder_module, "replace_durably"), (job_folder_module, "sync"), (JobFolder, "activate")]
_LISTS = [(ListingWriter, "add"), (ListingWriter, "publish"), (ListingWriter, "close")]


@pytest.mark.parametrize(
    ("kind", "target", "name"),
    [*(("classify", *write) for write in _WRITES + _LISTS), *(("train", *write) for write in _WRITES)],
)
def test_a_submission_that_the_disk_refuses_leaves_no_job_no_folder_and_no_entry(
    client: JobClient, version: ModelVersion, monkeypatch: pytest.MonkeyPatch, kind: str, target: object, name: str
):
    spec = (
        ClassifySpec("digits", "digits", output=Path("out.csv"), shard_size=1, idempotency_key="monday")
        if kind == "classify"
        else TrainSpec(Path("digits"), "mine", {}, idempotency_key="monday")
    )
    with monkeypatch.context() as broken:
        fail_once(broken, target, name)
        broken.setattr(lister, "EXTEND_EVERY_S", -1.0)  # every shard is entered at once

        with pytest.raises(PigeonholeError, match=r"^nothing was submitted: No space left on device: '/full/disk'; "):
            submit(client, spec)

    assert all_jobs(client.settings) == active_jobs(client.settings) == []
    assert list(client.settings.jobs.iterdir()) == []
    assert client.ledger.active() == set()
    assert client.ledger.client.keys("*:job:*") == client.ledger.client.keys("*:submission:*") == []
    assert client.ledger.owner_of_output(str(Path.cwd() / "out.csv")) is None
    assert not submit(client, spec).existed  # the disk has space again


def test_a_source_that_cannot_be_read_to_its_end_leaves_nothing_either(
    client: JobClient, version: ModelVersion, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object) -> None:
        raise UsageError("paths.csv: line 900000: a quote is not closed")

    spec = ClassifySpec("digits", "digits", output=Path("out.csv"), idempotency_key="monday")
    with monkeypatch.context() as broken:
        broken.setattr(ListingWriter, "add", fail)
        with pytest.raises(UsageError, match="line 900000: a quote is not closed"):
            submit(client, spec)

    assert all_jobs(client.settings) == []
    assert not submit(client, spec).existed


@pytest.mark.parametrize("kind", ["classify", "train"])
def test_a_submission_during_which_the_server_froze_may_be_repeated_with_its_key(
    client: JobClient, version: ModelVersion, monkeypatch: pytest.MonkeyPatch, kind: str
):
    spec = (
        ClassifySpec("digits", "digits", output=Path("out.csv"), idempotency_key="monday")
        if kind == "classify"
        else TrainSpec(Path("digits"), "mine", {}, idempotency_key="monday")
    )
    create = client.ledger.create

    def create_and_answer_too_late(*arguments: Any, **options: Any) -> Any:
        create(*arguments, **options)
        raise redis.TimeoutError("Timeout reading from socket")

    with monkeypatch.context() as frozen:
        frozen.setattr(client.ledger, "create", create_and_answer_too_late)
        with pytest.raises(redis.TimeoutError):
            submit(client, spec)
    [failed] = all_jobs(client.settings)

    again = submit(client, spec)

    assert (again.existed, again.job != failed) == (False, True)
    assert JobFolder.open(client.settings, failed).outcome().state == "failed"  # type: ignore[union-attr]
    assert submit(client, spec) == Submission(again.job, existed=True)


def test_a_job_that_somebody_was_told_of_ends_with_the_reason_where_the_listing_fails(
    client: JobClient, version: ModelVersion, monkeypatch: pytest.MonkeyPatch
):
    told: list[str] = []
    fail_once(monkeypatch, ListingWriter, "add")
    spec = ClassifySpec("digits", "digits", need_worker=False)

    with pytest.raises(PigeonholeError, match=r"^job c\S+ ends: No space left on device"):
        client.submit(prepare(client.settings, spec), on_entered=told.append)

    assert all_jobs(client.settings) == told
    record = client.ledger.record(told[0])
    assert record is not None
    assert (record.state, "No space left on device" in record.error) == ("cancelling", True)


def test_a_listing_that_fails_after_a_worker_has_begun_ends_the_job_with_the_reason(
    client: JobClient, version: ModelVersion, monkeypatch: pytest.MonkeyPatch
):
    def claim_then_fail(self: ListingWriter, *_: object) -> None:
        [job] = client.ledger.active()
        client.ledger.extend(job, 1, 1, listed=False)
        assert not isinstance(client.ledger.claim(job, "a-worker", 5), str)
        raise OSError(errno.EIO, "Input/output error", "/bad/disk")

    monkeypatch.setattr(ListingWriter, "close", claim_then_fail)

    with pytest.raises(PigeonholeError, match=r"^job c\S+ ends: Input/output error: '/bad/disk'; check that disk"):
        submit(client, ClassifySpec("digits", "digits"))

    [job] = all_jobs(client.settings)
    record = client.ledger.record(job)
    assert record is not None
    assert record.state == "cancelling"
    assert "ended early: Input/output error: '/bad/disk'" in record.error


def test_the_size_of_shards_is_measured_when_all_else_is_checked(
    client: JobClient, version: ModelVersion, monkeypatch: pytest.MonkeyPatch
):
    measured = []
    monkeypatch.setattr(prepare_module, "choose_shard_size", lambda *arguments: measured.append(arguments) or 64)
    monkeypatch.setattr(prepare_module, "SMALLEST", 1)
    spec = ClassifySpec("digits", "digits", output=Path("out.csv"))

    with pytest.raises(UnavailableError, match="no worker listens"):
        client.submit(prepare(client.settings, spec))
    assert measured == []
    first = submit(client, spec)
    assert len(measured) == 1
    with pytest.raises(UsageError, match=f"job {first.job} will write"):
        submit(client, spec)
    assert len(measured) == 1


@pytest.mark.parametrize(
    "spec",
    [
        ClassifySpec("digits", "digits", priority="low"),
        TrainSpec(Path("digits"), "mine", {"architecture": "cnn", "epochs": 3}, priority="low"),
        EvaluateSpec("digits", Path("digits"), priority="low"),
    ],
    ids=lambda spec: type(spec).__name__,
)
def test_a_priority_is_known_to_the_ledger_also_after_the_server_forgot_the_job(
    client: JobClient, version: ModelVersion, server: Server, spec: ClassifySpec | TrainSpec | EvaluateSpec
):
    job = submit(client, spec).job
    key = f"{{pigeonhole}}:job:{job}"
    entered = client.ledger.client.hget(key, "priority")
    server.empty()
    restore_job(JobFolder.open(client.settings, job), client.ledger)

    assert (entered, client.ledger.client.hget(key, "priority")) == ("low", "low")


def test_an_idempotency_key_stands_for_the_same_request_with_another_priority(client: JobClient, version: ModelVersion):
    first = submit(client, ClassifySpec("digits", "digits", idempotency_key="k"))
    again = submit(client, ClassifySpec("digits", "digits", idempotency_key="k", priority="high"))

    assert again == Submission(first.job, existed=True)


def test_clients_that_are_gone_leave_nothing_in_the_pools_of_celery(client: JobClient):
    before = client._app.producer_pool._resource.qsize()
    pools = [JobClient(client.settings)._app.producer_pool for _ in range(3)]

    assert {id(pool) for pool in pools} == {id(client._app.producer_pool)}
    assert pools[0]._resource.qsize() == before
