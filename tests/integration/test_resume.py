"""Resuming jobs against a real ledger, by workers in this process whose model is a fake."""

import os
import shutil
from datetime import UTC, datetime, timedelta

import pytest
import redis

from modeling.registry.store import ModelStore
from orchestrator.contract.errors import NotFoundError, PigeonholeError, TakenError, UnavailableError, UsageError
from orchestrator.contract.jobs.end import conclude, enter_outcome
from orchestrator.contract.jobs.history import read_history
from orchestrator.contract.jobs.job_folder import JobFolder, Outcome, Resume, active_jobs, new_job_id
from orchestrator.contract.jobs.listing import ListingWriter, SourceFacts, read_facts
from orchestrator.contract.jobs.parts import part_path
from orchestrator.contract.jobs.recovering_ledger import RecoveringLedger
from orchestrator.contract.jobs.requests import EvaluateJobRequest, MaxFailures, ModelPin, TrainJobRequest
from orchestrator.contract.jobs.restore import output_of
from orchestrator.contract.jobs.rows import summary_path
from orchestrator.contract.ledger.ledger import Claim, Ledger
from orchestrator.contract.server import connect
from orchestrator.contract.settings import Settings
from orchestrator.jobs import follow as following
from orchestrator.jobs import resume as resuming
from orchestrator.jobs.follow import read_record
from orchestrator.jobs.merging.changed import changed_since_parts
from orchestrator.jobs.merging.since import merge_since
from orchestrator.jobs.prepare import reading_of
from orchestrator.jobs.results import find_published
from orchestrator.jobs.resumable import check_resumable
from orchestrator.jobs.resume import ResumeOptions, resume
from orchestrator.jobs.sources import open_source
from orchestrator.jobs.submit import JobClient
from orchestrator.jobs.verification import verify
from orchestrator.jobs.walk import SourceOptions
from tests.support.fakes import Bells, FakeClassifier, FakeModelCache, dies_at_step, enter_job, make_images, make_job
from tests.support.merges import new_manifest
from tests.support.published_models import publish_model
from tests.support.server import wait_until
from workers.classify.slice import classify_slice
from workers.finalize.finalize import end_job
from workers.sweep import sweep

pytestmark = pytest.mark.integration

BRIGHTNESS = [0, 30, 60, 90, 120, 150, 180, 210, 240]


class Client(JobClient):
    """Rings nobody."""

    def ring(self, queue, job):
        self.rung = [*getattr(self, "rung", []), (queue, job)]


@pytest.fixture
def client(settings, server):
    return Client(Settings(home=settings.home, server_url=server.url))


@pytest.fixture
def pin(settings):
    version = publish_model(settings.models, "digits")
    return ModelPin(name="digits", number=1, digest=version.digest, preprocessing_digest="p" * 64)


@pytest.fixture
def make(settings, ledger, tmp_path, pin):
    """Makes jobs of nine images in five shards, entered."""
    (tmp_path / "out").mkdir()
    paths = make_images(tmp_path / "in", BRIGHTNESS)

    def make(name="out.csv", **changes):
        source = open_source(str(tmp_path / "in"), SourceOptions())
        facts = {"shard_size": 2, "model": pin, "reading": reading_of(source, SourceOptions())} | changes
        folder = make_job(settings, paths, root=tmp_path / "in", output=tmp_path / "out" / name, **facts)
        enter_job(folder, ledger)
        return folder

    return make


@pytest.fixture
def expected(make, context, tmp_path):
    """The manifest of an undisturbed run."""
    folder = make("undisturbed.csv")
    finish(folder.job, context)
    return (tmp_path / "out" / "undisturbed.csv").read_bytes()


def finish(job, context):
    """Do all that is left of a job; returns the brightness of the images that were predicted."""
    context.models = FakeModelCache(FakeClassifier())
    classify_slice(job, context)
    end_job(job, context)
    return sorted(context.models.classifier.seen)


