"""Statistical significance: a confidence interval for a share, and a test for two models on the same images.

Own code, not scipy: figures must repeat to the bit, whatever version of a library is installed.
"""

import math

from modeling.metrics.evaluation import Interval

_Z_95 = 1.959963984540054  # the normal distribution's 97.5 % quantile
_EXACT_UP_TO = 1000  # differing images; above it the approximation is as good and avoids sums of long integers


def wilson_interval(num_hits: int, num_trials: int) -> Interval:
    """The 95 % confidence interval of a share; it stays in [0, 1] and is valid for few images and shares of 0 or 1.

    Wilson 1927, "Probable inference, the law of succession, and statistical inference", J. Am. Stat. Assoc. 22.

    Raises:
        ValueError: no trials, or more hits than trials.
    """
    if not 0 <= num_hits <= num_trials or num_trials == 0:
        raise ValueError(f"{num_hits} of {num_trials} is no share")
    share, z2 = num_hits / num_trials, _Z_95**2
    centre = share + z2 / (2 * num_trials)
    half = _Z_95 * math.sqrt(share * (1 - share) / num_trials + z2 / (4 * num_trials**2))
    scale = 1 + z2 / num_trials
    low = 0.0 if num_hits == 0 else (centre - half) / scale  # exact at the ends, where rounding would give 1e-17
    high = 1.0 if num_hits == num_trials else (centre + half) / scale
    return low, high


def mcnemar_p(num_only_a: int, num_only_b: int) -> float:
    """The probability, in (0, 1], that equally good models differ at least this much (McNemar 1947, Psychometrika 12).

    num_only_a, num_only_b: images that only A, or only B, gets right. For up to 1000 of them in total, the exact
    two-sided binomial test; above, chi-square with one degree of freedom and Edwards's continuity correction (1948,
    Psychometrika 13).
    """
    num_differing = num_only_a + num_only_b
    if num_differing == 0:
        return 1.0
    if num_differing <= _EXACT_UP_TO:
        tail = sum(math.comb(num_differing, count) for count in range(min(num_only_a, num_only_b) + 1))
        return min(1.0, 2 * tail / (1 << num_differing))  # a quotient of integers: exact, however small
    excess: int = max(0, abs(num_only_a - num_only_b) - 1)
    chi_square = excess * excess / num_differing
    return math.erfc(math.sqrt(chi_square / 2))
