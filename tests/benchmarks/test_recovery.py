"""What `benchmarks.recovery` takes for too late."""

from benchmarks.recovery import LIMITS_S, figure_of
from orchestrator.contract.ledger.live_workers import HEARTBEAT_S
from workers.classify.slice import DRAIN_GRACE_S


def test_the_worst_case_of_a_figure_must_be_within_its_limit():
    assert figure_of("takeover", [6.0, 15.0, 7.0])["good"]
    assert not figure_of("takeover", [6.0, 15.1, 7.0])["good"]
    assert figure_of("restart_to_both", [0.2, 60.0]) == {
        "count": 2, "median_s": 30.1, "worst_s": 60.0, "limit_s": 10.0, "good": False,
    }  # fmt: skip


def test_a_stopped_worker_hands_its_shard_back_early_enough_to_end_in_time():
    assert LIMITS_S["sigterm_to_exit_long_shards"] > DRAIN_GRACE_S + HEARTBEAT_S