def do_some(folder, context, num_shards, how="cancel"):
    """Do some shards, then cancel the job, or let it fail; returns the number of images done."""
    seen = 0

    def stop(brightness):
        nonlocal seen
        if seen >= 2 * num_shards:
            context.ledger.cancel(folder.job, run=folder.run, reason="" if how == "cancel" else "a disk broke")
            wait_until(lambda: context.ledger.record(folder.job).state == "cancelling", what="it is cancelled")
        seen += len(brightness)

    context.models = FakeModelCache(FakeClassifier(before=stop))
    classify_slice(folder.job, context)
    context.ledger.cancel(folder.job, run=folder.run, reason="" if how == "cancel" else "a disk broke")
    wait_until(lambda: end_job(folder.job, context) or folder.outcome() is not None, what="the job has ended")
    return folder.outcome().num_done


def go_on(client, job, **options):
    """Resume, without a worker."""
    folder = check_resumable(client.settings, job)
    return resume(client, folder, ResumeOptions(**{"need_worker": False} | options), lambda job, number: None)


def test_a_cancelled_job_goes_on_with_what_is_missing_and_gives_the_same_bytes(
    make, client, context, expected, tmp_path
):
    folder = make()
    num_done = do_some(folder, context, 2)

    resumed = go_on(client, folder.job)
    seen = finish(folder.job, context)

    again = JobFolder.open(client.settings, folder.job)
    assert (resumed.num_done, resumed.num_missing, resumed.run) == (num_done, 9 - num_done, 1)
    assert 0 < num_done < 9
    assert seen == BRIGHTNESS[num_done:]
    assert (tmp_path / "out" / "out.csv").read_bytes() == expected
    assert (again.outcome_of(0).state, again.outcome().state, again.outcome().run) == ("cancelled", "succeeded", 1)
    assert [event.event for event in read_history(again)] == ["ended", "resumed", "ended"]
    assert (client.ledger.active(), active_jobs(client.settings)) == (set(), [])


def test_images_that_were_changed_since_are_counted_and_their_rows_stay(make, client, context, expected, tmp_path):
    folder = make()
    do_some(folder, context, 2)
    (tmp_path / "in" / "000.png").write_bytes((tmp_path / "in" / "008.png").read_bytes())
    (tmp_path / "in" / "001.png").rename(tmp_path / "away.png")

    go_on(client, folder.job)
    changes = changed_since_parts(folder)
    finish(folder.job, context)

    assert (changes.num_changed, changes.example) == (2, "000.png")
    assert (tmp_path / "out" / "out.csv").read_bytes() == expected


def test_a_failed_job_goes_on_and_may_be_resumed_more_than_once(make, client, context, expected, tmp_path):
    folder = make()
    do_some(folder, context, 1, how="fail")
    go_on(client, folder.job)
    do_some(JobFolder.open(client.settings, folder.job), context, 1)
    go_on(client, folder.job)

    finish(folder.job, context)

    again = JobFolder.open(client.settings, folder.job)
    ends = [again.outcome_of(run).state for run in range(3)]
    assert (ends, again.outcome_of(0).error) == (["failed", "cancelled", "succeeded"], "a disk broke")
    assert (tmp_path / "out" / "out.csv").read_bytes() == expected


@pytest.mark.parametrize("loss", ["nothing", "ledger", "half of the parts", "a damaged part", "active"])
def test_what_was_lost_meanwhile_is_done_again_and_nothing_else(
    loss, make, client, context, server, expected, tmp_path
):
    folder = make()
    num_done = do_some(folder, context, 3)
    parts = sorted(folder.parts.glob("*.part"))
    lost = {"half of the parts": parts[::2], "a damaged part": parts[:1]}.get(loss, [])
    for part in lost:
        part.unlink() if loss == "half of the parts" else part.write_bytes(part.read_bytes()[:-3])
    if loss == "ledger":
        server.empty()

    resumed = go_on(client, folder.job)
    seen = finish(folder.job, context)

    assert resumed.num_missing == len(seen) == 9 - num_done + 2 * len(lost)
    assert (tmp_path / "out" / "out.csv").read_bytes() == expected


