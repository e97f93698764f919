"""The sweep and the leases of a slice: lost doorbells, an emptied server and dead workers do no harm."""

import errno
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.requests import SourceReading
from orchestrator.contract.ledger.ledger import Claim, Ledger
from orchestrator.contract.ledger.live_workers import SWEEP_PAUSE_S, SWEEP_S, SWEEPER_KEY
from orchestrator.contract.queues import queue_key
from orchestrator.contract.server import connect
from tests.support.fakes import (
    Bells,
    FakeClassifier,
    FakeModelCache,
    dies_at_step,
    enter_job,
    make_images,
    make_job,
    write_fake_parts,
)
from tests.support.server import wait_until
from workers.classify.slice import classify_slice
from workers.context import WorkerContext
from workers.finalize.finalize import end_job
from workers.finalize.lease import FinalizeLease, FinalizeLeaseLostError
from workers.leases import STALLED_EXIT_CODE, Leases
from workers.sweep import sweep

pytestmark = pytest.mark.integration


@pytest.fixture
def folder(settings, ledger, tmp_path):
    """A job of six images in three shards."""
    paths = make_images(tmp_path / "in", [0, 50, 100, 150, 200, 250])
    folder = make_job(settings, paths, root=tmp_path / "in", output=tmp_path / "out.csv", shard_size=2)
    enter_job(folder, ledger)
    return folder


def hire_idle(ledger, number):
    """Enter `number` idle workers and a busy one."""
    ledger.client.delete("{pigeonhole}:workers")
    queues = "classify,train,finalize"
    ledger.live_workers.heartbeat("busy", {"queues": queues, "busy": 1})
    for index in range(number):
        ledger.live_workers.heartbeat(f"idle-{index}", {"queues": queues, "busy": 0})


@pytest.fixture
def swept(settings, ledger):
    """Sweeps, and returns the doorbells."""

    def swept(*, idle=1):
        bells = Bells()
        hire_idle(ledger, idle)
        sweep(settings, ledger, bells)
        return bells.rung

    return swept


def test_a_job_with_work_gets_a_doorbell_where_none_waits(swept, folder, ledger):
    first = swept()
    ledger.client.lpush(queue_key("classify"), "a bell")

    assert (first, swept()) == ([("classify", folder.job)], [])


def test_every_idle_worker_gets_a_doorbell(swept, folder):
    assert swept(idle=3) == [("classify", folder.job)] * 3


def test_a_paused_job_costs_no_doorbell_until_somebody_should_look_for_its_source(swept, folder, ledger):
    ledger.pause(folder.job, "away", by="storage")
    at_once = swept(idle=3)
    ledger.client.hset("{pigeonhole}:job:" + folder.job, "look_at", 1)

    assert (at_once, swept(idle=3), swept(idle=3)) == ([], [("classify", folder.job)] * 3, [])


def test_somebody_looks_for_the_source_of_a_paused_job_also_if_all_are_busy(swept, folder, ledger):
    ledger.pause(folder.job, "away", by="storage")
    ledger.client.hset("{pigeonhole}:job:" + folder.job, "look_at", 1)

    assert swept(idle=0) == [("classify", folder.job)]


def test_a_job_that_the_operator_paused_rings_for_nobody(swept, folder, ledger):
    folder.write_pause("operator", "until tonight")
    ledger.pause(folder.job, "until tonight", by="operator")

    assert swept(idle=3) == []


def test_the_ledger_follows_the_operators_pause_in_the_folder(swept, folder, ledger):
    folder.write_pause("operator", "until tonight")
    lost_pause = (swept(), ledger.record(folder.job).paused_reason)
    folder.withdraw_pause("operator")

    lost_unpause = (swept(), ledger.record(folder.job).state)

    assert lost_pause == ([], "until tonight")
    assert lost_unpause == ([("classify", folder.job)], "queued")


def test_a_pause_that_comes_while_a_slow_sweep_ends_an_earlier_one_stays(swept, folder, ledger, monkeypatch):
    ledger.pause(folder.job, "earlier", by="operator")
    look, looked = JobFolder.pause, []

    def slow(this, by):
        found = look(this, by)
        looked.append(found)
        if len(looked) == 2:
            this.write_pause("operator", "until tonight")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(JobFolder, "pause", slow)
        swept()

    swept()
    assert (looked[:2], ledger.record(folder.job).paused_reason) == ([None, None], "until tonight")


