"""Confidence intervals and tests of shares: how many of n samples are right, and how much two variants differ on them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from operator import index
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CONFIDENCE",
    "Interval",
    "PairedShares",
    "compare_shares",
    "mcnemar",
    "one_tail",
    "paired_difference",
    "wilson",
]

CONFIDENCE = 0.95
"""Confidence where the caller gives none: the customary 95 %, which the tables of the cited papers use as well."""

_REACH = 40
"""Standard deviations of a fair coin's count that :func:`mcnemar` sums over.

By Hoeffding's inequality what lies further out weighs at most exp(-800), less than the smallest double.
"""


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval, both ends included; an end that nothing is known of is infinite.

    Attributes:
        low: The lower end, in the units of what is estimated.
        high: The upper end, not below ``low``.

    Raises:
        ValueError: If ``low`` is above ``high``, or one of them is NaN.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"an interval from {self.low} to {self.high}: expected low <= high, and no NaN")

    def holds(self, value: float) -> bool:
        """Return whether ``value`` lies in the interval, ends included."""
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedShares:
    """Two shares over the same samples, and how they differ.

    Attributes:
        n: How many samples.
        first: Share of samples, 0 to 1, that are true for the first (the reference).
        second: The same for the second (the variant).
        first_interval: Wilson score interval of ``first``.
        second_interval: Wilson score interval of ``second``.
        only_first: How many samples are true for the first only.
        only_second: How many samples are true for the second only.
        difference: ``first - second``.
        difference_interval: Newcombe's interval of the difference, which knows that the samples are paired.
        p_value: McNemar's exact p: how likely so uneven a split of the samples on which the two differ is if neither is better.
    """

    n: int
    first: float
    second: float
    first_interval: Interval
    second_interval: Interval
    only_first: int
    only_second: int
    difference: float
    difference_interval: Interval
    p_value: float


def compare_shares(first: NDArray[np.bool_], second: NDArray[np.bool_], confidence: float = CONFIDENCE) -> PairedShares:
    """Return both shares of true samples and their difference, each with its interval, and McNemar's p.

    Args:
        first: Whether each sample is right for the reference, bool [n], n > 0.
        second: The same for the variant, bool [n], the samples in the same order.
        confidence: Of each of the three intervals on its own, between 0 and 1.

    Raises:
        ValueError: If the arrays are not bool [n] of one length, are empty, or ``confidence`` is not between 0 and 1.
    """
    first, second = np.asarray(first), np.asarray(second)
    if (
        first.dtype != np.bool_
        or second.dtype != np.bool_
        or first.ndim != 1
        or first.shape != second.shape
        or not first.size
    ):
        raise ValueError(
            f"found {_kind(first)} and {_kind(second)}: expected two arrays bool [n] of the same n > 0 samples"
        )
    n = first.size
    right_first, right_second = int(first.sum()), int(second.sum())
    both = int((first & second).sum())
    only_first, only_second = right_first - both, right_second - both
    neither = n - both - only_first - only_second
    return PairedShares(
        n=n,
        first=right_first / n,
        second=right_second / n,
        first_interval=wilson(right_first, n, confidence),
        second_interval=wilson(right_second, n, confidence),
        only_first=only_first,
        only_second=only_second,
        difference=(only_first - only_second) / n,
        difference_interval=paired_difference(both, only_first, only_second, neither, confidence),
        p_value=mcnemar(only_first, only_second),
    )


def wilson(successes: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """Return the Wilson score interval of a share, within 0 to 1.

    It holds ``successes / n``. The lower end is exactly 0 without a success, the upper exactly 1 without a failure. With
    ``n = 0`` nothing is known: 0 to 1.

    Raises:
        ValueError: If not ``0 <= successes <= n``, or ``confidence`` is not between 0 and 1.

    Source:
        E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927) 209-212; the
        variant without continuity correction, method 3 of R. G. Newcombe, "Two-sided confidence intervals for the single
        proportion: comparison of seven methods", Statistics in Medicine 17 (1998) 857-872.
    """
    successes, n = index(successes), index(n)
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}: expected 0 <= successes <= n")
    z2 = _z(confidence) ** 2
    if n == 0:
        return Interval(0.0, 1.0)
    share = successes / n
    middle = (successes + z2 / 2) / (n + z2)
    half = math.sqrt(z2 * (successes * (n - successes) / n + z2 / 4)) / (n + z2)
    # min and max undo rounding, which could leave the share just outside or an end just beyond 0 or 1.
    low = 0.0 if successes == 0 else max(0.0, min(middle - half, share))
    high = 1.0 if successes == n else min(1.0, max(middle + half, share))
    return Interval(low, high)


def paired_difference(
    both: int, only_first: int, only_second: int, neither: int, confidence: float = CONFIDENCE
) -> Interval:
    """Return Newcombe's interval of the difference of two shares over the same samples, first minus second.

    It joins the Wilson intervals of the two shares by their correlation phi, so it has a width where no sample tells the two
    apart, holds ``(only_first - only_second) / n``, and stays within -1 to 1. With no samples nothing is known: -1 to 1.

    Args:
        both: How many samples are right for both.
        only_first: How many are right for the first only.
        only_second: How many are right for the second only.
        neither: How many are right for neither.
        confidence: Between 0 and 1.

    Raises:
        ValueError: If a count is negative, or ``confidence`` is not between 0 and 1.

    Source:
        R. G. Newcombe, "Improved confidence intervals for the difference between binomial proportions based on paired data",
        Statistics in Medicine 17 (1998) 2635-2650, method 10: score intervals without continuity correction; where
        ``both * neither > only_first * only_second``, phi's numerator is lessened by n / 2, not below 0; phi is 0 where a
        share is 0 or 1.
    """
    counts = [index(count) for count in (both, only_first, only_second, neither)]
    if min(counts) < 0:
        raise ValueError(f"the counts {counts} of a paired comparison: expected none below 0")
    both, only_first, only_second, neither = counts
    n = sum(counts)
    first, second = wilson(both + only_first, n, confidence), wilson(both + only_second, n, confidence)
    if n == 0:
        return Interval(-1.0, 1.0)
    phi = _phi(both, only_first, only_second, neither)
    share_first, share_second = (both + only_first) / n, (both + only_second) / n
    difference = (only_first - only_second) / n
    down = _joined(share_first - first.low, second.high - share_second, phi)
    up = _joined(first.high - share_first, share_second - second.low, phi)
    return Interval(max(-1.0, difference - down), min(1.0, difference + up))


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p-value of McNemar's test, 0 to 1.

    It is ``min(1, 2 * P(X <= k))``, X the heads of ``only_first + only_second`` tosses of a fair coin and k the smaller count;
    1 where there is no such sample. Time and memory grow with the square root of the sum; below the smallest double p is 0.

    Args:
        only_first: How many samples are right for the first only.
        only_second: How many are right for the second only.

    Raises:
        ValueError: If a count is negative.

    Source:
        Q. McNemar, Psychometrika 12 (1947) 153-157, in its exact conditional form, neither the mid-p nor the asymptotic one: M.
        W. Fagerland, S. Lydersen, P. Laake, BMC Medical Research Methodology 13 (2013) 91. The sum is ours: terms relative to
        the largest one, by the recurrence C(m, i - 1) = C(m, i) * i / (m - i + 1), divided by the sum of them all.
    """
    fewer, more = sorted((index(only_first), index(only_second)))
    if fewer < 0:
        raise ValueError(f"{fewer} samples on which only one is right: expected a count of at least 0")
    tosses = fewer + more
    if tosses == 0:
        return 1.0
    middle = tosses // 2
    reached = min(middle, math.ceil(_REACH * math.sqrt(tosses) / 2))
    i = np.arange(middle, middle - reached, -1, dtype=np.float64)
    terms = np.concatenate([[1.0], np.cumprod(i / (tosses - i + 1))])
    # The upper half mirrors the lower one; an even number of tosses has its middle term once.
    total = 2 * terms.sum() - (1.0 if tosses % 2 == 0 else 0.0)
    return min(1.0, float(2 * terms[middle - fewer :].sum() / total))