@pytest.mark.parametrize("also_active", [True, False])
def test_a_job_that_an_emptied_or_another_server_does_not_know_is_entered_again(
    also_active, make, client, context, server, expected, tmp_path
):
    folder = make()
    server.empty()
    if not also_active:
        folder.retire()

    resumed = go_on(client, folder.job)

    assert (resumed.entered, resumed.run, resumed.num_missing) == (True, 0, 9)
    finish(folder.job, context)
    assert (tmp_path / "out" / "out.csv").read_bytes() == expected


def test_a_job_whose_outcome_was_lost_goes_on(make, client, context, expected, tmp_path):
    folder = make()
    do_some(folder, context, 1)
    (folder.path / "outcome.json").unlink()

    folder.request_cancel()  # as the operator did before
    go_on(client, folder.job)

    finish(folder.job, context)
    assert (tmp_path / "out" / "out.csv").read_bytes() == expected


def test_of_two_resumes_at_once_one_wins(make, client, context):
    folder = make()
    do_some(folder, context, 1)
    first, second = (check_resumable(client.settings, folder.job) for _ in range(2))
    options = ResumeOptions(need_worker=False)

    resume(client, first, options, lambda *_: None)

    with pytest.raises(PigeonholeError, match=r"was resumed by .*@.* at .* UTC; `pigeonhole watch"):
        resume(client, second, options, lambda *_: None)
    assert JobFolder.open(client.settings, folder.job).run == 1


def test_what_the_run_before_still_does_changes_nothing(make, client, context, ledger, expected, tmp_path):
    folder = make()
    late_claim = ledger.claim(folder.job, "late", 60)
    assert isinstance(late_claim, Claim)
    ledger.release(late_claim)
    do_some(folder, context, 1)
    recovering = RecoveringLedger(ledger, client.settings)
    go_on(client, folder.job)

    late = [
        ledger.commit(late_claim, num_rows=2, num_failed=0)[0],
        ledger.cancel(folder.job, run=0),
        ledger.extend(folder.job, 9, 99, listed=True),
        ledger.renew_finalize_lease(folder.job, 5, 60),
    ]
    enter_outcome(folder, folder.outcome(), recovering)
    conclude(folder, folder.outcome().model_copy(update={"error": "late"}), recovering)
    recovering.restore(folder.job)

    assert late[1:] == ["running", "cancelled", False]
    assert late[0] in ("already", "stale")
    assert (active_jobs(client.settings), ledger.active()) == ([folder.job], {folder.job})
    finish(folder.job, context)
    assert (tmp_path / "out" / "out.csv").read_bytes() == expected


def test_a_slow_worker_that_removes_the_job_from_the_active_ones_is_corrected_by_the_sweep(
    make, client, context, settings, ledger
):
    folder = make()
    do_some(folder, context, 1)
    go_on(client, folder.job)
    folder.retire()

    sweep(settings, ledger, Bells())

    assert active_jobs(settings) == [folder.job]


def test_after_a_stop_after_any_step_the_job_goes_on_by_itself_or_is_resumed_again(
    make, client, context, settings, server, expected, tmp_path, monkeypatch
):
    monkeypatch.setattr(resuming, "MOMENT_S", 0.0)
    step, dies, ends = 0, True, set()

    while dies:
        folder = make(f"{step}.csv")
        do_some(folder, context, 1)
        dies = dies_at_step(step, lambda job=folder.job: go_on(fresh(client, server), job), tmp_path)
        sweep(settings, context.ledger, Bells())
        state = read_record(settings, context.ledger, folder.job).state
        if state != "running":
            go_on(client, folder.job)
        finish(folder.job, context)

        ends.add(state)
        assert (tmp_path / "out" / f"{step}.csv").read_bytes() == expected
        assert (context.ledger.active(), active_jobs(settings)) == (set(), [])
        step += 1

    assert ends == {"cancelled", "unknown", "running"}


def fresh(client, server):
    """In a child process: a connection of its own."""
    client.ledger = Ledger(connect(server.url))
    return client


# Merges