def test_one_worker_at_a_time_sweeps(ledger):
    first = ledger.live_workers.take_sweep("w1")
    second = ledger.live_workers.take_sweep("w2")
    ledger.live_workers.keep_sweep()
    kept_ms = ledger.client.pttl(SWEEPER_KEY)

    assert (first, second) == (True, False)
    assert 0 < kept_ms <= 1000 * SWEEP_S


@pytest.mark.parametrize(("seconds", "pause_s"), [(0.01, SWEEP_PAUSE_S), (SWEEP_S / 2, SWEEP_S / 2), (300.0, SWEEP_S)])
def test_the_next_sweep_comes_after_a_pause_as_long_as_the_last_one_within_bounds(ledger, seconds, pause_s):
    ledger.live_workers.take_sweep("w1")
    ledger.live_workers.end_sweep("w1", seconds)

    assert 500 * pause_s < ledger.client.pttl(SWEEPER_KEY) <= 1000 * pause_s


def test_a_worker_that_was_frozen_in_its_sweep_does_not_end_that_of_another(ledger):
    ledger.live_workers.take_sweep("w2")

    ledger.live_workers.end_sweep("w1", 0.01)

    assert ledger.client.pttl(SWEEPER_KEY) > 1000 * SWEEP_PAUSE_S


def test_a_job_whose_worker_died_is_rung_for_by_busy_workers_without_waiting_for_it_to_starve(swept, folder, ledger):
    ledger.claim(folder.job, "w2", 0.05)
    ledger.client.hset(f"{{pigeonhole}}:job:{folder.job}", "created_ms", 1)

    rung = []

    def rings():
        rung.extend(swept(idle=0))
        return rung

    wait_until(rings, what="the lease has run out and a bell was rung")

    assert rung == [("classify", folder.job)]


def test_a_busy_worker_rings_for_a_job_only_once_it_starves(swept, folder, ledger, settings, monkeypatch):
    before = swept(idle=0)
    hungry = settings.model_copy(update={"slice_s": 0.005})
    bells = Bells()

    def starves():
        sweep(hungry, ledger, bells)
        return bells.rung

    wait_until(starves, what="the job starves")

    assert (before, bells.rung) == ([], [("classify", folder.job)])


def test_doorbells_for_starving_jobs_are_bounded_by_the_workers(folder, ledger, settings, tmp_path):
    for name in ("b", "c", "d", "e"):
        other = make_job(settings, ["a"], root=tmp_path, output=tmp_path / f"{name}.csv")
        enter_job(other, ledger)
    hire_idle(ledger, 0)
    ledger.live_workers.heartbeat("second", {"queues": "classify", "busy": 1})
    bells = Bells()

    sweep(settings.model_copy(update={"slice_s": 1e-9}), ledger, bells)
    ledger.client.lpush(queue_key("classify"), *(job for _, job in bells.rung))
    sweep(settings.model_copy(update={"slice_s": 1e-9}), ledger, bells)

    assert [queue for queue, _ in bells.rung] == ["classify", "classify"]


def test_somebody_looks_for_the_source_of_a_paused_job_also_while_doorbells_of_others_wait(swept, folder, ledger):
    ledger.pause(folder.job, "away", by="storage")
    ledger.client.hset("{pigeonhole}:job:" + folder.job, "look_at", 1)
    ledger.client.lpush(queue_key("classify"), *["a bell"] * 10)

    assert swept(idle=3) == [("classify", folder.job)]


def test_doorbells_that_were_rung_one_too_many_are_not_put_back(folder, ledger):
    hire_idle(ledger, 1)

    def following(waiting):
        ledger.client.delete(queue_key("classify"))
        ledger.client.lpush(queue_key("classify"), *["a bell"] * waiting)
        return ledger.turns.end(ledger.turns.take(folder.job, "busy", 5), "busy", 0.1, 1)

    assert [following(1), following(2), following(9)] == [folder.job, None, None]


def test_a_sweep_asks_the_server_once_for_what_many_jobs_need(settings, ledger, server, tmp_path):
    for index in range(20):
        enter_job(make_job(settings, ["a"], root=tmp_path, output=tmp_path / f"{index}.csv"), ledger)
    hire_idle(ledger, 0)
    sent = []
    connection = ledger.client.connection_pool.get_connection()
    send = type(connection).send_packed_command
    ledger.client.connection_pool.release(connection)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(connection), "send_packed_command", lambda *a, **k: (sent.append(1), send(*a, **k))[1])
        sweep(settings, ledger, Bells())

    assert 0 < len(sent) < 20


