"""Every script of the ledger against a real server; leases are short, so that waits are short."""

import threading
import time
from collections import Counter
from dataclasses import replace

import pytest

from orchestrator.contract.errors import MessageError
from orchestrator.contract.jobs.parts import part_path, read_trailer
from orchestrator.contract.jobs.requests import MaxFailures
from orchestrator.contract.jobs.restore import restore_job
from orchestrator.contract.ledger.counts import COUNTS_KEY
from orchestrator.contract.ledger.ledger import Claim, Ledger
from orchestrator.contract.messages import JOB_ID
from orchestrator.contract.queues import queue_key
from orchestrator.contract.server import connect
from tests.support.fakes import enter_job, make_job, write_fake_parts
from tests.support.server import wait_until

pytestmark = pytest.mark.integration

JOB = "c261123-143355-7f3a2b"
OTHER = "c261123-143356-7f3a2b"
LONG_S, SHORT_S = 60.0, 0.05


def create(ledger, job=JOB, **spec):
    return ledger.create(job, {"kind": "classify", "listed": 0}, **spec)


def enter(ledger, num_shards, *, job=JOB, listed=True, limit=None):
    """A job with shards of ten images each."""
    assert create(ledger, job) == ("created", job)
    ledger.extend(job, num_shards, 10 * num_shards, listed=listed, failure_limit=limit)


def claim(ledger, worker="w1", lease_s=LONG_S):
    taken = ledger.claim(JOB, worker, lease_s)
    assert isinstance(taken, Claim), taken
    return taken


def commit(ledger, taken, *, num_rows=10, num_failed=0):
    return ledger.commit(taken, num_rows=num_rows, num_failed=num_failed)


def claim_expired(ledger, worker="w2", lease_s=LONG_S):
    """The first claim after a lease has run out."""
    taken = []

    def try_claim():
        answer = ledger.claim(JOB, worker, lease_s)
        taken.append(answer)
        return isinstance(answer, Claim)

    wait_until(try_claim, what="a lease has run out")
    return taken[-1]


def state(ledger):
    return ledger.record(JOB).state


def keys(ledger):
    return sorted(ledger.client.keys("*"))


# Entering a job


def test_a_new_job_is_queued_and_active(ledger):
    answer = create(ledger, output="/out.csv", key="monday", fingerprint="f1")

    record = ledger.record(JOB)
    assert answer == ("created", JOB)
    assert (record.kind, record.state, record.listed, record.num_shards) == ("classify", "queued", False, 0)
    assert record.created_ms > 0
    assert ledger.active() == {JOB}
    assert ledger.owner_of_output("/out.csv") == JOB
    assert ledger.job_of_submission("monday") == JOB


def test_a_job_that_was_never_entered_is_not_known(ledger):
    answers = [
        ledger.record(JOB), ledger.active(), ledger.claim(JOB, "w1", 1), ledger.extend(JOB, 1, 1, listed=True),
        ledger.cancel(JOB), ledger.need(JOB, 1), ledger.renew(JOB, [Claim(JOB, 3, 1, 1)], 1),
        ledger.commit(Claim(JOB, 3, 1, 1), num_rows=1, num_failed=0), ledger.release(Claim(JOB, 3, 1, 1)),
        ledger.take_finalize_lease(JOB, "w1", 1), ledger.renew_finalize_lease(JOB, 1, 1), ledger.owner_of_output("/o"),
        ledger.job_of_submission("k"), ledger.pause(JOB, "why", by="storage"), ledger.unpause(JOB, by="storage"),
        ledger.leave_end(JOB, 1, "w1", ["w2"]),
    ]  # fmt: skip
    ledger.report_progress(JOB, "{}")
    ledger.finish(JOB, "succeeded", output="/o")

    assert answers == [
        None, set(), "unknown", "unknown", "unknown", "rebuild", ("unknown", {3}), ("unknown", ""), False,
        ("unknown", None), False, None, None, "unknown", "unknown", False,
    ]  # fmt: skip
    assert keys(ledger) == []


def test_one_idempotency_key_stands_for_one_job(ledger):
    create(ledger, key="monday", fingerprint="f1")

    again = create(ledger, OTHER, key="monday", fingerprint="f1")
    another_request = create(ledger, OTHER, key="monday", fingerprint="f2")
    another_key = create(ledger, OTHER, key="tuesday", fingerprint="f1")

    assert (again, another_request, another_key) == (("exists", JOB), ("conflict", JOB), ("created", OTHER))


def test_an_idempotency_key_outlives_its_job_but_expires(ledger):
    create(ledger, key="monday", fingerprint="f1")
    ledger.finish(JOB, "succeeded")

    assert create(ledger, OTHER, key="monday", fingerprint="f1") == ("exists", JOB)
    assert 0 < ledger.client.ttl("{pigeonhole}:submission:monday") <= 7 * 24 * 3600


def test_of_two_jobs_for_one_output_the_second_is_refused_until_the_first_has_ended(ledger):
    create(ledger, output="/out.csv")

    during = create(ledger, OTHER, output="/out.csv")
    left = ledger.record(OTHER)
    ledger.finish(JOB, "succeeded", output="/out.csv")

    assert (during, left) == (("output_taken", JOB), None)
    assert create(ledger, OTHER, output="/out.csv") == ("created", OTHER)