def make_since(base, settings, ledger):
    """A job of what is new since a manifest, which is to take its place, entered."""
    request = base.request()
    source = open_source(request.source, SourceOptions())
    merge = merge_since(settings, request.output, source, new_manifest(request))
    changes = {"job": new_job_id("classify"), "base": merge.to_request(), "reading": None}
    folder = JobFolder.create(settings, request.model_copy(update=changes), base=merge.base.files)
    with ListingWriter(folder.work, request.shard_size) as writer:
        for path in merge.paths(folder.work, source.paths, lambda num: None):
            writer.add(path)
        writer.close({})
    enter_job(folder, ledger)
    return folder


@pytest.mark.parametrize("base_is", ["there", "moved away"])
def test_an_incremental_run_that_was_cancelled_goes_on(base_is, make, client, context, ledger, settings, tmp_path):
    base = make("base.csv")
    finish(base.job, context)
    output = tmp_path / "out" / "base.csv"
    before = output.read_bytes()
    for name in ("001", "002", "004", "005", "006"):
        path = tmp_path / "in" / f"{name}.png"
        os.utime(path, ns=(7, 7))
    folder = make_since(base, settings, ledger)
    num_done = do_some(folder, context, 1)
    if base_is == "moved away":
        output.rename(tmp_path / "away.csv")  # its summary stays

    resumed = go_on(client, folder.job)
    seen = finish(folder.job, context)

    assert (resumed.num_done, resumed.num_missing) == (num_done, 5 - num_done)
    assert seen == [30, 60, 120, 150, 180][num_done:]
    assert output.read_bytes() == (tmp_path / "out" / "base.csv.1").read_bytes() == before
    published = find_published(settings, folder.job)
    assert (published.summary["job"], published.summary["merge"]["num_kept"]) == (folder.job, 4)
    assert verify(settings, published).differences == []


def test_an_incremental_run_that_was_not_all_listed_is_to_be_repeated(
    make, client, context, ledger, settings, tmp_path
):
    base = make("base.csv")
    finish(base.job, context)
    os.utime(tmp_path / "in" / "001.png", ns=(7, 7))
    folder = make_since(base, settings, ledger)
    (folder.path / "listing.json").unlink()
    (folder.path / "merge.json").unlink()
    end_job(folder.job, context)

    with pytest.raises(UsageError, match=r"were not all listed, and were to be compared with '.*base\.csv'"):
        go_on(client, folder.job)


# Listing again


def cut_off(folder, *, num_shards):
    """The listing as a submission leaves it that died in the middle."""
    facts = folder.path / "listing.json"
    facts.unlink()
    index = folder.path / "listing.index"
    index.write_bytes(index.read_bytes()[: num_shards * 42])


def test_images_that_were_not_all_listed_are_listed_again_and_finished_parts_stay(
    make, client, context, expected, tmp_path
):
    folder = make()
    num_done = do_some(folder, context, 2)
    cut_off(folder, num_shards=3)

    resumed = go_on(client, folder.job)
    seen = finish(folder.job, context)

    assert (resumed.relisted, resumed.num_images, resumed.num_missing) == (True, 9, 9 - num_done)
    assert seen == BRIGHTNESS[num_done:]
    assert (tmp_path / "out" / "out.csv").read_bytes() == expected
    assert folder.parts != JobFolder.open(client.settings, folder.job).parts


def test_parts_of_other_paths_than_are_listed_now_are_done_again(make, client, context, tmp_path):
    folder = make()
    do_some(folder, context, 3)
    cut_off(folder, num_shards=3)
    (tmp_path / "in" / "000.png").rename(tmp_path / "in" / "009.png")

    resumed = go_on(client, folder.job)
    finish(folder.job, context)

    assert (resumed.num_done, resumed.num_images) == (0, 9)
    rows = (tmp_path / "out" / "out.csv").read_text().splitlines()[1:]
    assert [row.partition(",")[0] for row in rows] == [f"{number:03d}.png" for number in range(1, 10)]


def test_a_slow_lister_and_a_slow_worker_of_the_old_listing_change_nothing(make, client, context, expected, tmp_path):
    folder = make()
    do_some(folder, context, 1)
    cut_off(folder, num_shards=1)
    go_on(client, folder.job)

    with ListingWriter(folder.work, 2) as writer:
        writer.add("other.png")
        writer.close({})
    part_path(folder.parts, 4).write_bytes(b"a part of other paths")
    finish(folder.job, context)

    assert (tmp_path / "out" / "out.csv").read_bytes() == expected


