"""Who gets a worker's next turn: shares by priority, through simulated workers and a real server's scripts.

The time of the simulation is passed to the scripts, so nothing waits.
"""

import heapq
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.contract.errors import NotFoundError
from orchestrator.contract.ledger.ledger import Ledger
from orchestrator.contract.ledger.turns import Turn
from orchestrator.contract.server import connect
from tests.support.fakes import enter_job, make_images, make_job
from workers.turns import take_turn, work_on

pytestmark = pytest.mark.integration

WEIGHTS = {"high": 16, "normal": 4, "low": 1}
SLICE_S = 5.0
MINUTE_S = 60.0


def job_id(number: int, kind: str = "c") -> str:
    return f"{kind}{datetime(2026, 11, 23) + timedelta(seconds=number):%y%m%d-%H%M%S}-7f3a2b"


def enter(ledger: Ledger, number: int, priority: str = "normal", *, kind: str = "classify", shards: int = 10**6) -> str:
    """A job with shards to claim."""
    job = job_id(number, kind[0])
    ledger.create(job, {"kind": kind, "priority": priority, "listed": 1, "num_shards": shards})
    return job


@dataclass
class Job:
    """priority, seconds of a worker for a shard, and for its first turn in a process, which loads the model."""

    priority: str
    shard_s: float = 0.2
    load_s: float = 0.0


@dataclass
class Fleet:
    """Workers that take turns until their time is over."""

    ledger: Ledger
    jobs: dict[str, Job]
    num_workers: int = 1
    turns: list[tuple[float, str, float]] = field(default_factory=list)  # when it ended, job, seconds

    def run(self, seconds: float) -> None:
        loaded = set()
        free = [(0.0, worker) for worker in range(self.num_workers)]
        while free[0][0] < seconds:
            now, worker = heapq.heappop(free)
            turn = self.ledger.turns.take(next(iter(self.jobs)), f"w{worker}", SLICE_S)
            job = self.jobs[turn.job]
            shards = turn.max_shards or max(1, round(turn.seconds / job.shard_s))
            took = shards * job.shard_s + (job.load_s if (worker, turn.job) not in loaded else 0.0)
            loaded.add((worker, turn.job))
            self.turns.append((now + took, turn.job, took))
            self.ledger.turns.end(turn, f"w{worker}", took, shards)
            heapq.heappush(free, (now + took, worker))

    def seconds(self, since: float, until: float) -> Counter:
        """What each job got of the workers' time in a span."""
        got = Counter()
        for end, job, took in self.turns:
            got[job] += max(0.0, min(end, until) - max(end - took, since))
        return got

    def shares(self, since: float, until: float) -> dict[str, float]:
        got = self.seconds(since, until)
        return {job: got[job] / got.total() for job in self.jobs}

    def longest_wait(self) -> int:
        """The most turns of others between two of a job, its first one included."""
        waits = []
        for job in self.jobs:
            places = [-1, *(place for place, (_, turn, _) in enumerate(self.turns) if turn == job), len(self.turns)]
            waits += [after - before - 1 for before, after in pairwise(places)]
        return max(waits)


@pytest.mark.parametrize("num_workers", [1, 3])
@pytest.mark.parametrize(
    "priorities",
    [("normal",) * 3, ("high", "low", "low"), ("high", "normal", "low"), ("low",) * 5, ("high", "high", "normal")],
    ids=",".join,
)
def test_each_job_gets_its_share_of_a_minute(ledger, priorities, num_workers):
    jobs = {enter(ledger, number, priority): Job(priority) for number, priority in enumerate(priorities)}
    fleet = Fleet(ledger, jobs, num_workers)

    fleet.run(3 * MINUTE_S)

    total = sum(WEIGHTS[priority] for priority in priorities)
    for since in (MINUTE_S / 2, MINUTE_S, 1.7 * MINUTE_S):
        for job, share in fleet.shares(since, since + MINUTE_S).items():
            assert share == pytest.approx(WEIGHTS[jobs[job].priority] / total, rel=0.2), (job, since)


