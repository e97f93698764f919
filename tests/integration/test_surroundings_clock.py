"""A server whose clock is set while jobs run: no lease runs out early, none lasts for hours, and fences keep rising."""

import time
from collections.abc import Iterator

import pytest

from orchestrator.contract.ledger.ledger import Claim, Ledger
from orchestrator.contract.lines.answers import Verdict, encode_facts
from orchestrator.contract.lines.mover import stay_keeper
from orchestrator.contract.lines.requests import GivenAnswer, Push
from orchestrator.contract.lines.store import LineStore
from orchestrator.contract.server import connect
from tests.support.line_worker import LATE, enter_line, make_line
from tests.support.server import Server, running_server, wait_until
from tests.support.set_clock import CAN_SET_CLOCKS, SetClock

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not CAN_SET_CLOCKS, reason="setting a server's clock needs Linux and gcc"),
]

JOB = "c261123-143355-7f3a2b"
LEASE_S = 20.0
HOURS_S = 3 * 3600.0
STEPS = pytest.mark.parametrize("step_s", [HOURS_S, -HOURS_S], ids=["forward", "back"])


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> SetClock:
    """The clock of the module's server."""
    return SetClock(tmp_path_factory.mktemp("clock"))


@pytest.fixture(scope="module")
def clocked_server(clock: SetClock, _server_program: None) -> Iterator[Server]:
    """A server with a clock of its own."""
    with running_server(environment=clock.environment) as server:
        yield server


@pytest.fixture
def ledger(clocked_server: Server, clock: SetClock) -> Iterator[Ledger]:
    """Of a worker that has looked at the clock; a job is entered, with four shards."""
    ledger = Ledger(connect(clocked_server.url))
    set_clock(ledger, clock, 0)
    clocked_server.empty()
    ledger.create(JOB, {"kind": "classify", "listed": 0})
    ledger.extend(JOB, 4, 40, listed=True)
    heartbeat(ledger)
    yield ledger
    ledger.client.close()


def set_clock(ledger: Ledger, clock: SetClock, ahead_s: float) -> None:
    """Set the server's clock, and wait until the server knows it: it keeps the time for some milliseconds."""
    clock.set(ahead_s)
    wait_until(lambda: abs(now_ms(ledger) / 1e3 - time.time() - ahead_s) < 5, what="the server knows the time")


def heartbeat(ledger: Ledger, worker: str = "w1") -> None:
    ledger.live_workers.heartbeat(worker, {"queues": "classify"})


def claim(ledger: Ledger, worker: str = "w1", lease_s: float = LEASE_S) -> Claim:
    taken = ledger.claim(JOB, worker, lease_s)
    assert isinstance(taken, Claim), taken
    return taken


def now_ms(ledger: Ledger) -> float:
    seconds, microseconds = ledger.client.time()
    return seconds * 1e3 + microseconds / 1e3


@pytest.mark.parametrize("looked", [False, True], ids=["before a heartbeat", "after a heartbeat"])
@STEPS
def test_no_lease_runs_out_when_the_clock_is_set(ledger: Ledger, clock: SetClock, step_s: float, looked: bool):
    mine = claim(ledger)

    set_clock(ledger, clock, step_s)
    if looked:
        heartbeat(ledger)

    others = [claim(ledger, "w2") for _ in range(3)]
    assert {other.shard for other in others} == {1, 2, 3}
    assert ledger.claim(JOB, "w2", LEASE_S) == "none"
    assert ledger.renew(JOB, [mine], LEASE_S) == ("running", set())
    assert ledger.commit(mine, num_rows=10, num_failed=0) == ("committed", "running")


@STEPS
def test_a_dead_workers_lease_is_not_prolonged_when_the_clock_is_set(ledger: Ledger, clock: SetClock, step_s: float):
    dead = claim(ledger, "w2", lease_s=5)

    set_clock(ledger, clock, step_s)
    heartbeat(ledger)
    until_ms = ledger.client.zscore(f"{{pigeonhole}}:job:{JOB}:leases", dead.shard)
    assert until_ms is not None
    assert 0 < until_ms - now_ms(ledger) <= 5000
    wait_until(lambda: now_ms(ledger) > until_ms, what="the dead worker's lease is over")
    assert claim(ledger).shard == dead.shard


@STEPS
def test_a_lease_that_had_run_out_is_still_over(ledger: Ledger, clock: SetClock, step_s: float):
    dead = claim(ledger, "w2", lease_s=0.01)
    until_ms = ledger.client.zscore(f"{{pigeonhole}}:job:{JOB}:leases", dead.shard)
    wait_until(lambda: now_ms(ledger) > until_ms, what="the lease is over")
    heartbeat(ledger)

    set_clock(ledger, clock, step_s)
    heartbeat(ledger)

    assert claim(ledger).shard == dead.shard