def test_entering_a_job_twice_changes_nothing(ledger):
    create(ledger, output="/out.csv", key="monday", fingerprint="f1")
    ledger.extend(JOB, 3, 30, listed=True)
    claim(ledger)
    before = ledger.record(JOB)

    assert create(ledger, output="/out.csv", key="monday", fingerprint="f1") == ("created", JOB)
    assert ledger.record(JOB) == before


# Shards


def test_each_shard_is_handed_out_once_in_order(ledger):
    enter(ledger, 5)

    shards = [claim(ledger, worker).shard for worker in ("w1", "w2", "w1", "w3", "w1")]

    assert shards == [0, 1, 2, 3, 4]
    assert ledger.claim(JOB, "w1", LONG_S) == "none"
    assert state(ledger) == "running"


def test_many_concurrent_workers_get_each_shard_once(ledger, server):
    enter(ledger, 200)
    taken = Counter()

    def work():
        own = Ledger(connect(server.url))
        while isinstance(answer := own.claim(JOB, "w", LONG_S), Claim):
            taken[answer.shard] += 1
            commit(own, answer)
        own.client.close()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert taken == Counter(range(200))
    record = ledger.record(JOB)
    assert (record.state, record.num_done, record.shards_done) == ("finalizing", 2000, 200)


def test_shards_listed_later_are_handed_out_later(ledger):
    enter(ledger, 1, listed=False)

    first, none = claim(ledger).shard, ledger.claim(JOB, "w1", LONG_S)
    grown = ledger.extend(JOB, 3, 25, listed=True)

    assert (first, none, grown) == (0, "none", "running")
    assert [claim(ledger).shard, claim(ledger).shard] == [1, 2]


def test_a_listing_never_shrinks(ledger):
    enter(ledger, 4, listed=False)

    ledger.extend(JOB, 2, 15, listed=True)

    record = ledger.record(JOB)
    assert (record.num_shards, record.num_images, record.listed) == (4, 40, True)


def test_a_lease_that_ran_out_goes_to_another_with_a_higher_fence_and_attempt(ledger):
    enter(ledger, 1)
    dead = claim(ledger, lease_s=SHORT_S)

    heir = claim_expired(ledger)

    assert (heir.shard, heir.attempt) == (dead.shard, 2)
    assert heir.fence > dead.fence


def test_a_stale_commit_is_refused_and_changes_nothing(ledger):
    enter(ledger, 1)
    stale = claim(ledger, lease_s=SHORT_S)
    heir = claim_expired(ledger)

    late = commit(ledger, stale, num_rows=99, num_failed=99)
    right = commit(ledger, heir)

    assert (late, right) == (("stale", "running"), ("committed", "finalizing"))
    assert (ledger.record(JOB).num_done, ledger.record(JOB).num_failed) == (10, 0)


def test_an_expired_lease_that_no_worker_took_may_still_be_committed(ledger):
    enter(ledger, 1)
    taken = claim(ledger, lease_s=SHORT_S)
    wait_until(lambda: ledger.need(JOB, 60) == "claim", what="the lease has run out")

    assert commit(ledger, taken) == ("committed", "finalizing")


def test_committing_twice_counts_once(ledger):
    enter(ledger, 2)
    taken = claim(ledger)

    verdicts = [commit(ledger, taken, num_failed=1), commit(ledger, taken, num_failed=1)]

    record = ledger.record(JOB)
    assert verdicts == [("committed", "running"), ("already", "running")]
    assert (record.shards_done, record.num_done, record.num_failed) == (1, 10, 1)


def test_the_times_of_shards_add_up_once_each_and_name_what_bounds_the_job(ledger):
    enter(ledger, 3)
    shards = [
        {"read": 0.25, "decode": 6.0, "wait": 2.5, "predict": 0.000_004, "write": 0.5},
        {"read": 0.25, "decode": 2.0, "wait": 0.5, "predict": 1.0, "write": 0.25},
    ]

    for seconds in shards:
        taken = claim(ledger)
        for _ in range(2):
            ledger.commit(taken, num_rows=10, num_failed=0, seconds=seconds)

    record = ledger.record(JOB)
    assert record.stage_seconds == {"read": 0.5, "decode": 8.0, "wait": 3.0, "predict": 1.000_004, "write": 0.75}
    assert record.bound == "decode"


def test_a_job_without_a_commit_has_no_times(ledger):
    enter(ledger, 3)

    assert ledger.record(JOB).stage_seconds == {}


def test_a_shard_handed_back_comes_next_and_that_is_no_attempt(ledger):
    enter(ledger, 3)
    first, second = claim(ledger), claim(ledger)

    assert ledger.release(second)
    assert ledger.release(first)

    again = [claim(ledger), claim(ledger), claim(ledger)]
    assert [(taken.shard, taken.attempt) for taken in again] == [(0, 1), (1, 1), (2, 1)]
    assert again[0].fence > second.fence


def test_a_shard_that_is_not_held_cannot_be_handed_back(ledger):
    enter(ledger, 1)
    stale = claim(ledger, lease_s=SHORT_S)
    heir = claim_expired(ledger)

    assert not ledger.release(stale)
    commit(ledger, heir)
    assert not ledger.release(heir)
    assert ledger.claim(JOB, "w1", LONG_S) == "finalizing"


