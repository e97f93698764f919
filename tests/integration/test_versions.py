"""Workers of two versions on one server: each leaves the jobs of the other alone, and says so."""

import hashlib
import json
import logging
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from modeling.errors import UnknownFormatError
from orchestrator.contract.errors import OtherVersionError, PigeonholeError, UnavailableError
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.job_version import begin_with, begun_with, written_version
from orchestrator.contract.jobs.parts import part_path, read_trailer
from orchestrator.contract.jobs.restore import restore_job
from orchestrator.contract.ledger.ledger import Claim, Ledger
from orchestrator.contract.ledger.record import JobRecord
from orchestrator.contract.ledger.turns import Barred, Turn
from orchestrator.contract.messages import Doorbell
from orchestrator.contract.release import Release, own_release
from orchestrator.jobs.versions import can_change, change_version, check_version, describe_missing_version
from tests.support.fakes import PIN, enter_job, make_images, make_job, write_fake_parts
from workers import tasks
from workers.context import WorkerContext
from workers.finalize.finalize import end_job

pytestmark = pytest.mark.integration

OWN = own_release()
NEXT = Release("99.0", (*OWN.model_formats, 99))
CLASSIFY = {"kind": "classify", "priority": "normal", "listed": 1, "num_shards": 3}
JOB = "c261123-143355-7f3a2b"


@pytest.fixture
def newer(ledger: Ledger) -> Ledger:
    """The ledger as a worker of the next version uses it."""
    return Ledger(ledger.client, NEXT)


@pytest.fixture
def job(settings, ledger: Ledger, tmp_path: Path) -> JobFolder:
    """A job of three shards that no worker has begun."""
    paths = make_images(tmp_path / "in", range(0, 240, 20))
    folder = make_job(settings, paths, root=tmp_path / "in", output=tmp_path / "out.csv")
    enter_job(folder, ledger)
    return folder


def lives(ledger: Ledger, worker: str, release: Release) -> None:
    formats = ",".join(map(str, release.model_formats))
    facts = {"queues": "classify,train,finalize", "version": release.version, "model_formats": formats}
    ledger.live_workers.heartbeat(worker, facts)


def test_a_worker_of_another_version_takes_no_shard_of_a_job_that_was_begun(ledger, newer):
    ledger.create(JOB, CLASSIFY)

    first = ledger.claim(JOB, "old", 60)
    refused = newer.claim(JOB, "new", 60)
    again = ledger.claim(JOB, "another old", 60)

    assert (first.shard, refused, again.shard) == (0, "barred", 1)
    assert ledger.record(JOB).version == OWN.version
    assert ledger.client.hgetall(f"{{pigeonhole}}:job:{JOB}:attempts") == {}


def test_a_job_that_nobody_has_begun_is_taken_by_any_version_which_then_keeps_it(ledger, newer):
    ledger.create(JOB, CLASSIFY)

    assert isinstance(newer.turns.take(JOB, "new", 5), Turn)
    assert isinstance(newer.claim(JOB, "new", 60), Claim)
    assert ledger.turns.take(JOB, "old", 5) == Barred(JOB, "99.0", "")


def test_a_job_whose_model_a_worker_cannot_read_is_left_to_others(ledger, newer):
    ledger.create(JOB, CLASSIFY | {"model_format": 99})

    assert ledger.turns.take(JOB, "old", 5) == Barred(JOB, "", "99")
    assert ledger.claim(JOB, "old", 60) == "barred"
    assert newer.claim(JOB, "new", 60).shard == 0


@pytest.mark.parametrize(("kind", "barred"), [("train", True), ("evaluate", False)])
def test_a_training_stays_with_its_version_and_an_evaluation_which_begins_again_does_not(ledger, newer, kind, barred):
    name = f"{kind[0]}261123-143355-7f3a2b"
    ledger.create(name, {"kind": kind, "priority": "normal", "listed": 1, "num_shards": 1})
    ledger.release(ledger.claim(name, "old", 60))

    assert newer.turns.next_training(name, "new") == (Barred(name, OWN.version, "") if barred else name)
    assert (newer.claim(name, "new", 60) == "barred") is barred


