"""The faults of `benchmarks.surroundings`, and what it injects them with."""

import pytest
import redis

from benchmarks.surroundings import FAULTS
from benchmarks.surroundings_rig import num_again
from tests.support.cut_proxy import CutProxy
from tests.support.server import Server, wait_until


def test_each_fault_has_a_name_of_its_own_and_says_what_is_expected():
    names = [fault.name for fault in FAULTS]

    assert len(set(names)) == len(names) > 35
    assert all(fault.expected for fault in FAULTS)


def test_a_shard_that_two_workers_began_was_done_again():
    starts = ["job-a 0 11 100.000", "job-a 1 12 100.100", "job-b 0 11 100.200", "job-a 0 12 103.000"]

    assert num_again(starts, "job-a") == 1
    assert num_again(starts, "job-b") == 0


@pytest.mark.integration
def test_a_cut_network_delays_what_is_sent_and_loses_nothing():
    server = Server()
    server.start()
    proxy = CutProxy(server.folder / "p", f"{server.folder}/s.sock")
    client = redis.Redis.from_url(proxy.url, socket_timeout=2, retry=None)
    direct = redis.Redis.from_url(server.url)
    try:
        assert client.ping()
        with proxy.cut("to server"), pytest.raises(redis.TimeoutError):
            client.rpush("list", "late")
        wait_until(lambda: direct.llen("list") == 1, what="it has arrived")
        assert client.ping()
        with proxy.cut("to client"), pytest.raises(redis.TimeoutError):
            client.rpush("list", "answer lost")
        wait_until(lambda: direct.llen("list") == 2, what="it has arrived, too")
        assert direct.lrange("list", 0, -1) == [b"late", b"answer lost"]
    finally:
        proxy.close()
        client.close()
        direct.close()
        server.stop()
