"""Statistical significance: a confidence interval for a share, and tests: of a share against a bound, of two models.

Own code, not scipy: figures must repeat to the bit, whatever version of a library is installed.
"""

import math

from modeling.metrics.evaluation import Interval

_Z_95 = 1.959963984540054  # the normal distribution's 97.5 % quantile
_NEGLIGIBLE = 1e-17  # of a sum, where its terms fall
_EXACT_UP_TO = 1000  # differing images; above it the approximation is as good and avoids sums of long integers


def wilson_interval(num_hits: int, num_trials: int) -> Interval:
    """The 95 % confidence interval of a share; it stays in [0, 1] and is valid for few images and shares of 0 or 1.

    Wilson 1927, "Probable inference, the law of succession, and statistical inference", J. Am. Stat. Assoc. 22.

    Raises:
        ValueError: no trials, or more hits than trials.
    """
    if not 0 <= num_hits <= num_trials or num_trials == 0:
        raise ValueError(f"{num_hits} of {num_trials} is not a share")
    share, z2 = num_hits / num_trials, _Z_95**2
    centre = share + z2 / (2 * num_trials)
    half = _Z_95 * math.sqrt(share * (1 - share) / num_trials + z2 / (4 * num_trials**2))
    scale = 1 + z2 / num_trials
    low = 0.0 if num_hits == 0 else (centre - half) / scale  # exact at the ends, where rounding would give 1e-17
    high = 1.0 if num_hits == num_trials else (centre + half) / scale
    return low, high


def exceeds_p(num_hits: int, num_trials: int, bound: float) -> float:
    """The probability of at least so many hits if the true share is `bound`: the one-sided exact binomial test.

    Clopper and Pearson 1934, "The use of confidence or fiducial limits illustrated in the case of the binomial",
    Biometrika 26. Rounded to nine digits, because logarithms differ in the last ones between systems.

    Raises:
        ValueError: no trials, more hits than trials, or a bound that is not in (0, 1).
    """
    if not 0 <= num_hits <= num_trials or num_trials == 0 or not 0 < bound < 1:
        raise ValueError(f"{num_hits} of {num_trials} cannot be tested against {bound}")
    odds = bound / (1 - bound)
    if num_hits > bound * num_trials:  # the terms of the upper tail fall from its first one on
        term, upper, hits = _binomial(num_hits, num_trials, bound), 0.0, num_hits
        while term > _NEGLIGIBLE * upper and hits <= num_trials:
            upper += term
            term *= odds * (num_trials - hits) / (hits + 1)
            hits += 1
        return round(upper, 9)
    lower, hits = 0.0, num_hits - 1
    term = _binomial(hits, num_trials, bound) if num_hits else 0.0
    while term > _NEGLIGIBLE * lower:
        lower += term
        term *= hits / (odds * (num_trials - hits + 1))
        hits -= 1
    return round(1 - lower, 9)


def _binomial(num_hits: int, num_trials: int, share: float) -> float:
    """The probability of exactly so many hits."""
    ways = math.lgamma(num_trials + 1) - math.lgamma(num_hits + 1) - math.lgamma(num_trials - num_hits + 1)
    return math.exp(ways + num_hits * math.log(share) + (num_trials - num_hits) * math.log1p(-share))


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