@given(
    jobs=st.lists(
        st.builds(
            Job,
            priority=st.sampled_from(sorted(WEIGHTS)),
            shard_s=st.floats(0.05, 3.0),
            load_s=st.sampled_from([0.0, 8.0]),
        ),
        min_size=1,
        max_size=8,
    ),
    num_workers=st.integers(1, 4),
)
@settings(max_examples=10, deadline=None)
def test_any_jobs_get_their_share_but_for_one_turn_and_none_waits_for_long(shared_server, jobs, num_workers):
    client = connect(shared_server.url)
    client.flushall()
    ledger = Ledger(client)
    by_id = {enter(ledger, number, job.priority): job for number, job in enumerate(jobs)}
    fleet = Fleet(ledger, by_id, num_workers)
    minutes_s = 5 * MINUTE_S

    fleet.run(minutes_s)
    client.close()

    got = fleet.seconds(0.0, minutes_s)
    total = sum(WEIGHTS[job.priority] for job in jobs)
    a_turn = num_workers * max(SLICE_S, *(job.shard_s + job.load_s for job in jobs))
    for job, weight in ((job, WEIGHTS[each.priority]) for job, each in by_id.items()):
        fair = got.total() * weight / total
        if weight == WEIGHTS["high"]:
            assert got[job] >= 0.8 * fair - 2 * a_turn  # of which others may have had the least that they are promised
        elif max(total / weight, len(jobs)) < 25:
            assert abs(got[job] - fair) <= 0.2 * fair + 2 * a_turn
    assert fleet.longest_wait() <= 30


def test_a_low_job_beside_many_high_ones_is_never_without_a_turn_for_long(ledger):
    jobs = {enter(ledger, number, "high"): Job("high") for number in range(6)}
    low = enter(ledger, 10, "low")
    fleet = Fleet(ledger, jobs | {low: Job("low", shard_s=2.0)}, 2)

    fleet.run(4 * MINUTE_S)

    assert fleet.longest_wait() <= 30


def test_a_low_job_beside_as_many_high_ones_as_are_promised_waits_for_30_turns_at_most(ledger):
    jobs = {enter(ledger, number, "high"): Job("high") for number in range(13)}
    low = enter(ledger, 20, "low")
    fleet = Fleet(ledger, jobs | {low: Job("low")}, 2)

    fleet.run(20 * MINUTE_S)

    assert sum(job == low for _, job, _ in fleet.turns) > 10
    assert fleet.longest_wait() <= 30


def test_an_endless_stream_of_new_jobs_does_not_hold_up_an_old_one(ledger):
    old = enter(ledger, 0)
    waited, longest = 0, 0
    for number in range(1, 120):
        new = enter(ledger, number, "high", shards=1)
        turn = ledger.turns.take(new, "w1", SLICE_S)
        waited = 0 if turn.job == old else waited + 1
        longest = max(longest, waited)
        ledger.turns.end(turn, "w1", 0.1, 1)
        if turn.job != old:
            ledger.finish(turn.job, "succeeded")

    assert longest <= 30


def test_a_new_job_is_next_and_gets_no_more_than_its_share(ledger):
    old = enter(ledger, 0)
    fleet = Fleet(ledger, {old: Job("normal")})
    fleet.run(10 * MINUTE_S)
    new = enter(ledger, 1)

    fleet.turns, fleet.jobs = [], {old: Job("normal"), new: Job("normal")}
    fleet.run(MINUTE_S)

    assert fleet.turns[0][1] == new
    assert fleet.shares(0.0, MINUTE_S)[old] == pytest.approx(0.5, rel=0.2)


def test_a_job_that_had_no_work_for_long_is_a_new_one(ledger):
    old = enter(ledger, 0)
    back = enter(ledger, 1)
    ledger.pause(back, "why", by="operator")
    fleet = Fleet(ledger, {old: Job("normal"), back: Job("normal")})
    fleet.run(10 * MINUTE_S)
    ledger.unpause(back, by="operator")

    fleet.turns = []
    fleet.run(MINUTE_S)

    assert fleet.shares(0.0, MINUTE_S)[old] == pytest.approx(0.5, rel=0.2)


def test_a_job_alone_has_whole_slices_and_any_number_of_shards(ledger):
    job = enter(ledger, 0, "low")
    ledger.turns.end(ledger.turns.take(job, "w1", SLICE_S), "w1", SLICE_S, 10)

    assert ledger.turns.take(job, "w1", SLICE_S) == Turn(job, SLICE_S, None, 5000)


def test_a_worker_that_could_do_nothing_for_a_job_leaves_it_to_others(ledger):
    first, second = enter(ledger, 0), enter(ledger, 1)
    turn = ledger.turns.take(first, "w1", SLICE_S)

    following = ledger.turns.end(turn, "w1", 0.01, 0)

    assert (turn.job, following) == (first, second)
    assert [ledger.turns.take(first, "w1", SLICE_S).job for _ in range(3)] == [second] * 3
    assert ledger.turns.take(second, "w2", SLICE_S).job == first


