"""A worker that lacks files, memory or threads waits, says so, and costs its jobs nothing."""

import contextlib
import errno
import json
import os
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
def handle(answer):
    """The task of a classify doorbell, with short pauses."""
    return partial(answer, "classify")


@pytest.fixture
def answer(context, monkeypatch):
    """The tasks of all queues, with short pauses."""
    monkeypatch.setattr(child, "worker_context", lambda: context)
    monkeypatch.setattr(child, "memory_watch", lambda: SimpleNamespace(at_work=contextlib.nullcontext))
    monkeypatch.setattr(trouble, "PAUSES_S", (0.0,))
    monkeypatch.setattr(tasks, "_back_off", trouble.BackOff())
    return tasks._handle


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


@pytest.mark.parametrize(
    ("err", "num_drops"), [(MemoryError("CUDA out of memory"), 1), (OSError(errno.EMFILE, "Too many open files"), 0)]
)
def test_what_a_job_waits_for_holds_up_no_other_and_memory_of_other_models_is_given_back(
    handle, folder, context, ledger, settings, tmp_path, err, num_drops
):
    paths = make_images(tmp_path / "in", [0, 50, 100])
    other = make_job(settings, paths, root=tmp_path / "in", output=tmp_path / "other.csv", priority="low")
    context.models.error = err
    handle({"version": 1, "job": folder.job})
    enter_job(other, ledger)
    ledger.turns.end(ledger.turns.take(other.job, "w1", 5.0), "w1", 60.0, 1)  # it has had its share

    context.models.error = None
    handle({"version": 1, "job": folder.job})

    assert (ledger.record(folder.job).state, ledger.record(other.job).state) == ("queued", "finalizing")
    assert context.models.num_drops == num_drops


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


@pytest.mark.parametrize("file", ["summary.json", "outcome.json"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_home_that_takes_no_writes_at_the_end_is_the_jobs_trouble_and_no_failure(
    answer, folder, context, ledger, bells, monkeypatch, file, number
):
    def open_file(path, *args, **options):
        if str(path).startswith(str(folder.path / f".{file}")):
            raise OSError(number, os.strerror(number), str(path))
        return opened(path, *args, **options)

    classify_slice(folder.job, context)
    opened, bells.rung = os.open, []
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", open_file)
        answer("finalize", {"version": 1, "job": folder.job})

    record = ledger.record(folder.job)
    assert (record.state, folder.outcome(), bells.rung) == ("finalizing", None, [("finalize", folder.job)])
    assert record.trouble.startswith(f"worker w1: {os.strerror(number)}: '{folder.path}/.{file}")

    ledger.client.hset(f"{{pigeonhole}}:job:{folder.job}", "finalizer_until", 0)
    answer("finalize", {"version": 1, "job": folder.job})
    assert folder.outcome().state == "succeeded"


@pytest.fixture
def submit(settings, ledger):
    """Submits trainings."""

    def make():
        now = datetime.now(UTC)
        train = {"data": "/in", "architecture": "mlp"}
        request = TrainJobRequest(job=new_job_id("train"), created=now, source="/in", name="bars", train=train)
        folder = JobFolder.create(settings, request)
        ledger.create(folder.job, {"kind": "train", "listed": 1, "num_shards": 1})
        return folder

    return make


@pytest.fixture
def training(submit):
    """A training that was submitted."""
    return submit()


@pytest.fixture
def ends(monkeypatch):
    """Lets the processes of trainings end with an event and an exit code."""

    def make(event, code, **facts):
        script = f"import sys; print({json.dumps(json.dumps({'event': event, **facts}))}); sys.exit({code})"
        monkeypatch.setattr(process, "launcher", lambda *, distributed: [sys.executable, "-c", script])

    return make


def test_a_training_that_was_interrupted_is_handed_back_and_that_is_no_attempt(training, context, ledger, ends):
    ends("interrupted", 71, text="Input/output error")

    with pytest.raises(ProcessInterruptedError, match="the training was interrupted: Input/output error"):
        run_process_job(training.job, context)

    assert (ledger.record(training.job).state, ledger.record(training.job).error) == ("running", "")
    assert ledger.claim(training.job, "w2", 60).attempt == 1


def test_a_training_whose_memory_always_runs_out_fails_whatever_it_says(training, context, ledger, ends):
    ends("memory", 72, text="DefaultCPUAllocator: can't allocate memory: you tried to allocate 8000000000000 bytes.")

    run_process_job(training.job, context)

    record = ledger.record(training.job)
    assert record.state == "cancelling"
    assert "can't allocate memory: you tried to allocate 8000000000000 bytes.; it died 3 times" in record.error


def test_a_training_that_waits_for_its_storage_holds_up_no_other(answer, submit, ledger, bells, ends):
    ends("interrupted", 71, text="Input/output error")
    first, second = submit().job, submit().job
    ledger.client.hset(f"{{pigeonhole}}:job:{second}", "created_ms", 2**52)

    answer("train", {"version": 1, "job": second})

    assert ledger.record(first).trouble == "worker w1: the training was interrupted: Input/output error"
    assert bells.rung == [("train", first)]
    assert [ledger.turns.next_training(first, worker) for worker in ("w1", "w2")] == [second, first]


def test_an_unexpected_error_at_a_training_is_shown_and_leaves_it_to_others(answer, training, ledger, monkeypatch):
    def fail(*args, **kwargs):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "/opt/old/bin/python")

    monkeypatch.setattr(process.subprocess, "Popen", fail)

    with pytest.raises(FileNotFoundError):
        answer("train", {"version": 1, "job": training.job})

    trouble = "worker w1: FileNotFoundError: [Errno 2] No such file or directory: '/opt/old/bin/python'"
    assert ledger.record(training.job).trouble == trouble
    assert [ledger.turns.next_training(training.job, worker) for worker in ("w1", "w2")] == [None, training.job]


def test_a_training_whose_process_cannot_be_started_is_handed_back(training, context, ledger, monkeypatch):
    def fail(*args, **kwargs):
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(process.subprocess, "Popen", fail)

    with pytest.raises(BlockingIOError):
        run_process_job(training.job, context)

    assert (ledger.record(training.job).state, ledger.claim(training.job, "w2", 60).attempt) == ("running", 1)