def test_attempts_survive_being_handed_back(ledger):
    enter(ledger, 1)
    claim(ledger, lease_s=SHORT_S)
    ledger.release(claim_expired(ledger))

    assert claim(ledger).attempt == 2


def test_renewing_keeps_leases_and_returns_the_lost_ones(ledger):
    enter(ledger, 2)
    kept, lost = claim(ledger), claim(ledger, lease_s=SHORT_S)
    heir = claim_expired(ledger)

    answer = ledger.renew(JOB, [kept, lost], LONG_S)

    assert answer == ("running", {lost.shard})
    assert ledger.renew(JOB, [kept, heir], LONG_S) == ("running", set())
    assert ledger.renew(JOB, [], LONG_S) == ("running", set())


def test_a_shard_that_was_committed_while_its_lease_was_renewed_is_not_lost(ledger):
    enter(ledger, 2)
    done = claim(ledger)
    ledger.commit(done, num_rows=1, num_failed=0)

    assert ledger.renew(JOB, [done], LONG_S) == ("running", set())


def test_a_renewed_lease_does_not_run_out(ledger):
    enter(ledger, 1)
    taken = claim(ledger, lease_s=0.2)

    ledger.renew(JOB, [taken], LONG_S)

    key = "{pigeonhole}:job:" + JOB + ":leases"
    seconds, _ = ledger.client.time()
    assert ledger.client.zscore(key, "0") / 1000 > seconds + LONG_S - 2


def test_a_fence_keeps_rising_after_the_server_was_emptied(ledger, server, settings, tmp_path):
    folder = make_job(settings, ["a", "b"], root=tmp_path, output=tmp_path / "o.csv", shard_size=1)
    enter_job(folder, ledger)
    before = [ledger.claim(folder.job, "w1", LONG_S) for _ in range(2)]

    server.empty()
    restore_job(folder, ledger)
    after = ledger.claim(folder.job, "w2", LONG_S)

    assert after.shard == 0
    assert after.fence > max(taken.fence for taken in before)
    assert ledger.commit(before[0], num_rows=1, num_failed=0) == ("stale", "running")


# Completion, failure, cancel


def test_a_job_is_complete_only_once_its_listing_is(ledger):
    enter(ledger, 1, listed=False)

    committed = commit(ledger, claim(ledger))
    told = ledger.extend(JOB, 1, 10, listed=True)

    assert (committed, told) == (("committed", "running"), "finalizing")


def test_the_last_commit_of_a_listed_job_makes_it_finalizing(ledger):
    enter(ledger, 2)

    states = [commit(ledger, claim(ledger))[1] for _ in range(2)]

    assert states == ["running", "finalizing"]
    assert ledger.claim(JOB, "w1", LONG_S) == "finalizing"


def test_one_failure_too_many_stops_the_job(ledger):
    enter(ledger, 5, limit=3)

    states = [commit(ledger, claim(ledger), num_failed=3)[1], commit(ledger, claim(ledger), num_failed=1)[1]]

    record = ledger.record(JOB)
    assert states == ["running", "cancelling"]
    assert (record.num_failed, record.too_many_failures) == (4, True)
    assert ledger.claim(JOB, "w1", LONG_S) == "cancelling"


def test_one_failure_too_many_in_the_last_shard_stops_the_job_too(ledger):
    enter(ledger, 1, limit=0)

    assert commit(ledger, claim(ledger), num_failed=1) == ("committed", "cancelling")


def paused(ledger, **changes):
    """The job's state, who paused it, and why."""
    record = ledger.record(JOB)
    return record.state, record.paused_by, record.paused_reason


def test_a_paused_job_gives_no_shard_and_takes_those_in_work(ledger):
    enter(ledger, 3)
    first, second = claim(ledger), claim(ledger)

    state = ledger.pause(JOB, "why", by="operator")

    assert (state, paused(ledger)) == ("paused", ("paused", "operator", "why"))
    assert ledger.record(JOB).paused_ms > 0
    assert ledger.claim(JOB, "w2", LONG_S) == "paused"
    assert ledger.renew(JOB, [first, second], LONG_S) == ("paused", set())
    assert commit(ledger, first) == ("committed", "paused")
    assert ledger.release(second)
    assert ledger.unpause(JOB, by="operator") == "running"
    assert paused(ledger) == ("running", "", "")
    assert claim(ledger).shard == second.shard


def test_a_job_that_was_paused_before_it_began_is_queued_again(ledger):
    enter(ledger, 1)
    ledger.pause(JOB, "why", by="storage")

    assert ledger.unpause(JOB, by="storage") == "queued"


def test_a_job_that_both_sides_paused_goes_on_once_both_have_ended_their_pause(ledger):
    enter(ledger, 1)
    ledger.pause(JOB, "I need the machine", by="operator")

    again = ledger.pause(JOB, "the share is away", by="storage")

    both = paused(ledger)
    assert (again, both) == ("paused", ("paused", "operator, storage", "I need the machine; the share is away"))
    assert ledger.unpause(JOB, by="storage") == "paused"
    assert paused(ledger) == ("paused", "operator", "I need the machine")
    assert ledger.unpause(JOB, by="operator") == "queued"