def test_a_damaged_listing_is_made_again_only_if_it_is_the_same(make, client, context, expected, tmp_path):
    folder = make()
    do_some(folder, context, 1)
    (folder.path / "listing").write_bytes(b"\0" * 50)
    (tmp_path / "in" / "999.png").write_bytes(b"new")

    with pytest.raises(PigeonholeError, match=r"is damaged, and .* holds other images now \(10, not 9\); submit it"):
        go_on(client, folder.job)
    (tmp_path / "in" / "999.png").unlink()
    go_on(client, folder.job)
    finish(folder.job, context)

    assert (tmp_path / "out" / "out.csv").read_bytes() == expected
    assert len(list(folder.path.glob("run.*"))) == 1
    assert read_facts(JobFolder.open(client.settings, folder.job).work).num_images == 9


@pytest.mark.parametrize("shard", [0, 2], ids=["first", "middle"])
def test_a_damaged_index_is_made_again(make, client, context, expected, tmp_path, shard):
    folder = make()
    do_some(folder, context, 1)
    index = bytearray((folder.path / "listing.index").read_bytes())
    width = len(index) // 5
    index[shard * width : (shard + 1) * width] = b"\0" * width
    (folder.path / "listing.index").write_bytes(index)

    assert go_on(client, folder.job).relisted
    finish(folder.job, context)

    assert (tmp_path / "out" / "out.csv").read_bytes() == expected


def test_a_job_that_lost_its_folder_of_parts_and_died_while_it_was_paused_goes_on(
    make, client, context, expected, tmp_path
):
    folder = make()
    do_some(folder, context, 1)
    folder.write_pause("operator", "the process that ended the job died before this was removed")
    shutil.rmtree(folder.parts)

    go_on(client, folder.job)
    finish(folder.job, context)

    assert (tmp_path / "out" / "out.csv").read_bytes() == expected


def test_images_of_standard_input_cannot_be_listed_again(make, client, context):
    folder = make(reading=None, source="-")
    do_some(folder, context, 1)
    cut_off(folder, num_shards=3)

    with pytest.raises(UsageError, match="were not all listed, and '-' cannot be listed again; submit it again"):
        go_on(client, folder.job)
    assert JobFolder.open(client.settings, folder.job).run == 0


# Failures above the limit


def test_a_job_with_too_many_failures_ends_again_unless_it_gets_another_limit(make, client, context, tmp_path):
    (tmp_path / "in" / "000.png").write_bytes(b"no image")
    folder = make(max_failures=MaxFailures(count=0))
    finish(folder.job, context)
    ended = folder.outcome()

    again = go_on(client, folder.job)
    finish(folder.job, context)
    second = JobFolder.open(client.settings, folder.job).outcome()
    kept = sorted(path.name for path in (tmp_path / "out").iterdir())
    other = go_on(client, folder.job, max_failures=MaxFailures(count=1))
    finish(folder.job, context)

    assert (ended.too_many_failures, second.too_many_failures, second.num_done) == (True, True, ended.num_done)
    assert again.ends_again == "1 images have failed already, more than the 0 allowed by --max-failures"
    assert other.ends_again is None
    assert kept == [f"out.csv.incomplete{suffix}" for suffix in ("", ".sources", ".summary.json")]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "out.csv", "out.csv.sources", "out.csv.summary.json",
    ]  # fmt: skip
    assert JobFolder.open(client.settings, folder.job).outcome().state == "partial"


# What cannot be resumed


def test_a_job_that_has_succeeded_is_refused(make, client, context):
    folder = make()
    finish(folder.job, context)

    with pytest.raises(PigeonholeError, match=r"has ended as succeeded: nothing is missing in .*/out\.csv$"):
        go_on(client, folder.job)


