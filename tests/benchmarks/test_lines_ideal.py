"""The simulation of an ideal line, compared with what can be computed by hand and with the theory of queues."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.lines.ideal import Machine, poisson_arrivals_ms, simulate

MACHINE = st.builds(
    Machine,
    st.integers(1, 3),
    st.lists(st.floats(1, 50), min_size=1, max_size=4).map(lambda times: tuple(sorted(times))),
)
ARRIVALS = st.lists(st.floats(0, 400), min_size=1, max_size=60).map(sorted)


def test_requests_that_meet_nobody_take_as_long_as_their_batch():
    assert simulate([0, 100, 200], Machine(1, (10.0,))).tolist() == [10, 10, 10]


def test_requests_wait_for_a_free_server():
    assert simulate([0, 1, 2], Machine(1, (10.0,))).tolist() == [10, 19, 28]
    assert simulate([0, 1, 2], Machine(2, (10.0,))).tolist() == [10, 10, 18]


def test_what_has_gathered_while_the_server_was_busy_goes_in_one_batch():
    answered = simulate([0, 1, 2, 3], Machine(1, (10.0, 12.0)))

    assert answered.tolist() == [10, 21, 20, 29]


def test_what_no_batch_has_room_for_goes_to_the_next_idle_server():
    assert simulate([5, 5, 5], Machine(3, (10.0,))).tolist() == [10, 10, 10]


def test_an_image_alone_has_all_servers():
    answered = simulate([0, 1, 50], Machine(2, (10.0,), alone_ms=6.0))

    assert answered.tolist() == [6, 6 + 6 - 1, 6]


def test_deadlines_decide_the_order_of_those_that_wait():
    late_first = simulate([0, 1, 2], Machine(1, (10.0,)), deadlines_ms=[500, 500, 20], order="deadline")

    assert late_first.tolist() == [10, 29, 18]


def test_what_would_be_late_is_dropped_and_costs_nothing():
    answered = simulate([0, 1, 2], Machine(1, (10.0,)), deadlines_ms=[50, 15, 50], drop=True)

    assert np.isnan(answered[1])
    assert answered[[0, 2]].tolist() == [10, 18]


def test_an_image_that_would_be_late_does_not_take_its_batch_with_it():
    answered = simulate([0, 1, 2], Machine(1, (10.0, 16.0)), deadlines_ms=[50, 20, 50], drop=True)

    assert np.isnan(answered[1])
    assert answered[[0, 2]].tolist() == [10, 18]


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_waits_are_those_of_theory(load):
    """Pollaczek and Khinchine: a constant service time s waits load * s / (2 * (1 - load)) in the mean."""
    arrivals = poisson_arrivals_ms(load * 100, 100_000, seed=1)

    mean_ms = simulate(arrivals, Machine(1, (10.0,))).mean()

    assert mean_ms == pytest.approx(10 + load * 10 / (2 * (1 - load)), rel=0.04)


@given(ARRIVALS, MACHINE)
def test_every_request_is_answered_and_none_sooner_than_possible(arrivals, machine):
    answered = simulate(arrivals, machine)

    assert not np.isnan(answered).any()
    assert answered.min() >= machine.batch_ms[0] - 1e-6


@given(ARRIVALS, st.floats(1, 50))
def test_one_server_in_the_order_of_arrival_is_lindleys_recursion(arrivals, spent_ms):
    expected, before = [], 0.0
    for at in arrivals:
        before = max(before, at) + spent_ms
        expected.append(before - at)

    assert simulate(arrivals, Machine(1, (spent_ms,))) == pytest.approx(expected)


@given(ARRIVALS, MACHINE, st.data())
def test_nothing_is_late_where_the_late_are_dropped(arrivals, machine, data):
    deadlines = data.draw(st.lists(st.floats(1, 200), min_size=len(arrivals), max_size=len(arrivals)))

    answered = simulate(arrivals, machine, deadlines_ms=deadlines, order="deadline", drop=True)

    served = ~np.isnan(answered)
    assert (answered[served] <= np.asarray(deadlines)[served] + 1e-6).all()


def test_capacity_is_that_of_the_best_batch():
    assert Machine(2, (10.0, 16.0)).capacity == pytest.approx(250.0)