@pytest.mark.parametrize("first", ["storage", "operator"])
def test_a_side_that_has_not_paused_a_job_ends_no_pause(ledger, first):
    enter(ledger, 1)
    ledger.pause(JOB, "why", by=first)

    assert ledger.unpause(JOB, by="operator" if first == "storage" else "storage") == "paused"
    assert paused(ledger) == ("paused", first, "why")


def test_a_worker_that_does_not_see_the_source_of_a_job_that_the_operator_paused_leaves_it_to_the_others(ledger):
    enter(ledger, 1)
    ledger.pause(JOB, "until tonight", by="operator")

    ledger.pause(JOB, "w1: away", by="storage", worker="w1", workers=["w1", "w2"])

    assert paused(ledger) == ("paused", "operator", "until tonight")


def test_a_job_is_paused_once_no_worker_that_could_do_it_sees_its_source(ledger):
    enter(ledger, 2)
    workers = ["w1", "w2"]

    one = ledger.pause(JOB, "w1: away", by="storage", worker="w1", workers=workers)
    trouble = ledger.record(JOB).trouble
    both = ledger.pause(JOB, "w2: away", by="storage", worker="w2", workers=workers)

    assert (one, trouble, both) == ("queued", "w1: away", "paused")
    assert (paused(ledger), ledger.record(JOB).trouble) == (("paused", "storage", "w2: away"), "")


def test_a_worker_that_claims_sees_the_source_again(ledger):
    enter(ledger, 2)
    workers = ["w1", "w2"]
    ledger.pause(JOB, "w1: away", by="storage", worker="w1", workers=workers)
    claim(ledger, "w1")

    assert ledger.pause(JOB, "w2: away", by="storage", worker="w2", workers=workers) == "running"


def test_lifting_a_pause_forgets_who_did_not_see_the_source(ledger):
    enter(ledger, 2)
    ledger.pause(JOB, "away", by="storage", worker="w1", workers=["w1"])
    ledger.unpause(JOB, by="storage")

    assert ledger.pause(JOB, "away", by="storage", worker="w2", workers=["w1", "w2"]) == "queued"


def test_a_job_that_is_withdrawn_leaves_nothing_of_who_did_not_see_its_source(ledger):
    enter(ledger, 2)
    ledger.pause(JOB, "away", by="storage", worker="w1", workers=["w1", "w2"])

    assert ledger.withdraw(JOB)
    assert keys(ledger) == []


def test_the_last_commit_ends_a_pause(ledger):
    enter(ledger, 1)
    last = claim(ledger)
    ledger.pause(JOB, "why", by="storage")

    assert commit(ledger, last) == ("committed", "finalizing")
    assert paused(ledger) == ("finalizing", "", "")


def test_a_paused_job_can_be_cancelled(ledger):
    enter(ledger, 1)
    ledger.pause(JOB, "why", by="storage")

    assert ledger.cancel(JOB) == "cancelling"
    assert (paused(ledger), ledger.need(JOB, LONG_S)) == (("cancelling", "", ""), "end")


@pytest.mark.parametrize("end", ["finalizing", "cancelling", "succeeded"])
def test_a_job_that_ends_is_not_paused(ledger, end):
    enter(ledger, 1)
    if end == "cancelling":
        ledger.cancel(JOB)
    else:
        commit(ledger, claim(ledger))
    if end == "succeeded":
        ledger.finish(JOB, "succeeded")

    assert (ledger.pause(JOB, "why", by="operator"), ledger.unpause(JOB, by="operator")) == (end, end)


def test_a_paused_job_needs_a_look_now_and_then_if_the_storage_paused_it(ledger):
    enter(ledger, 1)
    ledger.pause(JOB, "why", by="storage")
    at_once = ledger.need(JOB, LONG_S)
    ledger.client.hset("{pigeonhole}:job:" + JOB, "look_at", 1)

    assert (at_once, ledger.need(JOB, LONG_S), ledger.need(JOB, LONG_S)) == ("nothing", "look", "nothing")


def test_nobody_looks_for_the_source_of_a_job_while_the_operator_pauses_it(ledger):
    enter(ledger, 1)
    ledger.pause(JOB, "away", by="storage")
    ledger.pause(JOB, "why", by="operator")
    ledger.client.hset("{pigeonhole}:job:" + JOB, "look_at", 1)
    held = ledger.need(JOB, LONG_S)
    ledger.unpause(JOB, by="operator")

    assert (held, ledger.need(JOB, LONG_S)) == ("held", "look")


def test_a_job_whose_lister_dies_while_it_is_paused_needs_its_listing_finished(ledger):
    enter(ledger, 1, listed=False)
    ledger.pause(JOB, "why", by="storage")
    ledger.client.hset("{pigeonhole}:job:" + JOB, "lister_until", 1)

    assert ledger.need(JOB, LONG_S) == "lister"


def test_a_cancel_stops_claims_and_is_returned_by_renewals(ledger):
    enter(ledger, 3)
    taken = claim(ledger)

    assert ledger.cancel(JOB, reason="enough") == "cancelling"

    assert ledger.claim(JOB, "w2", LONG_S) == "cancelling"
    assert ledger.renew(JOB, [taken], LONG_S) == ("cancelling", set())
    assert commit(ledger, taken) == ("committed", "cancelling")
    assert ledger.record(JOB).error == "enough"


