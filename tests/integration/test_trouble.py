"""A worker that lacks files, memory or threads waits, says so, and costs its jobs nothing."""

import errno
import sys
from datetime import UTC, datetime
from functools import partial
from types import SimpleNamespace

import pytest
import redis

from modeling.errors import ModelFormatError
from orchestrator.contract.jobs.job_folder import JobFolder, new_job_id
from orchestrator.contract.jobs.requests import TrainJobRequest
from tests.support.fakes import enter_job, make_images, make_job
from workers import child, tasks, trouble
from workers.classify.slice import classify_slice
from workers.finalize import finalize
from workers.training import process
from workers.training.run import ProcessInterruptedError, run_process_job

pytestmark = pytest.mark.integration


@pytest.fixture
def handle(context, monkeypatch):
    """The task of a classify doorbell, with short pauses."""
    monkeypatch.setattr(child, "worker_context", lambda: context)
    monkeypatch.setattr(child, "memory_watch", lambda: SimpleNamespace(num_at_work=0))
    monkeypatch.setattr(trouble, "PAUSES_S", (0.0,))
    monkeypatch.setattr(tasks, "_back_off", trouble.BackOff())
    return partial(tasks._handle, "classify")


@pytest.fixture
def folder(settings, ledger, tmp_path):
    paths = make_images(tmp_path / "in", [0, 50, 100])
    folder = make_job(settings, paths, root=tmp_path / "in", output=tmp_path / "out.csv")
    enter_job(folder, ledger)
    return folder


@pytest.mark.parametrize(
    ("err", "reason"),
    [
        (
            OSError(errno.EMFILE, "Too many open files", "/models/1/model.json"),
            "Too many open files: '/models/1/model.json'",
        ),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "Cannot allocate memory"),
        (MemoryError(), "MemoryError"),
        (RuntimeError("can't start new thread"), "can't start new thread"),
        (OSError(errno.ESTALE, "Stale file handle"), "Stale file handle"),
    ],
)
def test_what_a_worker_lacks_is_reported_and_tried_again(handle, folder, context, ledger, bells, caplog, err, reason):
    ledger.live_workers.heartbeat("w1", {"queues": "classify"})
    doing = []
    context.models.error = err
    context.draining = lambda: doing.append(ledger.live_workers.workers()[0].doing)

    handle({"version": 1, "job": folder.job})

    record = ledger.record(folder.job)
    assert (record.state, record.trouble) == ("queued", f"worker w1: {reason}")
    assert doing[-1] == f"waiting: {reason}"
    assert bells.rung == [("classify", folder.job)]
    assert f"{reason}; trying again in 0 s" in caplog.text

    context.models.error = None
    handle({"version": 1, "job": folder.job})
    assert (ledger.record(folder.job).state, ledger.record(folder.job).trouble) == ("finalizing", "")


def test_a_server_that_cannot_be_reached_for_want_of_descriptors_is_waited_for_too(handle, folder, context, bells):
    err = redis.ConnectionError("Error 24 connecting to unix socket")
    err.__cause__ = OSError(errno.EMFILE, "Too many open files")
    context.models.error = err

    handle({"version": 1, "job": folder.job})
    assert bells.rung == [("classify", folder.job)]

    context.models.error = redis.ConnectionError("Connection refused")
    context.models.error.__cause__ = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
    handle({"version": 1, "job": folder.job})
    assert bells.rung == [("classify", folder.job)]


def test_an_error_of_another_kind_is_not_waited_for(handle, folder, context, bells):
    context.models.error = RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        handle({"version": 1, "job": folder.job})

    assert bells.rung == []


def test_pauses_grow_until_an_attempt_succeeds_and_a_worker_that_stops_does_not_wait(context, folder, caplog):
    context.draining = lambda: True
    back_off = trouble.BackOff()

    for _ in range(7):
        back_off.wait(folder.job, context, MemoryError())
    back_off.reset()
    back_off.wait(folder.job, context, MemoryError())

    pauses = [record.getMessage().rpartition("in ")[2] for record in caplog.records]
    assert pauses == ["1 s", "2 s", "4 s", "8 s", "15 s", "15 s", "15 s", "1 s"]


def test_a_result_that_cannot_be_published_for_want_of_descriptors_is_no_failure_of_the_job(
    folder, context, ledger, monkeypatch
):
    def fail(*args):
        err = ModelFormatError("model.json: cannot be read (Too many open files)")
        raise err from OSError(errno.EMFILE, "Too many open files")

    classify_slice(folder.job, context)
    monkeypatch.setattr(finalize, "_publish", fail)

    with pytest.raises(ModelFormatError):
        finalize.end_job(folder.job, context)

    assert (ledger.record(folder.job).state, folder.outcome()) == ("finalizing", None)


@pytest.fixture
def training(settings, ledger):
    """A training that was submitted."""
    now = datetime.now(UTC)
    train = {"data": "/in", "architecture": "mlp"}
    request = TrainJobRequest(job=new_job_id("train"), created=now, source="/in", name="bars", train=train)
    folder = JobFolder.create(settings, request)
    ledger.create(folder.job, {"kind": "train", "listed": 1, "num_shards": 1})
    return folder


def test_a_training_that_was_interrupted_is_handed_back_and_that_is_no_attempt(training, context, ledger, monkeypatch):
    code = """import sys; print('{"event": "interrupted", "text": "Input/output error"}'); sys.exit(71)"""
    monkeypatch.setattr(process, "launcher", lambda *, distributed: [sys.executable, "-c", code])

    with pytest.raises(ProcessInterruptedError, match="the training was interrupted: Input/output error"):
        run_process_job(training.job, context)

    assert (ledger.record(training.job).state, ledger.record(training.job).error) == ("running", "")
    assert ledger.claim(training.job, "w2", 60).attempt == 1


def test_a_training_whose_process_cannot_be_started_is_handed_back(training, context, ledger, monkeypatch):
    def fail(*args, **kwargs):
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(process.subprocess, "Popen", fail)

    with pytest.raises(BlockingIOError):
        run_process_job(training.job, context)

    assert (ledger.record(training.job).state, ledger.claim(training.job, "w2", 60).attempt) == ("running", 1)
