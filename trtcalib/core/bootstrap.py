"""Bootstrap intervals of means, paired differences and pooled ratios over samples; deterministic in their arguments."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trtcalib.core.intervals import CONFIDENCE, Interval, one_tail

__all__ = [
    "BLOCK_CELLS",
    "LARGEST",
    "RESAMPLES",
    "PairedMeans",
    "Statistic",
    "bootstrap",
    "compare_means",
    "mean_difference_interval",
    "mean_interval",
    "pooled_ratio",
    "ratio_interval",
]

Statistic: TypeAlias = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Weights, float64 [block, n], to one value for each row; :func:`bootstrap` says more."""

RESAMPLES = 2000
"""Resamples where the caller gives none. More move the ends of a percentile interval less."""

BLOCK_CELLS = 2**18
"""Weights drawn at a time, ours: 2 MiB of float64, which fits a processor's cache. A single resample may be larger."""

LARGEST = 1e290
"""Largest magnitude of a value, ours: sums and differences of a hundred million such values stay finite."""

_WHOLE = 9
"""Decimals to which a rank is rounded, so that 2000 * 0.05 is 100 and not the 99 of 0.04999999999999999."""

_WORD_BITS = 32
"""Bits behind each drawn sample number; a sample's probability is off by at most n / 2**32 of itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedMeans:
    """Two means over the same samples, and how they differ; every interval is by percentile bootstrap.

    Attributes:
        n: How many samples.
        first: Mean score of the first (the reference).
        second: Mean score of the second (the variant).
        first_interval: Interval of ``first``.
        second_interval: Interval of ``second``.
        difference: Mean of ``first - second`` over the samples.
        difference_interval: Interval of the difference, samples resampled in pairs.
    """

    n: int
    first: float
    second: float
    first_interval: Interval
    second_interval: Interval
    difference: float
    difference_interval: Interval


def compare_means(
    first: ArrayLike, second: ArrayLike, confidence: float = CONFIDENCE, resamples: int = RESAMPLES, seed: int = 0
) -> PairedMeans:
    """Return both mean scores and their difference, each with its bootstrap interval.

    All three come from the same resamples; :func:`bootstrap` says what the intervals are.

    Args:
        first: Score of each sample under the reference, [n].
        second: Score of each sample under the variant, [n], the samples in the same order.
        confidence: Of each of the three intervals on its own.
        resamples: How many times the samples are drawn anew.
        seed: Start of the random numbers.

    Raises:
        ValueError: As :func:`mean_interval`, and if the two lengths differ.
    """
    one, other = _paired(first=first, second=second)
    means, intervals = _mean_intervals(np.column_stack([one, other, one - other]), confidence, resamples, seed)
    return PairedMeans(
        n=one.size,
        first=means[0],
        second=means[1],
        first_interval=intervals[0],
        second_interval=intervals[1],
        difference=means[2],
        difference_interval=intervals[2],
    )


def mean_interval(
    values: ArrayLike, confidence: float = CONFIDENCE, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Return the bootstrap interval of the mean of ``values`` [n].

    Raises:
        ValueError: If ``values`` is empty, not one-dimensional, or has a value that is not finite or above :data:`LARGEST`;
            and as :func:`bootstrap`.
    """
    return _mean_intervals(_column("values", values)[:, None], confidence, resamples, seed)[1][0]