def test_a_cancel_of_a_queued_job_needs_no_worker_to_have_come(ledger):
    create(ledger)

    assert ledger.cancel(JOB) == "cancelling"


def test_a_cancel_comes_too_late_for_a_job_that_is_being_finalized(ledger):
    enter(ledger, 1)
    commit(ledger, claim(ledger))

    assert ledger.cancel(JOB, reason="too late") == "finalizing"
    assert ledger.record(JOB).error == ""


@pytest.mark.parametrize("end", ["succeeded", "partial", "failed", "cancelled"])
def test_a_job_that_has_ended_stays_as_it_is(ledger, end):
    enter(ledger, 1)
    ledger.finish(JOB, end)

    answers = [
        ledger.cancel(JOB), ledger.claim(JOB, "w1", 1), ledger.extend(JOB, 9, 90, listed=True), ledger.need(JOB, 0),
        ledger.take_finalize_lease(JOB, "w1", 1),
    ]  # fmt: skip

    assert answers == [end, end, end, "nothing", (end, None)]
    assert ledger.record(JOB).ended


# The end


def finalizing(ledger):
    enter(ledger, 1)
    commit(ledger, claim(ledger))


def test_only_a_complete_job_can_be_ended(ledger):
    enter(ledger, 1)
    queued = ledger.take_finalize_lease(JOB, "w1", LONG_S)
    taken = claim(ledger)
    running = ledger.take_finalize_lease(JOB, "w1", LONG_S)
    commit(ledger, taken)

    assert (queued, running) == (("queued", None), ("running", None))
    assert ledger.take_finalize_lease(JOB, "w1", LONG_S)[1] is not None


def test_one_worker_at_a_time_ends_a_job(ledger):
    finalizing(ledger)

    state, fence = ledger.take_finalize_lease(JOB, "w1", LONG_S)

    assert (state, ledger.take_finalize_lease(JOB, "w2", LONG_S)) == ("finalizing", ("finalizing", None))
    assert ledger.need(JOB, 0) == "nothing"
    assert ledger.renew_finalize_lease(JOB, fence, LONG_S)


def test_the_finalize_lease_is_free_again_when_its_holder_died(ledger):
    finalizing(ledger)
    _, old = ledger.take_finalize_lease(JOB, "w1", SHORT_S)
    taken = []

    wait_until(
        lambda: taken.append(ledger.take_finalize_lease(JOB, "w2", LONG_S)[1]) or taken[-1] is not None,
        what="the right is free",
    )

    assert taken[-1] > old
    assert not ledger.renew_finalize_lease(JOB, old, LONG_S)
    assert ledger.renew_finalize_lease(JOB, taken[-1], LONG_S)


def test_the_finalize_lease_can_be_given_up(ledger):
    finalizing(ledger)
    _, fence = ledger.take_finalize_lease(JOB, "w1", LONG_S)

    assert ledger.renew_finalize_lease(JOB, fence, 0)

    assert ledger.take_finalize_lease(JOB, "w2", LONG_S)[1] > fence


def test_a_cancelled_job_is_not_ended_while_a_worker_holds_a_shard(ledger):
    enter(ledger, 2)
    live, dying = claim(ledger), claim(ledger, lease_s=SHORT_S)
    ledger.cancel(JOB)

    held = [ledger.take_finalize_lease(JOB, "w2", LONG_S), ledger.need(JOB, 0)]
    ledger.release(live)
    wait_until(lambda: ledger.need(JOB, 0) == "end", what="the lease of the dead has run out")

    assert held == [("cancelling", None), "nothing"]
    assert ledger.take_finalize_lease(JOB, "w2", LONG_S)[1] > dying.fence


def test_finishing_frees_everything_and_doing_it_twice_changes_nothing(ledger):
    assert create(ledger, output="/out.csv") == ("created", JOB)
    ledger.extend(JOB, 3, 30, listed=True)
    claim(ledger)
    ledger.release(claim(ledger))
    commit(ledger, claim(ledger))

    ledger.finish(JOB, "failed", output="/out.csv", error="it broke", result="")
    first = ledger.record(JOB)
    _, started_us = before = ledger.client.time()
    wait_until(lambda: ledger.client.time() > (before[0], started_us + 2000), what="two milliseconds have gone")
    ledger.finish(JOB, "failed", output="/out.csv", error="it broke", result="")

    assert ledger.record(JOB) == first
    assert (first.state, first.error, first.num_done, first.ended) == ("failed", "it broke", 10, True)
    assert ledger.active() == set()
    assert ledger.owner_of_output("/out.csv") is None
    assert keys(ledger) == [COUNTS_KEY, "{pigeonhole}:job:" + JOB]
    assert 0 < ledger.client.ttl("{pigeonhole}:job:" + JOB) <= 24 * 3600


def test_finishing_does_not_free_an_output_that_another_job_has_by_now(ledger):
    create(ledger, output="/out.csv")
    ledger.finish(JOB, "succeeded", output="/out.csv")
    create(ledger, OTHER, output="/out.csv")

    ledger.finish(JOB, "succeeded", output="/out.csv")

    assert ledger.owner_of_output("/out.csv") == OTHER