def one_tail(confidence: float) -> float:
    """Return the probability that an interval leaves out on each side, ``(1 - confidence) / 2``.

    Raises:
        ValueError: If ``confidence`` is not between 0 and 1, both left out.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence of {confidence}: expected more than 0 and less than 1, such as {CONFIDENCE}")
    return (1 - confidence) / 2


def _z(confidence: float) -> float:
    """Return how many standard deviations the two-sided normal interval reaches; 1.96 for 0.95."""
    return -NormalDist().inv_cdf(one_tail(confidence))


def _phi(both: int, only_first: int, only_second: int, neither: int) -> float:
    """Return method 10's corrected correlation of the two results, -1 to 1."""
    n = both + only_first + only_second + neither
    numerator: float = both * neither - only_first * only_second
    if numerator > 0:
        numerator = max(numerator - n / 2, 0.0)
    variances = (both + only_first) * (only_second + neither) * (both + only_second) * (only_first + neither)
    return numerator / math.sqrt(variances) if variances else 0.0


def _joined(a: float, b: float, phi: float) -> float:
    """Return the length of the third side; never below ``|a - b|``, which rounding could undercut."""
    return math.sqrt(max(a * a + b * b - 2 * phi * (a * b), (a - b) ** 2))


def _kind(array: NDArray[Any]) -> str:
    return f"{array.dtype} {list(array.shape)}"
