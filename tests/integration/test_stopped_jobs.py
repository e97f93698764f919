"""Every way that a job ends without a result, concluded by a worker and by a cancel where no worker is alive: alike."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest
from pydantic import SecretStr

from orchestrator.contract.jobs.end import remove_unpublished, unpublished_path
from orchestrator.contract.jobs.job_folder import JobFolder, active_jobs, new_job_id
from orchestrator.contract.jobs.parts import read_trailer
from orchestrator.contract.jobs.requests import EvaluateJobRequest, MaxFailures, TrainJobRequest
from orchestrator.contract.jobs.restore import output_of
from orchestrator.contract.ledger.ledger import Claim
from orchestrator.jobs.submit import JobClient
from tests.support.fakes import PIN, Bells, FakeClassifier, FakeModelCache, enter_job, make_job, write_fake_parts
from workers.context import WorkerContext
from workers.finalize.finalize import end_job

pytestmark = pytest.mark.integration

NAMES = [f"{number}.jpg" for number in range(9)]
CALLERS = ["a worker", "a cancel without a worker"]


@pytest.fixture
def outbox(tmp_path):
    """The folder that outputs go to."""
    folder = tmp_path / "outbox"
    folder.mkdir()
    (folder / "mine.csv").touch()
    return folder


@pytest.fixture
def client(settings, server):
    client = JobClient(settings.model_copy(update={"server_url": SecretStr(server.url)}))
    yield client
    client.ledger.client.close()


@pytest.fixture(params=CALLERS)
def cancel(request, settings, ledger, client):
    """Cancels a job; the caller then ends it."""

    def by_a_worker(job):
        ledger.live_workers.heartbeat("w1", {"queues": "finalize"})
        assert client.cancel(job) == "cancelling"
        end_job(job, WorkerContext(settings, ledger, FakeModelCache(FakeClassifier()), "w1", "cpu", Bells()))

    def without_a_worker(job):
        assert client.cancel(job) == JobFolder.open(settings, job).outcome().state

    return {"a worker": by_a_worker, "a cancel without a worker": without_a_worker}[request.param]


def classify_job(settings, ledger, outbox, **changes):
    """A job of nine images in three shards; of every shard, the third row is an error."""
    folder = make_job(settings, NAMES, root=outbox.parent / "in", output=outbox / "out.csv", **changes)
    enter_job(folder, ledger)
    unpublished_path(folder.request(), 5).write_text("half a manifest")
    unpublished_path(folder.request(), 5).with_suffix(".summary.tmp").write_text("its summary")
    (folder.parts / ".00000000.x.tmp").write_text("half a part")
    return folder


def process_job(settings, ledger, outbox, kind):
    """A training or an evaluation whose process has been killed in the middle."""
    facts = {"job": new_job_id(kind), "created": datetime.now(UTC), "source": "/in"}
    if kind == "train":
        folder = JobFolder.create(settings, TrainJobRequest(**facts, name="bars", train={}))
        attempt = folder.path / "model.5"
        (folder.path / "training").mkdir()
        (folder.path / "training" / "last.checkpoint").write_text("weights")
    else:
        output = str(outbox / "figures")
        request = EvaluateJobRequest(**facts, model=PIN, data="/in", part="all", output=output)
        folder = JobFolder.create(settings, request)
        attempt = folder.path / "evaluation.5"
        unpublished_path(request, 5).mkdir()
        (unpublished_path(request, 5) / "figures.json").write_text("half of it")
    attempt.mkdir()
    (attempt / "half.json").write_text("half of it")
    fields = {"kind": kind, "listed": 1, "num_shards": 1, "num_images": 60}
    assert ledger.create(folder.job, fields, output=output_of(folder.request()))[0] == "created"
    folder.activate()
    return folder


def commit(ledger, folder, *, num_shards):
    for _ in range(num_shards):
        claim = ledger.claim(folder.job, "w1", 60)
        write_fake_parts(folder, [claim.shard])
        trailer = read_trailer(folder.parts, claim.shard)
        ledger.commit(claim, num_rows=trailer.num_rows, num_failed=trailer.num_failed)


def stop(ledger, folder, *, reason):
    """End the job with an error, as a worker does."""
    assert ledger.cancel(folder.job, reason=reason) == "cancelling"


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


@dataclass(frozen=True)
class Way:
    """A way to end: what happens to the job first, and what its outcome and folder hold then."""

    happens: object
    outcome: dict
    parts: int = 0
    changes: dict = field(default_factory=dict)


CLASSIFY_WAYS = {
    "cancelled before the first shard": Way(
        lambda ledger, folder: None, {"state": "cancelled", "num_images": 9}
    ),
    "cancelled after the first shard": Way(
        lambda ledger, folder: commit(ledger, folder, num_shards=1),
        {"state": "cancelled", "num_images": 9, "num_done": 4, "num_failed": 1}, parts=1,
    ),
    "an error is recorded": Way(
        lambda ledger, folder: stop(ledger, folder, reason="the model is gone"),
        {"state": "failed", "num_images": 9, "error": "the model is gone"},
    ),
}  # fmt: skip


def check_the_end(folder, ledger, settings, outcome):
    """The outcome is the same on the disk and in the ledger, and no output is reserved."""
    record = ledger.record(folder.job)
    assert folder.outcome().model_dump(exclude={"ended", "version"}, exclude_defaults=True) == outcome
    assert (record.state, record.error, record.too_many_failures) == (
        outcome["state"], outcome.get("error", ""), outcome.get("too_many_failures", False),
    )  # fmt: skip
    assert (ledger.active(), active_jobs(settings)) == (set(), [])
    assert ledger.owner_of_output(output_of(folder.request())) is None


@pytest.mark.parametrize("way", CLASSIFY_WAYS)
def test_a_classify_job_that_is_stopped_ends_alike_by_both_callers(way, cancel, settings, ledger, outbox):
    way = CLASSIFY_WAYS[way]
    folder = classify_job(settings, ledger, outbox, **way.changes)
    way.happens(ledger, folder)

    cancel(folder.job)

    check_the_end(folder, ledger, settings, way.outcome)
    listing = ["cancel", "history.jsonl", "job.json", "listing", "listing.index", "listing.json", "outcome.json"]
    assert files(folder.path) == sorted([*listing, *(f"parts/{shard:08d}.part" for shard in range(way.parts))])
    assert files(outbox) == ["mine.csv"]


@pytest.mark.parametrize("kind", ["train", "evaluate"])
@pytest.mark.parametrize("way", ["cancelled before it began", "cancelled after it was handed back", "an error"])
def test_a_training_or_evaluation_that_is_stopped_ends_alike_by_both_callers(
    kind, way, cancel, settings, ledger, outbox
):
    folder = process_job(settings, ledger, outbox, kind)
    outcome = {"state": "cancelled", "num_images": 60}
    if way == "cancelled after it was handed back":
        claim = ledger.claim(folder.job, "w1", 60)
        assert isinstance(claim, Claim)
        assert ledger.release(claim)
    elif way == "an error":
        stop(ledger, folder, reason="the data are gone")
        outcome |= {"state": "failed", "error": "the data are gone"}

    cancel(folder.job)

    check_the_end(folder, ledger, settings, outcome)
    checkpoints = ["training/last.checkpoint"] if kind == "train" else []
    assert files(folder.path) == ["cancel", "history.jsonl", "job.json", "outcome.json", *checkpoints]
    assert files(outbox) == ["mine.csv"]


def test_a_job_that_the_server_forgot_can_be_cancelled(cancel, settings, ledger, server, outbox):
    folder = classify_job(settings, ledger, outbox)
    commit(ledger, folder, num_shards=1)
    server.empty()

    cancel(folder.job)

    check_the_end(folder, ledger, settings, CLASSIFY_WAYS["cancelled after the first shard"].outcome)


def test_a_cancel_leaves_a_job_to_the_worker_that_holds_a_shard(settings, ledger, client, outbox):
    folder = classify_job(settings, ledger, outbox)
    ledger.claim(folder.job, "w1", 60)

    assert client.cancel(folder.job) == "cancelling"

    assert folder.outcome() is None
    assert unpublished_path(folder.request(), 5).exists()


@pytest.mark.parametrize("kind", ["classify", "evaluate"])
def test_only_what_earlier_finalizers_of_this_job_left_is_removed(kind, settings, ledger, outbox):
    make = {"classify": lambda: classify_job(settings, ledger, outbox)}
    folder = make.get(kind, lambda: process_job(settings, ledger, outbox, kind))()
    request = folder.request()
    remove_unpublished(request, before=1 << 62)
    earlier = [f".{folder.job}.99.tmp", f".{folder.job}.99.summary.tmp"]
    others = [f".{folder.job}.100.tmp", f".{folder.job}.101.tmp", ".c261123-143355-7f3a2b.5.tmp", ".out.csv.swp"]
    for name in [*earlier, *others]:
        (outbox / name).mkdir() if kind == "evaluate" else (outbox / name).touch()

    remove_unpublished(request, before=100)
    after_finalizer = sorted(path.name for path in outbox.iterdir())
    remove_unpublished(request, before=1 << 62)

    assert after_finalizer == sorted([*others, "mine.csv"])
    assert sorted(path.name for path in outbox.iterdir()) == sorted([*others[2:], "mine.csv"])


def test_a_cancel_leaves_a_job_with_too_many_failures_to_a_worker_which_keeps_its_rows(
    settings, ledger, client, outbox
):
    folder = classify_job(settings, ledger, outbox, max_failures=MaxFailures(count=1))
    commit(ledger, folder, num_shards=2)

    state = client.cancel(folder.job)
    end_job(folder.job, WorkerContext(settings, ledger, FakeModelCache(FakeClassifier()), "w1", "cpu", Bells()))

    assert (state, folder.outcome().too_many_failures) == ("cancelling", True)
    assert folder.outcome().error == "2 of 8 images failed, more than the 1 allowed by --max-failures"
    kept = [f"out.csv.incomplete{suffix}" for suffix in ("", ".sources", ".summary.json")]
    assert files(outbox) == ["mine.csv", *kept]