# What a job needs


def test_a_job_needs_claims_while_shards_are_free(ledger):
    enter(ledger, 2)

    fresh = ledger.need(JOB, 60)
    first, second = claim(ledger), claim(ledger)
    taken = ledger.need(JOB, 60)
    ledger.release(first)
    handed_back = ledger.need(JOB, 60)
    commit(ledger, claim(ledger))
    commit(ledger, second)

    assert (fresh, taken, handed_back, ledger.need(JOB, 60)) == ("claim", "nothing", "claim", "end")


def test_a_job_without_a_worker_is_starving_once_in_a_period(ledger):
    enter(ledger, 3)
    ledger.client.hset("{pigeonhole}:job:" + JOB, "created_ms", 1)

    answers = [ledger.need(JOB, 60) for _ in range(3)]
    wait_until(lambda: ledger.need(JOB, 0.05) == "starving", what="the job starves again")

    assert answers == ["starving", "claim", "claim"]


def test_a_new_job_is_not_starving(ledger):
    enter(ledger, 3)

    assert ledger.need(JOB, 60) == "claim"


def test_a_job_with_a_worker_is_not_starving(ledger):
    enter(ledger, 2)
    claim(ledger)

    assert ledger.need(JOB, 0) == "claim"


def test_a_job_whose_dead_worker_held_its_last_shard_needs_claims(ledger):
    enter(ledger, 1)
    claim(ledger, lease_s=SHORT_S)

    wait_until(lambda: ledger.need(JOB, 60) == "claim", what="the lease has run out")


def test_a_new_job_has_a_lister_from_the_start(ledger):
    create(ledger)

    assert ledger.need(JOB, 0) == "nothing"


def test_a_job_whose_lister_died_needs_its_listing_finished(ledger, monkeypatch):
    monkeypatch.setattr("orchestrator.contract.ledger.ledger.LISTER_LEASE_S", SHORT_S)
    create(ledger)

    wait_until(lambda: ledger.need(JOB, 60) == "lister", what="the lister's lease has run out")
    ledger.extend(JOB, 1, 10, listed=True)

    assert ledger.need(JOB, 60) == "claim"


def test_a_job_that_the_server_forgot_needs_to_be_rebuilt(ledger, server):
    enter(ledger, 1)

    server.empty()

    assert ledger.need(JOB, 60) == "rebuild"


# Rebuilding from the disk


@pytest.fixture
def folder(settings, tmp_path):
    """A job of 25 images in 7 shards, none of them done."""
    names = [f"{number}.jpg" for number in range(25)]
    return make_job(
        settings, names, root=tmp_path, output=tmp_path / "o.csv", idempotency_key="monday",
        max_failures=MaxFailures(count=20),
    )  # fmt: skip


def do_shards(folder, ledger, shards):
    """Claim all, and commit those of `shards`; the others are handed back."""
    claims = []
    while isinstance(taken := ledger.claim(folder.job, "w1", LONG_S), Claim):
        claims.append(taken)
    for taken in claims:
        if taken.shard not in shards:
            ledger.release(taken)
            continue
        write_fake_parts(folder, [taken.shard])
        trailer = read_trailer(folder.parts, taken.shard)
        ledger.commit(
            taken,
            num_rows=trailer.num_rows,
            num_failed=trailer.num_failed,
            given_up=trailer.given_up,
            seconds=trailer.seconds,
        )


def facts_of(record):
    """The fields that a job folder can restore; times are the ledger's own."""
    return replace(record, created_ms=0, started_ms=0)


@pytest.mark.parametrize("done", [{0, 3, 6}, {5}, set(range(7)), set(range(6))])
def test_a_forgotten_job_is_rebuilt_as_it_was(ledger, server, folder, done):
    enter_job(folder, ledger)
    do_shards(folder, ledger, done)
    before = ledger.record(folder.job)

    server.empty()
    restored = restore_job(folder, ledger)

    assert restored
    assert facts_of(ledger.record(folder.job)) == facts_of(before)
    assert abs(ledger.record(folder.job).created_ms - before.created_ms) < 60_000
    assert ledger.active() == {folder.job}
    assert ledger.owner_of_output(folder.request().output) == folder.job
    assert ledger.job_of_submission("monday") == folder.job
    left = []
    while isinstance(taken := ledger.claim(folder.job, "w2", LONG_S), Claim):
        left.append(taken.shard)
    assert set(left) | done == set(range(7))
    assert not set(left) & done


def test_rebuilding_twice_changes_nothing(ledger, server, folder):
    enter_job(folder, ledger)
    do_shards(folder, ledger, {1, 2})
    server.empty()
    restore_job(folder, ledger)
    taken = ledger.claim(folder.job, "w2", LONG_S)
    before = ledger.record(folder.job)

    again = restore_job(folder, ledger)

    assert not again
    assert ledger.record(folder.job) == before
    assert ledger.renew(folder.job, [taken], LONG_S) == ("running", set())


