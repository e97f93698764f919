import pytest

from orchestrator.contract.ledger.stages import add_seconds, name_bound, stage_rates


@pytest.mark.parametrize(
    ("seconds", "bound"),
    [
        ({"read": 1, "decode": 9, "wait": 6, "predict": 3, "write": 1}, "decode"),
        ({"read": 9, "decode": 1, "wait": 6, "predict": 3, "write": 1}, "storage"),
        ({"read": 1, "decode": 4, "wait": 0, "predict": 8, "write": 1}, "device"),
        ({"read": 1, "decode": 4, "wait": 0, "predict": 3, "write": 7}, "write"),
        ({"read": 6, "decode": 5, "wait": 3, "predict": 8, "write": 0}, "storage"),  # neither alone outlasts 8 s
        ({"read": 2, "decode": 8, "wait": 0.5, "predict": 9, "write": 0}, "device"),  # they only fight for cores
        ({"read": 5, "decode": 5, "wait": 9, "predict": 1, "write": 0}, "decode"),
        ({"read": 5, "decode": 5, "wait": 9, "predict": 6, "write": 6}, "decode"),  # they are written meanwhile
        ({"read": 1, "decode": 4, "wait": 2, "predict": 6, "write": 7}, "write"),
        ({"read": 1, "decode": 4, "wait": 2, "predict": 5, "write": 5}, "device"),
        ({"predict": 0.5}, "device"),
    ],
)
def test_what_bounds_a_job_is_the_longest_line_and_its_longer_stage(seconds, bound):
    assert name_bound(seconds) == bound


@pytest.mark.parametrize("seconds", [{}, {"read": 0.0, "wait": 1.0}])
def test_what_was_not_timed_has_no_bound(seconds):
    assert name_bound(seconds) is None


def test_a_stages_rate_is_what_it_would_do_alone():
    seconds = {"read": 2.5, "decode": 10.0, "wait": 7.0, "predict": 5.0, "write": 0.0}

    assert stage_rates(seconds, 1000) == {"read": 400.0, "decode": 100.0, "predict": 200.0}


def test_seconds_add_up_stage_by_stage():
    assert add_seconds([{"read": 1.0, "predict": 2.0}, {"predict": 3.0, "write": 0.5}]) == {
        "read": 1.0,
        "predict": 5.0,
        "write": 0.5,
    }
    assert add_seconds([]) == {}