def test_a_job_that_runs_or_is_paused_is_refused(make, client, ledger):
    folder = make()
    with pytest.raises(PigeonholeError, match=r"has not ended: it is queued; `pigeonhole watch .*` follows it"):
        go_on(client, folder.job)
    folder.write_pause("operator", "ada@office paused it")
    ledger.pause(folder.job, "ada@office paused it", by="operator")

    with pytest.raises(PigeonholeError, match=r"it is paused \(`pigeonhole jobs unpause .*` lets it go on\)"):
        go_on(client, folder.job)


def test_a_running_job_that_the_servers_own_workers_found_goes_on(make, client):
    folder = make()

    assert go_on(client, folder.job, just_started=True).num_missing == 9


def test_a_job_that_never_was_or_never_began_is_refused(make, client, server):
    with pytest.raises(NotFoundError, match="there is no job c261123-143355-7f3a2b"):
        go_on(client, "c261123-143355-7f3a2b")
    folder = make()
    folder.retire()
    server.empty()
    (folder.path / "listing.json").unlink()

    with pytest.raises(PigeonholeError, match="never began: its submission was interrupted; submit it again"):
        go_on(client, folder.job)


def test_who_follows_a_job_that_server_and_home_have_lost_is_sent_to_resume(make, client, server, monkeypatch):
    folder = make()
    server.empty()
    folder.retire()
    monkeypatch.setattr(following, "SUBMISSION_S", 0.0)

    with pytest.raises(PigeonholeError, match=f"no worker knows job .*; `pigeonhole jobs resume {folder.job}` lets it"):
        following.Follower(client.settings, client.ledger, folder.job).look()
    (folder.path / "listing.json").unlink()
    with pytest.raises(PigeonholeError, match="never began"):
        following.Follower(client.settings, client.ledger, folder.job).look()


def test_an_output_that_appeared_meanwhile_is_refused_at_once(make, client, context, tmp_path, expected):
    folder = make()
    output = tmp_path / "out" / "out.csv"
    do_some(folder, context, 1)
    output.write_text("precious")

    with pytest.raises(UsageError, match=r"out\.csv' appeared since job .* was submitted; move it away, and resume"):
        go_on(client, folder.job)
    output.unlink()
    summary_path(output).write_text('{"job": "another"}')
    with pytest.raises(UsageError, match=r"out\.csv\.summary\.json' appeared since"):
        go_on(client, folder.job)
    summary_path(output).write_text(f'{{"job": "{folder.job}"}}')  # of a finalizer of its own that died
    go_on(client, folder.job)
    finish(folder.job, context)

    assert output.read_bytes() == expected


def test_an_output_that_another_job_will_write_is_refused(make, client, context):
    folder = make()
    do_some(folder, context, 1)
    other = make()

    with pytest.raises(TakenError, match=f"job {other.job} will write"):
        go_on(client, folder.job)
    assert JobFolder.open(client.settings, folder.job).run == 0


def test_a_model_or_a_source_that_is_gone_is_refused_until_it_is_back(make, client, context, settings, tmp_path):
    folder = make()
    do_some(folder, context, 1)
    shutil.move(tmp_path / "in", tmp_path / "away")
    with pytest.raises(NotFoundError, match=r"the source of job .*/in', is not there: bring it back, and resume"):
        go_on(client, folder.job)
    (tmp_path / "in").mkdir()
    SourceFacts.of(str(tmp_path / "away"), walked=True).write(folder.work)
    with pytest.raises(NotFoundError, match=r"the source of job .*/in', is empty now: mount it, and resume"):
        go_on(client, folder.job)
    (tmp_path / "in").rmdir()
    shutil.move(tmp_path / "away", tmp_path / "in")
    ModelStore(settings.models).remove(ModelStore(settings.models).resolve("digits"))

    with pytest.raises(NotFoundError, match=r"needs its model again: .*; import it, or submit with another"):
        go_on(client, folder.job)


def test_without_a_worker_only_a_detached_job_is_resumed(make, client, context):
    folder = make()
    do_some(folder, context, 1)

    with pytest.raises(UnavailableError, match="no worker listens"):
        go_on(client, folder.job, need_worker=True)
    assert go_on(client, folder.job).run == 1