def test_other_jobs_are_done_meanwhile_and_a_turn_is_never_of_a_barred_job(ledger, newer):
    mine, other = JOB, "c261123-143356-7f3a2b"
    for name in (mine, other):
        ledger.create(name, CLASSIFY)
    ledger.claim(other, "old", 60)

    turns = [newer.turns.take(other, "new", 5).job for _ in range(3)]

    assert turns == [mine] * 3
    assert newer.turns.end(Turn(mine), "new", 1.0, 1) == mine


def test_an_emptied_server_learns_from_the_parts_which_version_began_a_job(settings, job, newer):
    write_fake_parts(job, [1])
    newer.client.flushall()

    restore_job(job, newer)

    assert begun_with(job) == OWN.version
    assert newer.claim(job.job, "new", 60) == "barred"


def test_of_a_training_a_file_says_it_and_the_first_one_stays(settings, job):
    begin_with(job, "1.0")
    begin_with(job, "2.0")

    assert (begun_with(job), written_version(job).before) == ("1.0", None)


def test_a_part_that_another_version_has_written_is_no_damage_and_stays(settings, job, ledger):
    write_fake_parts(job, [0])
    path = part_path(job.parts, 0)
    head, _, line = path.read_bytes().rpartition(b"\n")
    record = json.dumps(json.loads(line.partition(b" ")[2]) | {"version": 99}).encode()
    path.write_bytes(head + b"\n" + hashlib.sha256(record).hexdigest().encode() + b" " + record)

    with pytest.raises(OtherVersionError):
        read_trailer(job.parts, 0)
    with pytest.raises(OtherVersionError):
        restore_job(job, ledger, replace=True)
    assert path.exists()


# The worker


@pytest.fixture
def at_work(context: WorkerContext, monkeypatch) -> WorkerContext:
    """The worker of the tasks; it drains, so it does not wait for more work."""
    context.draining = lambda: True
    monkeypatch.setattr(tasks, "reporting_activity", lambda activity: nullcontext(context))
    monkeypatch.setattr("workers.other_versions._logged", set())
    return context


def ring_for(job: str) -> dict[str, object]:
    return Doorbell(job=job).model_dump()


def test_a_worker_puts_the_doorbell_of_a_barred_job_back_and_says_why(at_work, bells, newer, ledger, job, caplog):
    newer.claim(job.job, "new", 60)
    lives(ledger, "w1", OWN)
    troubles = []
    at_work.draining = lambda: troubles.append(ledger.live_workers.workers()[0].trouble) or True

    with caplog.at_level(logging.WARNING):
        tasks.classify_task.run(ring_for(job.job))
        tasks.classify_task.run(ring_for(job.job))

    assert bells.rung == [("classify", job.job)] * 2
    why = f"job {job.job} was begun by version 99.0, and this is {OWN.version}"
    assert troubles[0] == why
    assert [record.getMessage() for record in caplog.records] == [f"{why}; it is left to other workers"]


def test_doorbells_that_nobody_can_answer_do_not_pile_up(at_work, bells, newer, job, monkeypatch):
    newer.claim(job.job, "new", 60)
    monkeypatch.setattr(at_work.ledger, "queue_length", lambda queue: 100)

    tasks.classify_task.run(ring_for(job.job))

    assert bells.rung == []


def test_a_worker_that_waits_for_others_does_work_of_its_own_as_soon_as_there_is_some(
    at_work, bells, newer, ledger, job, settings, tmp_path, monkeypatch
):
    newer.claim(job.job, "new", 60)
    at_work.draining = lambda: False
    own = make_job(settings, make_images(tmp_path / "in", [7]), root=tmp_path / "in", output=tmp_path / "own.csv")
    monkeypatch.setattr("workers.other_versions.time.sleep", lambda seconds: enter_job(own, ledger))

    tasks.classify_task.run(ring_for(job.job))

    assert ledger.record(own.job).state == "finalizing"
    assert ledger.record(job.job).shards_done == 0