@STEPS
def test_a_job_that_is_being_listed_goes_on_and_a_dead_lister_is_noticed(
    ledger: Ledger, clock: SetClock, step_s: float
):
    job = "c261123-143356-7f3a2b"
    ledger.create(job, {"kind": "classify", "listed": 0})

    set_clock(ledger, clock, step_s)
    before = ledger.need(job, 60)
    heartbeat(ledger)
    after = ledger.need(job, 60)

    left_ms = int(ledger.client.hget(f"{{pigeonhole}}:job:{job}", "lister_until")) - now_ms(ledger)
    assert (before, after) == ("nothing", "nothing")
    assert 0 < left_ms <= 30_000


@STEPS
def test_a_finalizer_keeps_its_lease_but_not_for_hours(ledger: Ledger, clock: SetClock, step_s: float):
    for _ in range(4):
        ledger.commit(claim(ledger), num_rows=10, num_failed=0)
    state, fence = ledger.take_finalize_lease(JOB, "w1", LEASE_S)
    assert (state, fence is not None) == ("finalizing", True)

    set_clock(ledger, clock, step_s)
    before = ledger.take_finalize_lease(JOB, "w2", LEASE_S)
    heartbeat(ledger)
    after = ledger.take_finalize_lease(JOB, "w2", LEASE_S)

    left_ms = int(ledger.client.hget(f"{{pigeonhole}}:job:{JOB}", "finalizer_until")) - now_ms(ledger)
    assert before == after == ("finalizing", None)
    assert 0 < left_ms <= LEASE_S * 1000
    assert ledger.renew_finalize_lease(JOB, fence, LEASE_S)


@STEPS
def test_leases_of_the_new_time_are_not_moved_by_a_later_look(ledger: Ledger, clock: SetClock, step_s: float):
    mine = claim(ledger)
    set_clock(ledger, clock, step_s)
    ledger.renew(JOB, [mine], LEASE_S)

    heartbeat(ledger)

    until_ms = ledger.client.zscore(f"{{pigeonhole}}:job:{JOB}:leases", mine.shard)
    assert 0 < until_ms - now_ms(ledger) <= LEASE_S * 1000


def test_workers_that_died_do_not_live_for_hours_after_the_clock_was_set_back(ledger: Ledger, clock: SetClock):
    heartbeat(ledger, "dead")
    score = ledger.client.zscore("{pigeonhole}:workers", "dead")
    ledger.client.zadd("{pigeonhole}:workers", {"dead": score - 30})

    set_clock(ledger, clock, -HOURS_S)
    heartbeat(ledger)

    assert {worker.worker: worker.alive for worker in ledger.live_workers.workers()} == {"dead": False, "w1": True}


def test_a_sweeper_that_died_holds_up_no_sweep_after_the_clock_was_set_back(ledger: Ledger, clock: SetClock):
    assert ledger.live_workers.take_sweep("dead")

    set_clock(ledger, clock, -HOURS_S)
    heartbeat(ledger)

    assert ledger.live_workers.take_sweep("w1")


def test_a_job_without_a_worker_is_starving_after_the_clock_was_set_back(ledger: Ledger, clock: SetClock):
    set_clock(ledger, clock, -HOURS_S)
    heartbeat(ledger)

    assert ledger.need(JOB, 60) == "claim"
    wait_until(lambda: ledger.need(JOB, 0.1) == "starving", what="the job is starving")


@STEPS
def test_fences_keep_rising_also_where_the_server_forgot_everything(ledger: Ledger, clock: SetClock, step_s: float):
    first = claim(ledger)
    set_clock(ledger, clock, step_s)
    second = claim(ledger)

    ledger.client.flushall()
    set_clock(ledger, clock, -HOURS_S)
    ledger.restore(JOB, {"kind": "classify", "state": "running", "listed": 1, "num_shards": 4}, b"\0")

    assert first.fence < second.fence
    assert claim(ledger).fence > first.fence


def test_a_worker_that_is_first_after_a_time_without_any_finds_leases_that_have_run_out(
    ledger: Ledger, clock: SetClock
):
    dead = claim(ledger, lease_s=5.0)

    set_clock(ledger, clock, 60)  # stands for a minute in which nobody looked
    started = Ledger(ledger.client)
    heartbeat(started, "w2")

    assert claim(started, "w2").shard == dead.shard
    assert started.need(JOB, 60) != "lister"


