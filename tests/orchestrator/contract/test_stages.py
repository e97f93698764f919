import pytest

from orchestrator.contract.stages import UNTIMED, StageTimes, add_times, name_bound, stage_rates


@pytest.mark.parametrize(
    ("seconds", "decode_threads", "bound"),
    [
        ({"read": 1, "decode": 9, "wait": 6, "predict": 3, "write": 1}, 1, "decode"),
        ({"read": 9, "decode": 1, "wait": 6, "predict": 3, "write": 1}, 1, "storage"),
        ({"read": 1, "decode": 4, "wait": 0, "predict": 8, "write": 1}, 1, "device"),
        ({"read": 1, "decode": 4, "wait": 0, "predict": 3, "write": 7}, 1, "write"),
        ({"read": 1, "decode": 19, "wait": 1, "predict": 8, "write": 1}, 4, "device"),  # 20 s of four threads are 5 s
        ({"read": 1, "decode": 19, "wait": 12, "predict": 8, "write": 1}, 2, "decode"),
        ({"read": 6, "decode": 5, "wait": 3, "predict": 8, "write": 0}, 1, "storage"),  # neither alone outlasts 8 s
        ({"read": 2, "decode": 8, "wait": 0.5, "predict": 9, "write": 0}, 1, "device"),  # they only fight for cores
        ({"read": 5, "decode": 5, "wait": 9, "predict": 1, "write": 0}, 1, "decode"),
        ({"read": 5, "decode": 5, "wait": 9, "predict": 5, "write": 5}, 1, "device"),
        ({"predict": 0.5}, 2, "device"),
    ],
)
def test_what_bounds_a_job_is_the_longer_line_and_its_longer_stage(seconds, decode_threads, bound):
    assert name_bound(seconds, decode_threads) == bound


@pytest.mark.parametrize("seconds", [{}, {"read": 0.0, "wait": 1.0}])
def test_what_was_not_timed_has_no_bound(seconds):
    assert name_bound(seconds, 2) is None


def test_a_stages_rate_is_that_of_one_worker_with_all_its_threads():
    times = StageTimes({"read": 10.0, "decode": 40.0, "wait": 7.0, "predict": 5.0, "write": 0.0}, decode_threads=4)

    assert stage_rates(times, 1000) == {"read": 400.0, "decode": 100.0, "predict": 200.0}


def test_times_add_up_and_threads_are_the_mean():
    times = [StageTimes({"read": 1.0, "predict": 2.0}, 2), StageTimes({"predict": 3.0, "write": 0.5}, 5)]

    assert add_times(times) == StageTimes({"read": 1.0, "predict": 5.0, "write": 0.5}, 3.5)
    assert add_times([]) == UNTIMED
