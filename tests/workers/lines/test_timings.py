"""What measured times make one expect."""

from workers.lines.timings import RECENT_S, BatchTimings, Timing


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_hiccup_changes_what_is_high_and_not_what_is_expected():
    clock = Clock()
    timing = Timing(5.0, clock)
    for _ in range(20):
        timing.add(4.0)
    timing.add(900.0)
    timing.add(900.0)

    assert (timing.expected_ms, timing.high_ms) == (4.0, 900.0)


def test_after_a_bad_time_without_new_measurements_the_first_estimate_counts_again():
    clock = Clock()
    timing = Timing(5.0, clock)
    for _ in range(20):
        timing.add(900.0)
    assert timing.expected_ms == 900.0

    clock.now += RECENT_S + 1

    assert (timing.expected_ms, timing.high_ms) == (5.0, 5.0)


def test_a_first_estimate_of_a_slow_moment_is_corrected_by_what_is_measured_later():
    clock = Clock()
    timing = Timing(500.0, clock)
    for _ in range(3):
        timing.add(4.0)
    assert timing.expected_ms == 4.0

    clock.now += RECENT_S + 1

    assert timing.expected_ms == 4.0


def test_one_slow_step_of_few_changes_nothing():
    clock = Clock()
    decode, device = Timing(clock=clock), Timing(5.0, clock)
    for timing in (decode, device):
        timing.add(900.0)
    assert [(timing.expected_ms, timing.high_ms) for timing in (decode, device)] == [(0.0, 0.0), (5.0, 5.0)]

    for timing in (decode, device):
        timing.add(4.0)
    clock.now += 1
    assert [(timing.expected_ms, timing.high_ms) for timing in (decode, device)] == [(4.0, 4.0), (5.0, 5.0)]


def test_without_an_estimate_few_steps_count_as_soon_as_all_are_slow_and_are_forgotten():
    clock = Clock()
    timing = Timing(clock=clock)
    for _ in range(3):
        timing.add(900.0)
    assert timing.expected_ms == 900.0
    clock.now += RECENT_S + 1

    assert timing.expected_ms == 0.0  # something is tried


def test_a_size_that_was_not_measured_is_expected_to_take_as_long_as_the_nearest():
    timings = BatchTimings()
    assert timings.expected_ms(4) == 0.0
    timings.add(1, 4.0)
    timings.add(8, 30.0)

    assert [timings.expected_ms(size) for size in (1, 2, 6, 16)] == [4.0, 4.0, 30.0, 30.0]
    assert timings.all_expected_ms() == {1: 4.0, 8: 30.0}