def test_a_lister_outlives_a_time_without_its_server_and_without_workers_and_a_dead_one_does_not(
    ledger: Ledger, clock: SetClock
):
    alive, dead = "c261123-143356-7f3a2b", "c261123-143357-7f3a2b"
    for job in (alive, dead):
        ledger.create(job, {"kind": "classify", "listed": 0})
    ledger.client.hset(f"{{pigeonhole}}:job:{dead}", "lister_until", round(now_ms(ledger)) - 5000)

    set_clock(ledger, clock, 60)  # stands for a machine of server and workers that starts again
    started = Ledger(ledger.client)
    heartbeat(started, "w2")

    assert [started.need(job, 60) for job in (alive, dead)] == ["nothing", "lister"]
    left_ms = int(ledger.client.hget(f"{{pigeonhole}}:job:{alive}", "lister_until")) - now_ms(ledger)
    assert 0 < left_ms <= 30_000


def test_no_lease_runs_out_while_the_server_was_away(ledger: Ledger, clock: SetClock):
    mine = claim(ledger, lease_s=5.0)

    set_clock(ledger, clock, 60)  # stands for a minute in which the server answered nobody
    heartbeat(ledger)

    assert claim(ledger, "w2").shard != mine.shard
    assert ledger.renew(JOB, [mine], LEASE_S) == ("running", set())


# Lines


@pytest.fixture
def line(ledger: Ledger, clocked_server: Server) -> LineStore:
    """A line with a worker that has swept it; two requests wait, and a worker that may be dead holds one of them."""
    store = enter_line(clocked_server.url, make_line())
    store.report_capacity("w1", "1.0 1.0 0 0", {"state": "open"})
    path = b'["/a.png",5,1]'  # a server whose clock is set forward loses images, which expire
    pushes = [Push(f"1/{item}", "aa", 60_000, 5, "path", path) for item in "ab"]
    assert [admission.verdict for admission in store.admit(pushes, "c1")] == ["admitted", "admitted"]
    assert len(store.take("w2", 1, 15_000, 1 << 20).held) == 1
    store.sweep(250, since_s=0.0)
    return store


@STEPS
def test_requests_of_a_line_keep_their_time_when_the_clock_is_set(
    ledger: Ledger, clock: SetClock, line: LineStore, step_s: float
):
    set_clock(ledger, clock, step_s)
    line.sweep(250, since_s=0.25)

    now = now_ms(ledger)
    left_ms = [score - now for _, score in line.client.zrange(line.key("deadlines"), 0, -1, withscores=True)]
    leases_ms = [score - now for _, score in line.client.zrange(line.key("leases"), 0, -1, withscores=True)]
    assert len(left_ms) == 2
    assert all(40_000 < left <= 60_000 for left in left_ms)
    assert all(0 < left <= 15_000 for left in leases_ms)
    [taken] = line.take("w1", 2, 15_000, 1 << 20).held
    facts = encode_facts(label="a", score=0.9)
    assert line.answer([GivenAnswer(taken.key, Verdict("1"), LATE, facts)]) == [True]


@STEPS
def test_what_a_line_has_of_the_new_time_is_kept(ledger: Ledger, clock: SetClock, line: LineStore, step_s: float):
    set_clock(ledger, clock, step_s)
    [admission] = line.admit([Push("1/c", "aa", 60_000, 5, "image", b"image")], "c1")
    line.report_capacity("w1", "1.0 1.0 0 0", {"state": "open"})
    line.sweep(250, since_s=0.25)

    deadline = line.client.zscore(line.key("deadlines"), "1/c")
    assert deadline is None if admission.verdict == "busy" else 0 < deadline - now_ms(ledger) <= 60_000
    until_ms = int(line.client.hget(line.key("capacity"), "w1").split()[0])
    assert 0 < until_ms - now_ms(ledger) <= 60_000


def test_a_worker_that_was_frozen_moves_nothing(ledger: Ledger, line: LineStore):
    before = line.client.zrange(line.key("deadlines"), 0, -1, withscores=True)

    line.sweep(250, since_s=60.0)

    assert line.client.zrange(line.key("deadlines"), 0, -1, withscores=True) == before


def test_what_was_due_while_the_server_was_away_is_late(ledger: Ledger, clock: SetClock, line: LineStore):
    set_clock(ledger, clock, 90)  # stands for the time that has passed
    line.sweep(250, since_s=90.0)

    assert line.client.zcard(line.key("deadlines")) == 0
    assert line.client.hlen(line.key("answers")) == 2


def test_answers_of_a_line_move_to_files_after_the_clock_was_set_back(ledger: Ledger, clock: SetClock, line: LineStore):
    line.answer([GivenAnswer("1/a", Verdict("1"), LATE, encode_facts(label="a", score=0.9))])
    assert stay_keeper(line, "dead") is not None

    set_clock(ledger, clock, -HOURS_S)
    line.sweep(250, since_s=0.25)

    [(_, answered_ms)] = line.client.zrange(line.key("answered"), 0, -1, withscores=True)
    assert answered_ms <= now_ms(ledger)
    assert stay_keeper(line, "w1") is not None