def test_a_record_that_is_none_of_ours_does_not_prevent_the_check_of_the_others(
    swept, folder, ledger, settings, tmp_path
):
    foreign = make_job(settings, ["a"], root=tmp_path, output=tmp_path / "b.csv")
    foreign.activate()
    ledger.client.set("{pigeonhole}:job:" + foreign.job, "none of ours")

    assert swept() == [("classify", folder.job)]


def test_a_job_whose_shards_are_all_held_needs_nothing(swept, folder, ledger):
    for _ in range(3):
        ledger.claim(folder.job, "w2", 60)

    assert swept() == []


def test_a_job_that_the_server_forgot_is_entered_again(swept, folder, ledger, server):
    write_fake_parts(folder, [1])
    server.empty()

    rung = swept()

    assert rung == [("classify", folder.job)]
    assert (ledger.record(folder.job).shards_done, ledger.record(folder.job).state) == (1, "running")


def test_a_job_that_only_waits_for_its_end_gets_a_doorbell_even_from_a_busy_worker(swept, folder, ledger, server):
    write_fake_parts(folder)
    server.empty()

    assert swept(idle=0) == [("finalize", folder.job)]


def test_a_cancel_that_the_server_forgot_is_entered_again(swept, folder, ledger):
    folder.request_cancel()

    assert swept() == [("finalize", folder.job)]
    assert ledger.record(folder.job).state == "cancelling"


def test_an_outcome_that_the_server_forgot_is_entered_again(swept, folder, context, ledger):
    classify_slice(folder.job, context)
    end_job(folder.job, context)
    ledger.client.persist("{pigeonhole}:job:" + folder.job)  # as before the end, but for the outcome on the disk
    ledger.client.hset("{pigeonhole}:job:" + folder.job, mapping={"state": "finalizing"})
    ledger.client.sadd("{pigeonhole}:active", folder.job)
    ledger.client.hset("{pigeonhole}:outputs", folder.request().output, folder.job)
    (temporary := folder.path / ".outcome.json.12345678.tmp").touch()  # of the finalizer that died

    rung = swept()

    assert not temporary.exists()
    assert rung == []
    assert ledger.record(folder.job).state == "succeeded"
    assert (ledger.active(), ledger.owner_of_output(folder.request().output)) == (set(), None)


@pytest.fixture
def silent(folder, ledger):
    """A job whose lister died before it entered the end of the listing into the ledger."""
    key = "{pigeonhole}:job:" + folder.job
    ledger.client.hset(key, mapping={"listed": 0, "num_shards": 1, "num_images": 2, "lister_until": 1})
    return folder


def test_a_complete_listing_that_the_server_forgot_is_entered_again(swept, silent, ledger):
    rung = swept()

    record = ledger.record(silent.job)
    assert rung == [("classify", silent.job)]
    assert (record.listed, record.num_shards, record.num_images, record.state) == (True, 3, 6, "queued")


@pytest.mark.parametrize(
    ("reading", "advice"),
    [
        (SourceReading(source="/in", recursive=True, all_files=False, root=None), "`pigeonhole jobs resume"),
        (None, "submit it again"),
    ],
)
def test_a_job_whose_lister_died_fails_with_what_to_do(swept, silent, ledger, context, reading, advice):
    (silent.path / "listing.json").unlink()
    request = silent.request().model_copy(update={"reading": reading})
    silent.request_file.write_text(request.model_dump_json())

    rung = swept()
    end_job(silent.job, context)

    assert rung == [("finalize", silent.job)]
    assert silent.outcome().state == "failed"
    assert f"ended before it had listed all images; {advice}" in silent.outcome().error


def test_one_damaged_job_does_not_prevent_the_check_of_the_others(swept, folder, ledger, settings, tmp_path):
    broken = make_job(settings, ["a"], root=tmp_path, output=tmp_path / "b.csv")
    gone = make_job(settings, ["a"], root=tmp_path, output=tmp_path / "c.csv")
    for other in (broken, gone):
        enter_job(other, ledger)
    (broken.path / "job.json").write_text("{")
    shutil.rmtree(gone.path)

    assert swept() == [("classify", folder.job)]


def test_a_job_folder_that_cannot_be_read_does_not_prevent_the_check_of_the_others(
    swept, folder, ledger, settings, tmp_path, monkeypatch, caplog
):
    unreadable = make_job(settings, ["a"], root=tmp_path, output=tmp_path / "b.csv")
    enter_job(unreadable, ledger)
    stat = Path.stat

    def fail_below_it(path, **options):
        if path.is_relative_to(unreadable.path):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", fail_below_it)

    assert swept() == [("classify", folder.job)]
    assert f"cannot check job {unreadable.job}" in caplog.text