def mean_difference_interval(
    first: ArrayLike, second: ArrayLike, confidence: float = CONFIDENCE, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Return the bootstrap interval of the mean of ``first - second``, each [n] over the same samples.

    Raises:
        ValueError: As :func:`mean_interval`, and if the two lengths differ.
    """
    one, other = _paired(first=first, second=second)
    return _mean_intervals((one - other)[:, None], confidence, resamples, seed)[1][0]


def ratio_interval(
    numerators: ArrayLike,
    denominators: ArrayLike,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Return the bootstrap interval of ``sum(numerators) / sum(denominators)``, such as noise over signal.

    Each resample's sums are divided as by :func:`pooled_ratio`, so the upper end is infinite where many resamples have
    denominators of zero only. Of one sample nothing is known: 0 to infinity.

    Args:
        numerators: One value for each sample, [n], not negative.
        denominators: One value for each sample, [n], not negative.
        confidence: Between 0 and 1.
        resamples: How many times the samples are drawn anew.
        seed: Start of the random numbers.

    Raises:
        ValueError: As :func:`mean_interval`, if the two lengths differ, or if a value is negative.
    """
    over, under = _not_negative(numerators, denominators)
    drawn = _replicates(lambda weights: _divided(weights @ over, weights @ under), over.size, resamples, seed)
    found = _interval(drawn, pooled_ratio(over, under), confidence, over.size)
    return Interval(max(0.0, found.low), found.high)


def pooled_ratio(numerators: ArrayLike, denominators: ArrayLike) -> float:
    """Return ``sum(numerators) / sum(denominators)``; with a zero denominator infinity, or 0 where the numerator is 0 too.

    0 / 0 = 0 is ours: no signal and no noise is no loss.

    Raises:
        ValueError: As :func:`ratio_interval`.
    """
    over, under = _not_negative(numerators, denominators)
    return float(_divided(over.sum(keepdims=True), under.sum(keepdims=True))[0])


def bootstrap(
    statistic: Statistic, n: int, confidence: float = CONFIDENCE, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Return the percentile bootstrap interval of a statistic of ``n`` samples.

    Needs about ``40 * max(BLOCK_CELLS, n)`` bytes (10 MiB up to 262144 samples) and 8 for each resample, beside what
    ``statistic`` takes. Degenerate cases: of one sample nothing is known of the spread, so the interval is infinite both
    ways; where all samples are equal it is a point, or as wide as the rounding in ``statistic``. Of few samples it is too
    narrow: of normal scores, an interval of 95 % was measured to hold the mean 83 % of the time for 5 samples, 91 % for 10,
    92 % for 30 and 94 % for 100.

    Args:
        statistic: Takes weights, float64 [block, n], how often each sample was drawn in each resample (each row sums to n), and
            returns one value for each row, float64 [block]. A mean is ``weights @ values / n``.
        n: How many samples.
        confidence: Between 0 and 1.
        resamples: How many times n samples are drawn anew, with replacement.
        seed: Start of the random numbers; the same arguments draw the same weights on every machine and NumPy version (a
            matrix product's last bit is the machine's own).

    Raises:
        ValueError: If ``n`` or ``resamples`` is below 1, ``confidence`` is not between 0 and 1, or ``statistic`` returns another
            shape or a NaN.

    Source:
        B. Efron, R. J. Tibshirani, "An Introduction to the Bootstrap" (1993), section 13.3, the percentile interval, without
        bias correction or acceleration; its ends are the k-th smallest and k-th largest value, k = floor((resamples + 1) *
        tail) as in section 12.5, and at least 1. Deviations, ours:

        - no interpolation, so an infinite value stays one;
        - the interval is widened to hold the estimate, which rounding or very few resamples could leave out.

        Sample numbers are the high word of n times 32 bits of PCG64 (D. Lemire, "Fast random integer generation in an
        interval", 2019, without the rejection step).
    """
    if n < 1:
        raise ValueError(f"{n} samples to resample: expected at least 1")
    estimate = _checked(statistic, np.ones((1, n)))
    if estimate.ndim != 1:
        raise ValueError(f"the statistic returned the shape {list(estimate.shape)} for weights [1, {n}]: expected [1]")
    return _interval(_replicates(statistic, n, resamples, seed), float(estimate[0]), confidence, n)


def _mean_intervals(
    columns: NDArray[np.float64], confidence: float, resamples: int, seed: int
) -> tuple[list[float], list[Interval]]:
    """Return the mean of each column [n, k] and its interval, all from the same resamples."""
    # A mean lies between its values; rounding may not, and equal values shall have no spread.
    means = np.clip(columns.mean(axis=0), columns.min(axis=0), columns.max(axis=0))
    n, deviations = len(columns), columns - means
    drawn = means + _replicates(lambda weights: weights @ deviations, n, resamples, seed) / n
    return means.tolist(), [_interval(drawn[:, k], float(mean), confidence, n) for k, mean in enumerate(means)]


def _replicates(statistic: Statistic, n: int, resamples: int, seed: int) -> NDArray[np.float64]:
    """Return the statistic of every resample, [resamples, ...]."""
    if resamples < 1:
        raise ValueError(f"{resamples} resamples: expected at least 1, such as {RESAMPLES}")
    return np.concatenate([_checked(statistic, weights) for weights in _weights(n, resamples, seed)])


def _checked(statistic: Statistic, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the statistic of a block of weights; refuse a shape without a row for each of theirs, and NaN."""
    values = np.asarray(statistic(weights), dtype=np.float64)
    rows = weights.shape[0]
    if values.shape[:1] != (rows,):
        raise ValueError(f"the statistic returned the shape {list(values.shape)}: expected [{rows}], one value a row")
    if np.isnan(values).any():
        raise ValueError("the statistic returned NaN for a resample: expected a number, also where it divides 0 by 0")
    return values


def _weights(n: int, resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Yield how often each sample is drawn, float64 [block, n]; what is drawn does not depend on the size of the blocks."""
    bits = np.random.PCG64(seed)
    rows = max(1, BLOCK_CELLS // n)
    for start in range(0, resamples, rows):
        block = min(rows, resamples - start)
        words = bits.random_raw(block * ((n + 1) // 2)).astype("<u8", copy=False).view("<u4")
        drawn = words.reshape(block, -1)[:, :n].astype(np.int64)
        drawn *= n
        drawn >>= _WORD_BITS
        drawn += np.arange(0, block * n, n)[:, None]
        yield np.bincount(drawn.ravel(), minlength=block * n).reshape(block, n).astype(np.float64)


def _interval(drawn: NDArray[np.float64], estimate: float, confidence: float, n: int) -> Interval:
    """Return the ends of the middle ``confidence`` of the values drawn, widened to hold the estimate; all numbers for n = 1."""
    tail = one_tail(confidence)
    if n == 1:
        return Interval(-math.inf, math.inf)
    ordered = np.sort(drawn)
    rank = max(1, math.floor(round((drawn.size + 1) * tail, _WHOLE)))
    return Interval(min(float(ordered[rank - 1]), estimate), max(float(ordered[-rank]), estimate))


def _divided(over: NDArray[np.float64], under: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where((over == 0) & (under == 0), 0.0, over / under)


def _not_negative(numerators: ArrayLike, denominators: ArrayLike) -> list[NDArray[np.float64]]:
    over, under = _paired(numerators=numerators, denominators=denominators)
    for name, column in (("numerators", over), ("denominators", under)):
        if (column < 0).any():
            at = int(np.argmax(column < 0))
            raise ValueError(f"{name}: sample {at} is {column[at]}: expected no negative value in a pooled ratio")
    return [over, under]


def _paired(**named: ArrayLike) -> list[NDArray[np.float64]]:
    columns = [_column(name, values) for name, values in named.items()]
    if len({column.size for column in columns}) > 1:
        found = " and ".join(f"{column.size} {name}" for name, column in zip(named, columns, strict=True))
        raise ValueError(f"{found} values: expected one of each for every sample")
    return columns


def _column(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """Return the values as float64 [n], n > 0."""
    column = np.asarray(values, dtype=np.float64)
    if column.ndim != 1 or not column.size:
        raise ValueError(
            f"{name}: found the shape {list(column.shape)}: expected [n], a value for each of n > 0 samples"
        )
    usable = np.abs(column) <= LARGEST  # false for NaN
    if not usable.all():
        at = int(np.argmin(usable))
        raise ValueError(
            f"{name}: sample {at} is {column[at]}: expected finite values of at most {LARGEST:g} in magnitude"
        )
    return column