def test_a_job_that_a_worker_puts_last_comes_after_all_others_there_and_alone_it_is_taken(ledger):
    first, second = enter(ledger, 0, "high"), enter(ledger, 1, "low", shards=1)
    ledger.turns.put_last(first, "w1")

    assert [ledger.turns.take(first, worker, SLICE_S).job for worker in ("w1", "w1", "w2")] == [second, second, first]
    assert ledger.turns.end(Turn(first), "w1", 1.0, None) == second
    ledger.claim(second, "w1", 600)
    assert ledger.turns.take(second, "w1", SLICE_S).job == first
    assert ledger.turns.end(Turn(second), "w1", 1.0, 1) == first


def test_no_job_has_work(ledger):
    job = enter(ledger, 0, shards=1)
    ledger.claim(job, "w2", 600)

    assert ledger.turns.take(job, "w1", SLICE_S) is None
    assert ledger.turns.end(Turn(job), "w1", 1.0, 1) is None


def test_a_job_that_the_server_forgot_is_restored_by_the_worker_that_hears_its_doorbell(ledger):
    enter(ledger, 1)

    assert ledger.turns.take(job_id(0), "w1", SLICE_S).job == job_id(0)


def test_who_hears_the_doorbell_of_a_job_whose_source_is_away_looks_for_it(ledger):
    away, other = enter(ledger, 0), enter(ledger, 1)
    ledger.pause(away, "away", by="storage")
    looks = ledger.turns.take(away, "w1", SLICE_S).job
    ledger.pause(away, "until tonight", by="operator")

    assert (looks, ledger.turns.take(away, "w1", SLICE_S).job) == (away, other)


def test_a_job_that_has_ended_leaves_nothing_of_its_turns(ledger):
    job = enter(ledger, 0)
    ledger.turns.end(ledger.turns.take(job, "w1", SLICE_S), "w1", 0.1, 0)
    ledger.finish(job, "cancelled")

    ledger.turns.end(Turn(job), "w1", 0.1, 0)

    assert ledger.client.exists(f"{{pigeonhole}}:job:{job}:avoided") == 0


@pytest.fixture
def many(ledger) -> dict[str, Job]:
    """More jobs than all are looked at before every turn, of each priority."""
    priorities = [sorted(WEIGHTS)[number % 3] for number in range(60)]
    return {enter(ledger, number, priority): Job(priority) for number, priority in enumerate(priorities)}


def test_beside_many_jobs_weights_count_and_each_has_every_second_round(ledger, many):
    fleet = Fleet(ledger, many, num_workers=10)

    fleet.run(MINUTE_S / 2)

    shares = fleet.shares(0.0, MINUTE_S / 2)
    mean = {priority: sum(shares[job] for job in many if many[job].priority == priority) / 20 for priority in WEIGHTS}
    assert fleet.longest_wait() <= 2 * len(many)
    assert mean["high"] > 3 * mean["normal"] >= 3 * 0.95 * mean["low"]
    for job, share in shares.items():
        assert share == pytest.approx(mean[many[job].priority], rel=0.2)