def test_a_ledger_that_is_wrong_is_replaced(ledger, folder):
    enter_job(folder, ledger)
    do_shards(folder, ledger, set(range(7)))
    part_path(folder.parts, 4).unlink()
    _, fence = ledger.take_finalize_lease(folder.job, "w1", LONG_S)

    assert restore_job(folder, ledger, replace=True)

    record = ledger.record(folder.job)
    assert (record.state, record.shards_done, record.num_done) == ("running", 6, 21)
    assert ledger.claim(folder.job, "w2", LONG_S).shard == 4
    assert not ledger.renew_finalize_lease(folder.job, fence, LONG_S)


def test_leases_from_before_a_replacement_are_void(ledger, folder):
    enter_job(folder, ledger)
    held, returned = (ledger.claim(folder.job, "w1", LONG_S) for _ in range(2))
    ledger.release(returned)

    restore_job(folder, ledger, replace=True)

    assert ledger.renew(folder.job, [held], LONG_S) == ("running", {held.shard})
    shards = []
    while isinstance(taken := ledger.claim(folder.job, "w2", LONG_S), Claim):
        shards.append(taken.shard)
    assert shards == list(range(7))


def test_a_damaged_part_does_not_count_and_is_made_again(ledger, folder):
    enter_job(folder, ledger)
    do_shards(folder, ledger, {0, 1})
    part = part_path(folder.parts, 1)
    part.write_bytes(part.read_bytes()[:-5])

    restore_job(folder, ledger, replace=True)

    assert (ledger.record(folder.job).shards_done, part.exists()) == (1, False)


def test_a_cancel_is_remembered_by_the_folder(ledger, folder):
    folder.request_cancel()

    restore_job(folder, ledger)

    assert ledger.record(folder.job).state == "cancelling"


@pytest.mark.parametrize("done", [(), None], ids=["unfinished", "finished"])
def test_a_pause_is_remembered_by_the_folder(ledger, folder, done):
    write_fake_parts(folder, done)
    folder.write_pause("operator", "until tonight")

    restore_job(folder, ledger, replace=True)

    record = ledger.record(folder.job)
    if done is None:
        assert (record.state, record.paused_by) == ("finalizing", "")
    else:
        assert (record.state, record.paused_by, record.paused_reason) == ("paused", "operator", "until tonight")
        assert record.paused_ms == pytest.approx(time.time() * 1000, abs=60_000)
        assert ledger.unpause(folder.job, by="operator") == "running"


def test_the_pauses_of_both_sides_are_remembered_by_the_folder(ledger, folder):
    folder.write_pause("operator", "until tonight")
    folder.write_pause("storage", "away")

    restore_job(folder, ledger, replace=True)

    assert ledger.record(folder.job).paused_by == "operator, storage"
    assert (ledger.unpause(folder.job, by="storage"), ledger.unpause(folder.job, by="operator")) == (
        "paused",
        "running",
    )


def test_a_cancel_counts_for_more_than_a_pause_in_the_folder(ledger, folder):
    folder.write_pause("storage", "away")
    folder.request_cancel()

    restore_job(folder, ledger, replace=True)

    assert (ledger.record(folder.job).state, ledger.record(folder.job).paused_by) == ("cancelling", "")


def test_too_many_failures_are_remembered_by_the_parts(ledger, settings, tmp_path):
    folder = make_job(
        settings, ["a"] * 9, root=tmp_path, output=tmp_path / "o", shard_size=3, max_failures=MaxFailures(share=0.2)
    )
    write_fake_parts(folder, [0])
    restore_job(folder, ledger)
    below = ledger.record(folder.job).state
    write_fake_parts(folder, [1])

    restore_job(folder, ledger, replace=True)

    record = ledger.record(folder.job)
    assert (below, record.state, record.too_many_failures, record.num_failed) == ("running", "cancelling", True, 2)


def test_an_unfinished_listing_is_rebuilt_as_far_as_it_is(ledger, folder):
    (folder.path / "listing.json").unlink()

    restore_job(folder, ledger)

    record = ledger.record(folder.job)
    assert (record.listed, record.num_shards, record.num_images, record.state) == (False, 7, 25, "running")
    assert ledger.need(folder.job, 60) == "claim"


def test_rebuilding_takes_no_output_and_no_key_from_another_job(ledger, folder):
    create(ledger, OTHER, output=folder.request().output, key="monday", fingerprint="f")

    restore_job(folder, ledger)

    assert ledger.owner_of_output(folder.request().output) == OTHER
    assert ledger.job_of_submission("monday") == OTHER


def test_what_the_append_only_file_holds_outlives_a_kill(own_server):
    ledger = Ledger(connect(own_server.url))
    enter(ledger, 3)
    commit(ledger, claim(ledger))
    before = ledger.record(JOB)
    ledger.client.execute_command("CONFIG", "SET", "appendfsync", "always")  # the last second too
    ledger.report_progress(JOB, "{}")

    own_server.kill()
    own_server.start()

    assert ledger.record(JOB) == replace(before, progress="{}")
    assert ledger.claim(JOB, "w2", LONG_S).shard == 1
    ledger.client.close()


# Workers


