"""Following a job: its snapshots, their sources, and its end."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest
import redis

from orchestrator.contract.errors import ExitCode, NotFoundError
from orchestrator.contract.jobs.job_folder import JobFolder, Outcome
from orchestrator.contract.jobs.requests import EvaluateJobRequest, MaxFailures
from orchestrator.contract.ledger.live_workers import WorkerRecord
from orchestrator.contract.ledger.record import JobRecord
from orchestrator.contract.settings import Settings
from orchestrator.jobs.follow import (
    JobSnapshot,
    describe,
    describe_bound,
    exit_code,
    follow,
    read_record,
    show_job,
    to_json,
)
from tests.support.fakes import PIN, make_job

JOB = "c000000-000000-000000"
WORKER = WorkerRecord("w1", "host", 1, "cpu", ("classify",), "idle", 0.0, 0, 0.0)
MEASURING = '{"event": "note", "text": "measuring engines"}'
DECODING = {"read": 0.25, "decode": 4.0, "wait": 3.0, "predict": 1.0}
LATER_JOB = "c000000-000000-000001"
SECOND = 1e-9  # a timeout that is over at once


@dataclass
class FakeLedger:
    """Answers with one record after another, the last one repeatedly; an exception among them is raised."""

    records: list[JobRecord | Exception | None] = field(default_factory=list)
    on_record: Callable[[], object] = lambda: None
    living: list[WorkerRecord] = field(default_factory=lambda: [WORKER])

    @property
    def live_workers(self) -> "FakeLedger":
        return self

    def record(self, job: str) -> JobRecord | None:
        self.on_record()
        answer = self.records.pop(0) if len(self.records) > 1 else self.records[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def workers(self) -> list[WorkerRecord]:
        return self.living


@pytest.fixture
def folder(settings: Settings, tmp_path) -> JobFolder:
    """A classify job of ten images, listed."""
    return make_job(settings, [f"{number}.png" for number in range(10)], root=tmp_path, output=tmp_path / "out.csv")


def running(folder: JobFolder, num_done: int, **changes: object) -> JobRecord:
    facts = {"state": "running", "num_images": 10, "num_done": num_done, "num_shards": 3, "listed": True} | changes
    return JobRecord(folder.job, "classify", **facts)


def end(folder: JobFolder, **changes: object) -> Outcome:
    outcome = {"state": "succeeded", "ended": datetime.now(UTC), "num_images": 10, "num_done": 10, "result": "out.csv"}
    return folder.write_outcome(Outcome.model_validate(outcome | changes))


def test_without_a_ledger_the_record_comes_from_request_and_listing(settings, folder):
    record = read_record(settings, None, folder.job)

    assert (record.kind, record.state, record.ended) == ("classify", "unknown", False)
    assert (record.num_images, record.num_shards, record.listed, record.num_done) == (10, 3, True, 0)
    assert record.created_ms == round(folder.request().created.timestamp() * 1000)


def test_a_job_that_the_ledger_does_not_know_is_unknown_and_no_error(settings, folder):
    assert read_record(settings, FakeLedger([None]), folder.job).state == "unknown"


def test_the_progress_of_a_job_comes_from_the_ledger(settings, folder):
    assert read_record(settings, FakeLedger([running(folder, 4)]), folder.job) == running(folder, 4)


def test_the_outcome_on_the_disk_is_final(settings, folder):
    outcome = end(folder, state="partial", num_failed=2, error=None)

    record = read_record(settings, FakeLedger([running(folder, 4, started_ms=7)]), folder.job)

    assert (record.state, record.num_done, record.num_failed, record.result) == ("partial", 10, 2, "out.csv")
    assert (record.started_ms, record.ended_ms) == (7, round(outcome.ended.timestamp() * 1000))
    assert record.ended


def test_a_job_that_never_was_is_not_found(settings):
    for job in (JOB, "nonsense", "../../etc"):
        with pytest.raises(NotFoundError):
            read_record(settings, None, job)


def test_following_ends_with_the_job(settings, folder):
    ledger = FakeLedger([running(folder, 0), running(folder, 4), running(folder, 8)])
    looks: list[int] = []

    def end_at_third_look() -> None:
        looks.append(1)
        if len(looks) == 3:
            end(folder)

    ledger.on_record = end_at_third_look
    snapshots = list(follow(settings, ledger, folder.job))

    assert [snapshot.record.state for snapshot in snapshots][-2:] == ["running", "succeeded"]
    assert [snapshot.record.num_done for snapshot in snapshots] == [0, 4, 8, 10]
    assert [snapshot.num_workers for snapshot in snapshots] == [1] * 4
    assert snapshots[1].images_per_sec > 0


def test_an_ended_job_is_one_snapshot(settings, folder):
    end(folder)

    assert [snapshot.record.state for snapshot in follow(settings, FakeLedger([None]), folder.job)] == ["succeeded"]


def test_following_stops_when_its_time_is_over(settings, folder):
    snapshots = list(follow(settings, FakeLedger([running(folder, 4)]), folder.job, timeout_s=SECOND))

    assert [snapshot.record.ended for snapshot in snapshots] == [False]


@pytest.mark.parametrize("error", [redis.ConnectionError("gone"), redis.TimeoutError(), redis.BusyLoadingError()])
def test_following_waits_while_the_server_is_away(settings, folder, error):
    ledger = FakeLedger([running(folder, 4), error, running(folder, 8)])
    snapshots = follow(settings, ledger, folder.job)

    first, away, back = next(snapshots), next(snapshots), next(snapshots)

    assert (first.server_away, first.record.num_done) == (False, 4)
    assert away.server_away
    assert not away.record.ended
    assert (back.server_away, back.record.num_done) == (False, 8)


def test_an_end_on_the_disk_is_seen_while_the_server_is_away(settings, folder):
    end(folder)

    [snapshot] = follow(settings, FakeLedger([redis.ConnectionError("gone")]), folder.job)

    assert (snapshot.server_away, snapshot.record.state) == (True, "succeeded")


def test_only_workers_that_are_alive_count(settings, folder):
    gone = WorkerRecord("w2", "host", 2, "cpu", ("classify",), "idle", 0.0, 0, 60.0)
    ledger = FakeLedger([running(folder, 4)], living=[gone])

    [snapshot] = follow(settings, ledger, folder.job, timeout_s=SECOND)

    assert snapshot.num_workers == 0


def test_a_job_that_another_version_began_says_so_while_none_of_its_workers_is_alive(settings, folder):
    ledger = FakeLedger([running(folder, 4, version="1.0")], living=[replace(WORKER, version="2.0")])

    [snapshot] = follow(settings, ledger, folder.job, timeout_s=SECOND)

    assert "version 1.0 began it, and the workers have 2.0" in describe(snapshot)


@pytest.mark.parametrize(
    ("record", "rate", "eta_s"),
    [
        (JobRecord(JOB, "classify", "running", num_images=100, num_done=40, listed=True), 20.0, 3.0),
        (JobRecord(JOB, "classify", "running", num_images=100, num_done=40, listed=False), 20.0, None),
        (JobRecord(JOB, "classify", "running", num_images=100, num_done=40, listed=True), 0.0, None),
        (JobRecord(JOB, "classify", "paused", num_images=100, num_done=40, listed=True), 20.0, None),
    ],
)
def test_the_time_left_is_known_once_the_listing_is_whole_and_images_come(record, rate, eta_s):
    assert JobSnapshot(record, rate, 1).eta_s == eta_s


@pytest.mark.parametrize(
    ("snapshot", "line"),
    [
        (
            JobSnapshot(JobRecord(JOB, "classify", "running", 1000, 400, 3, listed=True), 200.0, 1),
            f"{JOB}: running, 400/1000 images, 3 failed, 200 images/s, 3 s left",
        ),
        (JobSnapshot(JobRecord(JOB, "classify", "queued", 5), 0.0, 1), f"{JOB}: queued, 0/5+ images"),
        (
            JobSnapshot(JobRecord(JOB, "classify", "running", 5, listed=True, trouble="the disk is full"), 0.0, 1),
            f"{JOB}: running, 0/5 images, the disk is full",
        ),
        (
            JobSnapshot(JobRecord(JOB, "classify", "running", 5, 2, listed=True, stage_seconds=DECODING), 0.0, 1),
            f"{JOB}: running, 2/5 images, limited by decode",
        ),
        (
            JobSnapshot(JobRecord(JOB, "classify", "succeeded", 5, 5, listed=True, stage_seconds=DECODING), 0.0, 1),
            f"{JOB}: succeeded, 5/5 images",
        ),
        (
            JobSnapshot(JobRecord(JOB, "classify", "running", 5, listed=True, progress=MEASURING), 0.0, 1),
            f"{JOB}: running, 0/5 images, measuring engines",
        ),
        (JobSnapshot(JobRecord(JOB, "train", "queued", 5), 0.0, 1), f"{JOB}: queued"),
        (
            JobSnapshot(JobRecord(JOB, "train", "running", 5, trouble="Too many open files"), 0.0, 1),
            f"{JOB}: running, Too many open files",
        ),
        (
            JobSnapshot(JobRecord(JOB, "classify", "paused", 5, 2, listed=True, paused_reason="/in is empty"), 0.0, 1),
            f"{JOB}: paused, 2/5 images, /in is empty",
        ),
        (
            JobSnapshot(JobRecord(JOB, "classify", "running", 5), 0.0, 0, server_away=True),
            f"{JOB}: the server is away, waiting for it",
        ),
    ],
)
def test_a_snapshot_is_one_plain_line(snapshot, line):
    assert describe(snapshot) == line


def test_the_bound_of_a_job_is_shown_with_the_seconds_of_its_stages():
    record = JobRecord(JOB, "classify", "running", stage_seconds=DECODING)

    assert describe_bound(record) == "decode (read 0.2 s, decode 4.0 s, wait 3.0 s, predict 1.0 s)"


@pytest.mark.parametrize("kind", ["train", "evaluate"])
@pytest.mark.parametrize(("progress", "line"), [('{"event": "note", "text": "warming up"}', ", warming up"), ("", "")])
def test_the_progress_of_a_child_process_is_its_last_event(kind, progress, line):
    record = JobRecord(JOB, kind, "running", progress=progress)

    assert describe(JobSnapshot(record, 0.0, 1)) == f"{JOB}: running{line}"


def test_workers_that_train_are_those_that_evaluate(settings, tmp_path):
    request = EvaluateJobRequest(
        job="e000000-000000-000000", created=datetime.now(UTC), source="in", model=PIN, data="/in", part="all"
    )
    folder = JobFolder.create(settings, request)
    trainer = replace(WORKER, queues=("train",))
    ledger = FakeLedger([JobRecord(folder.job, "evaluate", "queued")], living=[WORKER, trainer, trainer])

    [snapshot] = follow(settings, ledger, folder.job, timeout_s=SECOND)

    assert snapshot.num_workers == 2
    facts = to_json(settings, snapshot.record)
    assert (facts["model"], facts["part"], facts["output"], facts["source"]) == ("fake@1", "all", None, "in")


@pytest.mark.parametrize(
    ("state", "too_many_failures", "code"),
    [
        ("succeeded", False, ExitCode.OK),
        ("partial", False, ExitCode.OK),
        ("failed", False, ExitCode.FAILED),
        ("failed", True, ExitCode.TOO_MANY_FAILURES),
        ("cancelled", False, ExitCode.FAILED),
    ],
)
def test_the_exit_code_depends_on_how_a_job_ended(settings, folder, state, too_many_failures, code):
    record = running(folder, 10, state=state, too_many_failures=too_many_failures, num_failed=9)

    assert exit_code(settings, record) == code


@pytest.mark.parametrize(
    ("max_failures", "code"),
    [
        (None, ExitCode.TOO_MANY_FAILURES),
        (MaxFailures(share=1.0), ExitCode.OK),
        (MaxFailures(count=10), ExitCode.OK),
    ],
)
def test_a_job_whose_images_all_failed_has_the_exit_code_of_too_many_failures_unless_they_are_allowed(
    settings, folder, max_failures, code
):
    request = folder.request().model_copy(update={"job": LATER_JOB, "max_failures": max_failures})
    folder = JobFolder.create(settings, request)

    assert exit_code(settings, running(folder, 10, state="partial", num_failed=10)) == code


def test_as_json_a_job_has_what_was_asked_for_beside_how_far_it_is(settings, folder, tmp_path):
    facts = to_json(settings, running(folder, 4))

    assert facts["num_done"] == 4
    assert (facts["model"], facts["output"], facts["source"]) == ("fake@1", str(tmp_path / "out.csv"), str(tmp_path))
    assert facts["progress"] is None
    assert (facts["stage_seconds"], facts["bound"]) == ({}, None)
    json.dumps(facts)


def test_as_json_a_job_has_its_bound(settings, folder):
    facts = to_json(settings, running(folder, 4, stage_seconds=DECODING))

    assert (facts["stage_seconds"], facts["bound"]) == (DECODING, "decode")
    json.dumps(facts)


def test_shown_as_json_a_job_says_that_no_worker_has_its_version(settings, folder):
    record = running(folder, 4, version="0.0.9")

    _, facts = show_job(settings, FakeLedger([record], living=[replace(WORKER, version="0.1.0")]), folder.job)

    assert facts["trouble"].startswith("version 0.0.9 began it, and the workers have 0.1.0")
    assert show_job(settings, None, folder.job)[1]["trouble"] == ""