def test_beside_many_jobs_a_new_one_waits_for_half_a_round_at_most(ledger, many):
    Fleet(ledger, many).run(MINUTE_S / 4)
    new = enter(ledger, 100)

    turns = [ledger.turns.take(new, "w1", SLICE_S).job for _ in range(len(many) // 2)]

    assert new in turns


def test_beside_many_jobs_one_without_shards_or_that_was_paused_has_no_turn(ledger, many):
    first, second, third, *others = many
    ledger.turns.take(first, "w1", SLICE_S)
    for job in (first, second):
        ledger.pause(job, "why", by="operator")
    ledger.finish(third, "cancelled")

    turns = {ledger.turns.take(job, "w1", SLICE_S).job for job in many}

    assert turns == set(others)


def test_beside_many_jobs_a_worker_that_can_do_nothing_for_any_has_no_turn(ledger, many, monkeypatch):
    monkeypatch.setattr("orchestrator.contract.ledger.turns.AVOID_S", 600.0)  # a loaded machine takes seconds
    for job in many:
        ledger.turns.avoid(job, "w1")

    turns = [ledger.turns.take(job, "w1", SLICE_S) for job in many]

    assert turns == [None] * len(many)
    assert ledger.turns.end(Turn(next(iter(many))), "w1", 1.0, 1) is None
    assert ledger.turns.take(next(iter(many)), "w2", SLICE_S) is not None


def test_a_turn_writes_no_more_beside_many_jobs(ledger, many):
    def written() -> int:
        facts = ledger.client.info("persistence")
        return facts["aof_current_size"] + facts["aof_buffer_length"]  # what waits for the disk is written, too

    job = next(iter(many))
    ledger.turns.end(ledger.turns.take(job, "w1", SLICE_S), "w1", 0.2, 1)
    before = written()

    for _ in range(20):
        ledger.turns.end(ledger.turns.take(job, "w1", SLICE_S), "w1", 0.2, 1)

    assert (written() - before) / 20 < 2000


def test_trainings_wait_in_order_of_priority_and_of_their_submission(ledger):
    names = [("low", "train"), ("normal", "evaluate"), ("normal", "train"), ("high", "train")]
    jobs = [enter(ledger, number, priority, kind=kind, shards=1) for number, (priority, kind) in enumerate(names)]
    for place, job in enumerate(jobs):
        ledger.client.hset(f"{{pigeonhole}}:job:{job}", "created_ms", 1000 + place)
    enter(ledger, 5, "high")

    order = []
    while (job := ledger.turns.next_training(jobs[0], "w1")) is not None:
        order.append(job)
        ledger.claim(job, "w1", 600)

    assert order == [jobs[3], jobs[1], jobs[2], jobs[0]]


def test_a_training_that_a_worker_cannot_do_is_left_to_others(ledger):
    first, second = (enter(ledger, number, kind="train", shards=1) for number in range(2))
    ledger.turns.avoid(first, "w1")

    assert [ledger.turns.next_training(first, worker) for worker in ("w1", "w2")] == [second, first]


def test_a_training_that_a_worker_puts_last_comes_after_all_others_there_and_alone_it_is_taken(ledger):
    first, second = (
        enter(ledger, number, priority, kind="train", shards=1) for number, priority in enumerate(["high", "low"])
    )
    ledger.turns.put_last(first, "w1")

    assert [ledger.turns.next_training(first, worker) for worker in ("w1", "w2")] == [second, first]
    ledger.claim(second, "w1", 600)
    assert ledger.turns.next_training(first, "w1") == first


def test_one_doorbell_goes_on_until_no_job_has_work(settings, ledger, context, bells, tmp_path):
    paths = make_images(tmp_path / "in", [0, 50, 100, 150, 200, 250])
    folders = []
    for number, priority in enumerate(["low", "high"]):
        output = tmp_path / f"out-{number}.csv"
        folder = make_job(settings, paths, root=tmp_path / "in", output=output, shard_size=1, priority=priority)
        enter_job(folder, ledger)
        folders.append(folder)
    context.settings = context.settings.model_copy(update={"slice_s": 1e-3})  # a shard in each turn
    doorbells, jobs = [("classify", folders[0].job)], []

    while doorbells:
        queue, named = doorbells.pop(0)
        turn = take_turn(queue, named, context)
        jobs.append(turn.job)
        bells.rung.clear()
        work_on(queue, turn, context)
        doorbells = [doorbell for doorbell in bells.rung if doorbell[0] == "classify"]
        assert len(doorbells) <= 1

    assert [ledger.record(folder.job).state for folder in folders] == ["finalizing", "finalizing"]
    assert set(jobs) == {folder.job for folder in folders}


def test_a_job_whose_folder_a_worker_cannot_read_does_not_keep_it_from_the_others(
    settings, ledger, context, bells, tmp_path
):
    paths = make_images(tmp_path / "in", [0, 50])
    gone, other = (
        make_job(settings, paths, root=tmp_path / "in", output=tmp_path / f"out-{number}.csv") for number in range(2)
    )
    for folder in (gone, other):
        enter_job(folder, ledger)
    gone.request_file.unlink()

    with pytest.raises(NotFoundError):
        work_on("classify", Turn(gone.job), context)

    assert bells.rung == [("classify", other.job)]
    assert take_turn("classify", gone.job, context).job == other.job


def test_the_doorbell_of_a_job_that_was_withdrawn_does_not_go_round(settings, ledger, context, bells, tmp_path):
    paths = make_images(tmp_path / "in", [0, 50])
    other = make_job(settings, paths, root=tmp_path / "in", output=tmp_path / "out.csv")
    enter_job(other, ledger)

    with pytest.raises(NotFoundError):
        work_on("classify", take_turn("classify", job_id(0), context), context)

    assert bells.rung == [("classify", other.job)]
