"""A server that answers but takes no writes: it counts as away, whatever the call, and nothing is done by half."""

import pytest
import redis

from orchestrator.contract.ledger.ledger import Claim, Ledger
from orchestrator.contract.server import SERVER_ERRORS, connect
from tests.support.server import REFUSALS, Server

pytestmark = pytest.mark.integration

JOB = "c261123-143355-7f3a2b"
LONG_S = 60.0


@pytest.mark.parametrize("how", sorted(REFUSALS.keys() - {"memory"}))
def test_a_server_that_refuses_writes_counts_as_away_and_nothing_is_done_by_half(server: Server, how: str):
    ledger = Ledger(connect(server.url))
    dumps = redis.Redis.from_url(server.url)
    ledger.create(JOB, {"kind": "classify", "listed": 0})
    ledger.extend(JOB, 4, 40, listed=True)
    claim, other = (ledger.claim(JOB, "w1", LONG_S) for _ in range(2))
    assert isinstance(claim, Claim)
    assert isinstance(other, Claim)

    def keys() -> dict[bytes, bytes]:
        return {key: dumps.dump(key) for key in dumps.keys("*")}

    before = keys()
    calls = {
        "create": lambda: ledger.create("c261123-143355-7f3a2c", {"kind": "classify", "listed": 0}, output="/o"),
        "extend": lambda: ledger.extend(JOB, 5, 50, listed=True),
        "claim": lambda: ledger.claim(JOB, "w1", LONG_S),
        "renew": lambda: ledger.renew(JOB, [claim], LONG_S),
        "heartbeat": lambda: ledger.live_workers.heartbeat("w1", {"host": "h"}),
        "activity": lambda: ledger.live_workers.report_activity("w1", "idle"),
        "sweep": lambda: ledger.live_workers.take_sweep("w1"),
        "pause": lambda: ledger.pause(JOB, "why", by="operator"),
        "deliveries": lambda: ledger.deliveries.add(JOB),
    }
    with server.refusing(how):
        for name, call in calls.items():
            with pytest.raises(SERVER_ERRORS):
                print(name, call())
        if how != "masterless":
            assert keys() == before

    assert ledger.commit(claim, num_rows=10, num_failed=0) == ("committed", "running")
    assert ledger.release(other)
    ledger.client.close()
    dumps.close()


def test_a_server_at_its_memory_limit_takes_what_makes_room_as_a_whole(server: Server):
    """It lets a script begin that frees something first, and then lets it end."""
    ledger = Ledger(connect(server.url))
    ledger.create(JOB, {"kind": "classify", "listed": 0})
    ledger.extend(JOB, 2, 20, listed=True)
    claim, other = (ledger.claim(JOB, "w1", LONG_S) for _ in range(2))
    assert isinstance(claim, Claim)
    assert isinstance(other, Claim)

    with server.refusing("memory"):
        with pytest.raises(SERVER_ERRORS):
            ledger.live_workers.heartbeat("w1", {"host": "h"})
        committed, released = ledger.commit(claim, num_rows=10, num_failed=0), ledger.release(other)

    assert (committed, released) == (("committed", "running"), True)
    record = ledger.record(JOB)
    assert record is not None
    assert (record.shards_done, record.num_done) == (1, 10)
    again = ledger.claim(JOB, "w2", LONG_S)
    assert isinstance(again, Claim)
    assert (again.shard, again.attempt) == (other.shard, 1)
    ledger.client.close()