def test_a_resume_that_died_before_it_entered_the_job_is_waited_for_a_moment(make, client, context):
    folder = make()
    do_some(folder, context, 1)
    folder.begin_run(Resume(run=1, at=datetime.now(UTC), by="ada@office"))
    with pytest.raises(PigeonholeError, match="was resumed by ada@office"):
        go_on(client, folder.job)
    long_ago = Resume(run=1, at=datetime.now(UTC) - timedelta(hours=1), by="ada@office")
    (folder.path / "resume.1.json").write_text(long_ago.model_dump_json())

    resumed = go_on(client, folder.job)

    assert (resumed.run, resumed.entered) == (1, True)


def test_a_resume_whose_server_goes_away_says_that_the_job_goes_on_and_it_does(
    make, client, context, expected, tmp_path
):
    folder = make()
    do_some(folder, context, 1)

    def ring(queue, job):
        raise redis.ConnectionError("gone")

    client.ring = ring
    with pytest.raises(UnavailableError, match=f"job {folder.job} is resumed and goes on when it does"):
        go_on(client, folder.job)
    finish(folder.job, context)

    assert (tmp_path / "out" / "out.csv").read_bytes() == expected


# Trainings and evaluations


@pytest.fixture
def make_process_job(settings, ledger, tmp_path, pin):
    """Makes trainings and evaluations that were cancelled, entered and ended."""
    (tmp_path / "data").mkdir()

    def make(kind, **train):
        facts = {"job": new_job_id(kind), "created": datetime.now(UTC), "source": "data"}
        if kind == "train":
            request = TrainJobRequest(**facts, name="bars", train={"data": str(tmp_path / "data")} | train)
        else:
            output = str(tmp_path / "figures")
            request = EvaluateJobRequest(**facts, model=pin, data=str(tmp_path / "data"), part="all", output=output)
        folder = JobFolder.create(settings, request)
        fields = {"kind": kind, "listed": 1, "num_shards": 1, "num_images": 60}
        ledger.create(folder.job, fields, output=output_of(request))
        folder.activate()
        conclude(folder, Outcome(state="cancelled", ended=datetime.now(UTC)), RecoveringLedger(ledger, settings))
        return folder

    return make


def test_a_training_goes_on_where_it_was_and_says_where(make_process_job, client, ledger):
    fresh, begun, trained = (make_process_job("train") for _ in range(3))
    (begun.path / "training").mkdir()
    (begun.path / "training" / "fit.checkpoint").touch()
    trained.model.mkdir()

    said = [go_on(client, folder.job).goes_on for folder in (fresh, begun, trained)]

    assert said == [
        "it has no checkpoint: it begins again",
        "it goes on from its last checkpoint",
        "its result is there: it is published",
    ]
    assert client.rung == [("train", folder.job) for folder in (fresh, begun, trained)]
    claim = ledger.claim(begun.job, "w1", 60)
    assert isinstance(claim, Claim)
    assert (claim.shard, ledger.record(begun.job).run) == (0, 1)


@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_a_training_or_an_evaluation_whose_data_are_gone_is_refused(kind, make_process_job, client, tmp_path):
    folder = make_process_job(kind)
    (tmp_path / "data").rmdir()

    with pytest.raises(NotFoundError, match=rf"the data of job {folder.job}, .*/data', is not there: bring it back"):
        go_on(client, folder.job)


def test_a_training_without_its_weights_is_refused(make_process_job, client):
    folder = make_process_job("train", weights_pin={"name": "ours", "sha256": "0" * 64})

    with pytest.raises(NotFoundError, match=r"the weights that job .* starts from are not in its folder any more"):
        go_on(client, folder.job)


def test_an_evaluation_whose_output_appeared_is_refused(make_process_job, client, tmp_path):
    folder = make_process_job("evaluate")
    (tmp_path / "figures").mkdir()
    with pytest.raises(UsageError, match=r"figures' appeared since the job was submitted; move it away, and resume"):
        go_on(client, folder.job)
    (tmp_path / "figures").rmdir()

    assert go_on(client, folder.job).goes_on == "it has no checkpoint: it begins again"