@pytest.mark.parametrize("error", [UnknownFormatError("model format 99"), OtherVersionError("version 99")])
def test_a_model_or_a_file_of_another_version_fails_no_job(at_work, bells, ledger, job, error):
    at_work.models.get = lambda *_, **__: (_ for _ in ()).throw(error)

    tasks.classify_task.run(ring_for(job.job))

    assert bells.rung[-1] == ("classify", job.job)
    assert (ledger.record(job.job).state, ledger.record(job.job).error) == ("queued", "")
    assert ledger.turns.take(job.job, "w1", 5) is None  # for a while


def test_a_job_whose_parts_this_worker_cannot_read_is_published_by_another(at_work, bells, ledger, job, monkeypatch):
    write_fake_parts(job)
    while isinstance(claim := ledger.claim(job.job, "w2", 60), Claim):
        ledger.commit(claim, num_rows=4, num_failed=0)

    def unreadable(*_: object) -> None:
        raise OtherVersionError("a trailer of version 99")

    monkeypatch.setattr("workers.finalize.finalize.publish_manifest", unreadable)

    with pytest.raises(OtherVersionError):
        end_job(job.job, at_work)

    assert (job.outcome(), ledger.record(job.job).state) == (None, "finalizing")


# The operator


def test_a_job_without_a_worker_of_its_version_says_what_to_do(ledger, newer, job):
    ledger.claim(job.job, "old", 60)
    lives(ledger, "new", NEXT)
    record = ledger.record(job.job)

    missing = describe_missing_version(record, ledger.live_workers.workers())

    assert missing == (
        f"version {OWN.version} began it, and the workers have 99.0: start one of {OWN.version}, or let it go on with "
        f"theirs: `pigeonhole jobs resume {job.job} --new-version`"
    )
    with pytest.raises(UnavailableError, match=r"--new-version"):
        check_version(job, ledger, OWN.version)
    lives(ledger, "old", OWN)
    assert describe_missing_version(record, ledger.live_workers.workers()) == ""
    format_99 = replace(record, version="", model_format=100)
    assert "no worker reads its model, which has format 100" in describe_missing_version(
        format_99, ledger.live_workers.workers()
    )


def test_a_job_whose_work_is_done_needs_no_worker_of_its_version(ledger, newer, job):
    lives(ledger, "new", NEXT)
    record = JobRecord(job.job, "classify", "finalizing", version=OWN.version)

    assert describe_missing_version(record, ledger.live_workers.workers()) == ""
    assert not can_change(record)
    assert can_change(replace(record, state="paused"))


def test_an_operator_lets_a_job_go_on_with_the_version_of_the_workers(ledger, newer, job):
    ledger.claim(job.job, "old", 60)
    lives(ledger, "old", OWN)
    assert change_version(job, ledger, OWN.version) is None
    lives(ledger, "new", NEXT)
    with pytest.raises(PigeonholeError, match="drain these workers first"):
        change_version(job, ledger, OWN.version)
    ledger.live_workers.remove("new")
    ledger.live_workers.remove("old")
    with pytest.raises(PigeonholeError, match="no worker is alive"):
        change_version(job, ledger, OWN.version)
    lives(ledger, "new", NEXT)

    changed = change_version(job, ledger, OWN.version)

    assert (changed.before, changed.release) == (OWN.version, "99.0")
    assert written_version(job) == changed
    assert isinstance(newer.claim(job.job, "new", 60), Claim)
    assert ledger.claim(job.job, "old", 60) == "barred"
    assert PIN.model_format in OWN.model_formats
