"""The ledger against a model of it in Python, through any sequence of steps of workers, deaths and an emptied server.

Nothing waits: a lease is made to run out by renewing it for no time at all.
"""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from orchestrator.contract.ledger.ledger import Claim, Ledger

pytestmark = pytest.mark.integration

JOB = "c261123-143355-7f3a2b"
LONG_S = 600.0
MAX_SHARDS = 12


def rows_of(shard: int) -> tuple[int, int]:
    """Rows and failed rows of a shard: different for each, so that no mix-up cancels out."""
    return 10 + 2**shard, shard % 3


class LedgerMachine(RuleBasedStateMachine):
    """Workers claim, write parts, commit, hand back and die; the listing grows; jobs pause; the server forgets."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger = ledger
        ledger.client.flushall()
        ledger.create(JOB, {"kind": "classify", "listed": 0})
        self.state = "queued"
        self.num_shards = 0
        self.listed = False
        self.claims: list[Claim] = []  # all there ever were, most of them stale
        self.on_disk: set[int] = set()  # shards whose part is written: the truth
        self.verdicts: list[int] = []  # shards, once for each commit that was accepted
        self.highest_fence = 0
        self.before_pause = ""
        self.paused_by: set[str] = set()
        self.forget()

    def forget(self) -> None:
        """The state that only the ledger has."""
        self.done: set[int] = set(self.on_disk)
        self.held: dict[int, int] = {}  # shard -> fence
        self.expired: set[int] = set()
        self.returned: set[int] = set()
        self.deaths: dict[int, int] = {}
        self.next = 0

    @property
    def complete(self) -> bool:
        return self.listed and len(self.done) >= self.num_shards

    # Steps

    @rule(more=st.integers(0, 3), listed=st.booleans())
    def extend(self, more: int, listed: bool) -> None:
        if not self.listed:  # a lister that has said so says no more
            self.num_shards = min(MAX_SHARDS, self.num_shards + more)
            self.listed = listed and self.num_shards > 0  # an empty source is refused before there is a job
        images = sum(rows_of(shard)[0] for shard in range(self.num_shards))

        answer = self.ledger.extend(JOB, self.num_shards, images, listed=self.listed)

        if self.state in ("running", "paused") and self.complete:
            self.state = "finalizing"
        assert answer == self.state

    @rule(worker=st.sampled_from(["w1", "w2"]))
    def claim(self, worker: str) -> None:
        shard = self.expected_shard() if self.state in ("queued", "running") else None

        answer = self.ledger.claim(JOB, worker, LONG_S)

        if shard is None:
            assert answer == ("none" if self.state in ("queued", "running") else self.state)
            return
        assert answer == Claim(JOB, shard, answer.fence, self.deaths.get(shard, 0) + 1)
        assert answer.fence > self.highest_fence
        self.expired.discard(answer.shard)
        self.returned.discard(answer.shard)
        self.held[answer.shard] = self.highest_fence = answer.fence
        self.claims.append(answer)
        self.state = "running"

    def expected_shard(self) -> int | None:
        """The shard that the next claim must give: an expired one (whose holder died), one handed back, a fresh one."""
        if self.expired:
            shard = min(self.expired, key=self.expiry().__getitem__)
            self.deaths[shard] = self.deaths.get(shard, 0) + 1
            return shard
        if self.returned:
            return min(self.returned)
        fresh = sorted(set(range(self.next, self.num_shards)) - self.done)
        if not fresh:
            return None
        self.next = fresh[0] + 1
        return fresh[0]

    def expiry(self) -> dict[int, tuple[float, str]]:
        """When each lease runs out, as the server sorts them."""
        leases = self.ledger.client.zrange("{pigeonhole}:job:" + JOB + ":leases", 0, -1, withscores=True)
        return {int(shard): (score, shard) for shard, score in leases}

    @rule(by=st.sampled_from(["storage", "operator"]))
    def pause(self, by: str) -> None:
        if self.state in ("queued", "running"):
            self.before_pause, self.paused_by, self.state = self.state, set(), "paused"
        if self.state == "paused":
            self.paused_by.add(by)

        assert self.ledger.pause(JOB, "why", by=by) == self.state

    @rule(by=st.sampled_from(["storage", "operator"]))
    def unpause(self, by: str) -> None:
        self.paused_by.discard(by)
        if self.state == "paused" and not self.paused_by:
            self.state = self.before_pause

        assert self.ledger.unpause(JOB, by=by) == self.state

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def write_part(self, data: st.DataObject) -> None:
        self.on_disk.add(data.draw(st.sampled_from(self.claims)).shard)

    @precondition(lambda self: self.on_disk)
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        claim = data.draw(st.sampled_from([claim for claim in self.claims if claim.shard in self.on_disk]))
        num_rows, num_failed = rows_of(claim.shard)

        verdict, state = self.ledger.commit(claim, num_rows=num_rows, num_failed=num_failed)

        if claim.shard in self.done:
            assert verdict == "already"
        elif self.held.get(claim.shard) != claim.fence:
            assert verdict == "stale"
        else:
            assert verdict == "committed"
            self.verdicts.append(claim.shard)
            self.done.add(claim.shard)
            self.expired.discard(claim.shard)
            del self.held[claim.shard]
            self.deaths.pop(claim.shard, None)
            if self.complete:
                self.state = "finalizing"
        assert state == self.state

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        claim = data.draw(st.sampled_from(self.claims))

        was_held = self.held.get(claim.shard) == claim.fence
        assert self.ledger.release(claim) == was_held
        if was_held:
            del self.held[claim.shard]
            self.expired.discard(claim.shard)
            self.returned.add(claim.shard)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), dies=st.booleans())
    def renew(self, data: st.DataObject, dies: bool) -> None:
        claims = data.draw(st.lists(st.sampled_from(self.claims), max_size=3, unique_by=lambda claim: claim.shard))

        answer = self.ledger.renew(JOB, claims, 0 if dies else LONG_S)

        kept = {claim.shard for claim in claims if self.held.get(claim.shard) == claim.fence}
        assert answer == (self.state, {claim.shard for claim in claims} - kept - self.done)
        self.expired = self.expired | kept if dies else self.expired - kept

    @precondition(lambda self: self.num_shards)
    @rule(emptied=st.booleans())
    def restore(self, emptied: bool) -> None:
        if emptied:
            self.empty_server()
        done = bytearray(-(-self.num_shards // 8))
        for shard in self.on_disk:
            done[shard // 8] |= 0x80 >> shard % 8
        fields = {
            "kind": "classify", "state": "running", "listed": int(self.listed), "num_shards": self.num_shards,
            "num_images": sum(rows_of(shard)[0] for shard in range(self.num_shards)), "shards_done": len(self.on_disk),
            "num_done": sum(rows_of(shard)[0] for shard in self.on_disk),
            "num_failed": sum(rows_of(shard)[1] for shard in self.on_disk),
        }  # fmt: skip

        assert self.ledger.restore(JOB, fields, bytes(done)) == emptied
        if emptied:
            self.forget()
            self.state = "finalizing" if self.complete else "running"

    def empty_server(self) -> None:
        """As after a restart: fencing numbers start from the clock, which is then beyond the earlier ones."""
        milliseconds = 0
        while milliseconds <= self.highest_fence:  # claims of one millisecond count on from it
            seconds, microseconds = self.ledger.client.time()
            milliseconds = 1000 * seconds + microseconds // 1000
        self.ledger.client.flushall()

    # What always holds

    @invariant()
    def counts_are_those_of_the_shards_that_are_done(self) -> None:
        record = self.ledger.record(JOB)
        assert record.paused_by == (", ".join(sorted(self.paused_by)) if self.state == "paused" else "")
        assert (record.state, record.listed, record.num_shards) == (self.state, self.listed, self.num_shards)
        assert record.shards_done == len(self.done)
        assert record.num_done == sum(rows_of(shard)[0] for shard in self.done)
        assert record.num_failed == sum(rows_of(shard)[1] for shard in self.done)

    @invariant()
    def no_shard_is_committed_twice_nor_without_its_part(self) -> None:
        assert len(self.verdicts) == len(set(self.verdicts))
        assert self.done <= self.on_disk

    @invariant()
    def a_job_is_finalizing_exactly_if_all_is_done(self) -> None:
        if self.state != "queued":
            assert (self.state == "finalizing") == self.complete

    @invariant()
    def every_shard_is_done_held_handed_back_or_still_to_come(self) -> None:
        fresh = set(range(self.next, self.num_shards)) - self.done
        assert self.done | set(self.held) | self.returned | fresh == set(range(self.num_shards))
        assert not set(self.held) & self.returned

    def teardown(self) -> None:
        """After any events, workers can finish the job."""
        self.extend(0 if self.num_shards else 1, True)
        self.unpause("storage")
        self.unpause("operator")
        for claim in self.claims:
            self.ledger.release(claim)
        while isinstance(claim := self.ledger.claim(JOB, "last", LONG_S), Claim):
            self.ledger.commit(claim, num_rows=rows_of(claim.shard)[0], num_failed=rows_of(claim.shard)[1])
        record = self.ledger.record(JOB)
        assert (record.state, record.shards_done) == ("finalizing", self.num_shards)
        assert record.num_done == sum(rows_of(shard)[0] for shard in range(self.num_shards))


@pytest.mark.hypothesis  # like those with @given, which hypothesis marks itself
def test_the_ledger_stays_consistent_through_any_sequence_of_events(ledger):
    run_state_machine_as_test(
        lambda: LedgerMachine(ledger),
        settings=settings(stateful_step_count=30),
    )