def test_a_worker_is_listed_with_what_it_reports_of_itself(ledger):
    ledger.live_workers.heartbeat("w2", {"host": "h", "pid": 7, "device": "cpu", "queues": "classify,finalize"})
    ledger.live_workers.heartbeat("w1", {"host": "h", "pid": 8, "device": "cuda:0", "queues": "train"})
    ledger.live_workers.report_activity("w2", "classify " + JOB)
    ledger.live_workers.count_images("w2", 30)
    ledger.live_workers.count_images("w2", 12)

    first, second = ledger.live_workers.workers()

    assert (first.worker, first.pid, first.device, first.queues, first.doing, first.num_images) == (
        "w1", 8, "cuda:0", ("train",), "starting", 0,
    )  # fmt: skip
    assert (second.worker, second.queues, second.doing, second.num_images) == (
        "w2", ("classify", "finalize"), "classify " + JOB, 42,
    )  # fmt: skip
    assert first.alive
    assert second.alive
    assert second.since_s < 5


def test_workers_of_machines_with_wrong_clocks_are_alive(ledger, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1_000_000.0)
    ledger.live_workers.heartbeat("w1", {"host": "h", "pid": 7})

    monkeypatch.undo()

    assert [worker.alive for worker in ledger.live_workers.workers()] == [True]


def test_a_worker_that_ended_is_not_listed_and_its_keys_expire(ledger):
    ledger.live_workers.heartbeat("w1", {"host": "h", "pid": 7})
    ledger.live_workers.remove("w1")
    ledger.live_workers.report_activity("w1", "idle")  # its pool child, which outlives it by a moment

    assert ledger.live_workers.workers() == []
    assert 0 < ledger.client.ttl("{pigeonhole}:worker:w1") <= 3600


@pytest.mark.parametrize(
    "facts",
    [
        {"pid": "\x1b"},
        {"num_images": "many"},
        {"doing_since": "nan"},
        {"doing_since": "soon"},
        {"pid": "9" * 5000},
        "text",
    ],
)
def test_a_malformed_record_of_a_worker_is_named_and_hides_no_other(ledger, facts):
    ledger.live_workers.heartbeat("w1", {"host": "h", "pid": 8, "queues": "train"})
    ledger.live_workers.heartbeat("w2", {"host": b"\xff", "pid": 9})
    key = "{pigeonhole}:worker:forged"
    ledger.client.hset(key, mapping=facts) if isinstance(facts, dict) else ledger.client.set(key, facts)
    ledger.client.zadd("{pigeonhole}:workers", {"forged": time.time()})

    survey = ledger.live_workers.survey()

    assert survey.malformed == ["forged"]
    assert [worker.worker for worker in survey.records] == ["w1", "w2"]
    assert ledger.live_workers.num_listeners("train") == 1


def test_a_malformed_record_of_a_job_is_an_error_that_names_it(ledger):
    ledger.client.hset("{pigeonhole}:job:" + JOB, mapping={"kind": "classify", "num_done": "many"})

    with pytest.raises(MessageError, match=f"record of job {JOB} cannot be read"):
        ledger.record(JOB)


def test_doorbells_are_counted_by_queue(ledger):
    ledger.client.lpush(queue_key("classify"), "a", "b")

    assert (ledger.queue_length("classify"), ledger.queue_length("train")) == (2, 0)


# Memory


def test_a_shard_takes_less_than_200_bytes_of_the_servers_memory(ledger, server, record_property):
    num_shards, num_claimed = 100_000, 1_000  # far more workers at once than there will be
    num_done = num_shards - num_claimed
    done = b"\xff" * (num_done // 8) + bytes(num_claimed // 8)
    fields = {"kind": "classify", "state": "running", "listed": 1, "num_shards": num_shards, "shards_done": num_done}
    empty = server.used_memory()

    ledger.restore(JOB, fields, done)
    claims = claim_many(ledger, num_claimed)
    busy = server.used_memory() - empty
    commit_many(ledger, claims)
    at_rest = sum(ledger.client.memory_usage(key) for key in keys(ledger))

    assert [taken.shard for taken in claims] == list(range(num_done, num_shards))
    assert state(ledger) == "finalizing"
    record_property("bytes_per_shard_at_rest", at_rest / num_shards)
    record_property("bytes_per_shard_with_1000_claimed", busy / num_shards)
    print(f"\n{at_rest / num_shards:.2f} bytes a shard at rest, {busy / num_shards:.2f} with 1,000 of them claimed")
    assert busy / num_shards < 200


def claim_many(ledger, number):
    """`number` claims in one go, by the script that `claim` runs."""
    script = ledger._scripts["claim"]
    pipeline = ledger.client.pipeline(transaction=False)
    args = ["a-host-with-a-name-cpu-12345", 60_000, "1.0", ",1,"]
    for _ in range(number):
        script(keys=["{pigeonhole}:job:" + JOB], args=args, client=pipeline)
    return [Claim(JOB, *map(int, answer)) for answer in pipeline.execute()]


def commit_many(ledger, claims):
    script = ledger._scripts["commit"]
    pipeline = ledger.client.pipeline(transaction=False)
    for taken in claims:
        script(
            keys=["{pigeonhole}:job:" + JOB, COUNTS_KEY],
            args=[taken.shard, taken.fence, 512, 1, 0, 0],
            client=pipeline,
        )
    assert {answer[0] for answer in pipeline.execute()} == {"committed"}


def test_ids_in_these_tests_are_job_ids():
    assert JOB_ID.fullmatch(JOB)
    assert JOB_ID.fullmatch(OTHER)
