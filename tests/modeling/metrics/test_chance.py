"""Intervals and tests against published values."""

import math
from fractions import Fraction

import pytest

from modeling.metrics.chance import exceeds_p, mcnemar_p, wilson_interval


def rounded(interval):
    return tuple(round(end, 4) for end in interval)


@pytest.mark.parametrize(
    ("num_hits", "num_trials", "expected"),
    [
        (81, 263, (0.2553, 0.3662)),  # Newcombe 1998, Statistics in Medicine 17, table I, method 3
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
        (20, 20, (0.8389, 1.0)),
        (1, 1, (0.2065, 1.0)),
    ],
)
def test_wilson_intervals_are_those_of_the_literature(num_hits, num_trials, expected):
    assert rounded(wilson_interval(num_hits, num_trials)) == expected


@pytest.mark.parametrize(("num_hits", "num_trials"), [(0, 0), (2, 1), (-1, 3)])
def test_what_is_no_share_has_no_interval(num_hits, num_trials):
    with pytest.raises(ValueError, match=f"{num_hits} of {num_trials} is not a share"):
        wilson_interval(num_hits, num_trials)


@pytest.mark.parametrize("bound", ["0.001", "0.01", "0.05", "0.3", "0.9"])
@pytest.mark.parametrize(("num_hits", "num_trials"), [(0, 1), (1, 1), (0, 99), (3, 412), (12, 412), (60, 700), (7, 7)])
def test_the_binomial_test_is_the_sum_of_exact_fractions(num_hits, num_trials, bound):
    share = Fraction(bound)
    fewer = sum(
        math.comb(num_trials, hits) * share**hits * (1 - share) ** (num_trials - hits) for hits in range(num_hits)
    )

    assert exceeds_p(num_hits, num_trials, float(bound)) == pytest.approx(float(1 - fewer), abs=1e-9)


def test_the_binomial_test_takes_millions_of_images():
    assert exceeds_p(10_000, 1_000_000, 0.01) == pytest.approx(0.5, abs=0.01)
    assert exceeds_p(10_300, 1_000_000, 0.01) == pytest.approx(0.0013, abs=0.0003)  # three standard deviations above


@pytest.mark.parametrize(("num_hits", "num_trials", "bound"), [(0, 0, 0.1), (2, 1, 0.1), (1, 2, 0.0), (1, 2, 1.0)])
def test_what_cannot_be_tested_against_a_bound_is_refused(num_hits, num_trials, bound):
    with pytest.raises(ValueError, match=f"{num_hits} of {num_trials} cannot be tested against {bound}"):
        exceeds_p(num_hits, num_trials, bound)


@pytest.mark.parametrize(
    ("num_only_a", "num_only_b", "expected"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (5, 5, 1.0),
        (0, 6, 2 / 64),
        (1, 7, 0.0703125),  # Fagerland et al. 2013, BMC Medical Research Methodology 13:91: 0.0703
        (2, 10, 2 * (1 + 12 + 66) / 4096),
        (59, 6, 2 * (1 + 65 + 2080 + 43680 + 677040 + 8259888 + 82598880) / 2**65),
    ],
)
def test_few_differences_are_tested_exactly(num_only_a, num_only_b, expected):
    assert mcnemar_p(num_only_a, num_only_b) == pytest.approx(expected, rel=1e-12)
    assert mcnemar_p(num_only_b, num_only_a) == mcnemar_p(num_only_a, num_only_b)


def test_many_differences_are_tested_by_chi_square_with_continuity_correction():
    # (|700 - 600| - 1)^2 / 1300 = 7.5392..., whose upper tail with one degree of freedom is 0.00604
    assert mcnemar_p(700, 600) == pytest.approx(0.0060361, abs=1e-6)
    assert mcnemar_p(700, 700) == 1.0
    assert mcnemar_p(10**6, 0) == pytest.approx(0.0, abs=1e-300)


def test_exact_and_approximate_test_agree_where_one_takes_over_from_the_other():
    exact, approximate = mcnemar_p(540, 460), mcnemar_p(541, 460)

    assert math.log(approximate / exact) == pytest.approx(0, abs=0.1)