def test_sweeps_and_slices_alone_bring_a_forgotten_job_to_its_end(swept, folder, context, server, tmp_path):
    server.empty()
    work = {"classify": classify_slice, "finalize": end_job}

    for _ in range(5):
        for queue, job in swept():
            work[queue](job, context)

    assert folder.outcome().state == "succeeded"
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 7
    assert swept() == []


# Leases


def test_a_lease_is_renewed_during_its_slice_and_handed_back_at_its_end(folder, context, ledger):
    short = replace(context, settings=context.settings.model_copy(update={"lease_s": 1.0}))
    ticks = []

    with Leases(short, folder.job, on_tick=lambda: ticks.append(None)) as leases:
        claim = ledger.claim(folder.job, "w1", 1.0)
        leases.add(claim)
        wait_until(lambda: len(ticks) > 6, what="twice the lease has gone")
        shards = [ledger.claim(folder.job, "w2", 60).shard for _ in range(2)]
        held = leases.held()

    assert (shards, held) == ([1, 2], [claim])
    assert ledger.claim(folder.job, "w2", 60).shard == claim.shard


def test_what_was_abandoned_counts_as_an_attempt(folder, context, ledger):
    with Leases(context, folder.job) as leases:
        leases.add(ledger.claim(folder.job, "w1", 0.01))
        leases.abandon()
    attempts = []

    wait_until(
        lambda: attempts.append(ledger.claim(folder.job, "w2", 60)) or attempts[-1].attempt == 2, what="it runs out"
    )

    assert attempts[-1].shard == 0


def test_a_renewal_returns_a_cancel(folder, context, ledger):
    with Leases(context, folder.job) as leases:
        goes_on = leases.job_goes_on
        ledger.cancel(folder.job)
        wait_until(lambda: not leases.job_goes_on, what="the slice has heard")

    assert (goes_on, leases.state) == (True, "cancelling")


def test_a_process_that_finishes_nothing_ends_itself(folder, context, server, tmp_path):
    def hang():
        stuck = replace(
            context,
            settings=context.settings.model_copy(update={"stall_s": 0.05, "lease_s": 0.1}),
            ledger=Ledger(connect(server.url)),
        )
        with Leases(stuck, folder.job):
            wait_until(lambda: False, what="it ends")

    with pytest.raises(AssertionError, match=f"exit code {STALLED_EXIT_CODE}"):
        dies_at_step(10**9, hang, tmp_path)


# The finalize lease


@pytest.fixture
def lease(folder, context, ledger, monkeypatch):
    """The finalize lease of a job whose shards are done, renewed very often."""
    monkeypatch.setattr("workers.finalize.lease.RENEW_S", 0.01)
    while isinstance(claim := ledger.claim(folder.job, "w1", 60), Claim):
        ledger.commit(claim, num_rows=2, num_failed=0)
    _, fence = ledger.take_finalize_lease(folder.job, "w1", 60)
    return FinalizeLease(context, folder.job, fence)


def test_a_finalize_lease_that_holds_lets_errors_through(lease):
    def fail():
        with lease:
            lease.check()
            lease.confirm()
            raise ValueError("our own")

    with pytest.raises(ValueError, match="our own"):
        fail()


def test_an_error_after_the_finalize_lease_was_lost_is_the_loss(lease, server):
    def fail():
        with lease:
            server.empty()
            raise ValueError("another has cleaned up after us")

    with pytest.raises(FinalizeLeaseLostError):
        fail()


def test_a_lost_finalize_lease_is_noticed_while_working(lease, server):
    server.empty()

    def lost():
        try:
            lease.check()
        except FinalizeLeaseLostError:
            return True
        return False

    with lease:
        wait_until(lost, what="the loss is noticed")


# A server that dies


def test_a_slice_outlives_a_server_that_was_killed(settings, own_server, tmp_path):
    def disturb(brightness):
        if 50 in brightness:
            own_server.kill()
            own_server.start()

    ledger = Ledger(connect(own_server.url))
    context = WorkerContext(settings, ledger, FakeModelCache(FakeClassifier(before=disturb)), "w1", "cpu", Bells())
    paths = make_images(tmp_path / "in", [0, 50, 100, 150, 200, 250])
    folder = make_job(settings, paths, root=tmp_path / "in", output=tmp_path / "out.csv", shard_size=2)
    enter_job(folder, ledger)

    def ended():
        sweep(settings, ledger, Bells())
        classify_slice(folder.job, context)
        end_job(folder.job, context)
        return folder.outcome() is not None

    wait_until(ended, what="the job has ended")

    assert folder.outcome().state == "succeeded"
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 7
    ledger.client.close()
