"""Many small tensors at once: the channels of a weight, a row each. Every amax is what the method gives for the row's own histogram.

A channel has some hundred weights and a histogram of 2048 bins, most of them empty. The searches here leave out what cannot win, and look
logarithms up; the sums that decide are the same, in the same order.
"""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from trtcalib.core.entropy import LEVELS, MIN_OCCUPIED, TIE_TOLERANCE
from trtcalib.core.jit import CompiledOnFirstCall
from trtcalib.core.mse import TIE_TOLERANCE as MSE_TIE_TOLERANCE
from trtcalib.core.scale import INT8_MAX
from trtcalib.errors import HistogramError

__all__ = [
    "MOST_VALUES",
    "count_channels",
    "entropy_of_channels",
    "fits",
    "mse_of_channels",
    "percentile_of_channels",
]

MOST_VALUES = 1 << 16
"""Values of a row at most, so that a table of logarithms of all their numbers is small. Ours."""

_MARGIN = 1e-9
"""Share of ``sum x^2`` by which a candidate's clipped noise alone must be above the least noise to be left out: a thousand ties, and a
million times what the sums lose to rounding."""

_LEAST_NORMAL = float(np.finfo(np.float32).tiny) * (1 << 16)
_MOST = float(2**117)
"""Ranges between which neither a bin's width nor an index loses bits."""


def fits(rows: NDArray[np.float32], bins: int) -> bool:
    """Whether these functions can take the rows: a power of two of bins, not too many values each, no extreme magnitudes."""
    if rows.shape[1] == 0 or rows.shape[1] > MOST_VALUES or bins & (bins - 1) or bins <= LEVELS:
        return False
    largest = np.maximum(rows.max(axis=1), -rows.min(axis=1))
    return bool(((largest == 0) | ((largest >= _LEAST_NORMAL) & (largest <= _MOST))).all())


def count_channels(rows: NDArray[np.float32], bins: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the histogram of |x| of each row over ``[0, max]``, int64 ``[rows, bins]``, and the maxima, float32 ``[rows]``.

    As :func:`trtcalib.core.histogram.collect_histogram` counts one batch.

    Args:
        rows: float32 ``[rows, n]``, all finite; see :func:`fits`.
        bins: Bins per histogram.
    """
    counts = np.zeros((len(rows), bins), np.int64)
    maxima = np.zeros(len(rows), np.float32)
    _count_kernel(np.ascontiguousarray(rows), counts, maxima)
    return counts, maxima


def percentile_of_channels(
    counts: NDArray[np.int64], maxima: NDArray[np.float32], percentile: float
) -> NDArray[np.float32]:
    """Return :func:`trtcalib.core.percentile.percentile_amax` of each row, float32 ``[rows]``.

    Args:
        counts: From :func:`count_channels`.
        maxima: Likewise.
        percentile: In (0, 100].

    Raises:
        HistogramError: If the percentile is outside (0, 100].
    """
    if not 0 < percentile <= 100:  # noqa: PLR2004 - percent
        raise HistogramError(f"the percentile must be in (0, 100], got {percentile!r}")
    share = Fraction(Decimal(repr(float(percentile)))) / 100
    total = int(counts[0].sum())
    wanted = -((-total * share.numerator) // share.denominator)
    places = np.empty(len(counts), np.int64)
    _percentile_kernel(counts, wanted, places)
    return _edges(places + 1, counts, maxima)


def entropy_of_channels(counts: NDArray[np.int64], maxima: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return :func:`trtcalib.core.entropy.entropy_amax`, variant ``tensorrt``, of each row, float32 ``[rows]``.

    Args:
        counts: From :func:`count_channels`.
        maxima: Likewise.
    """
    places = np.empty(len(counts), np.int64)
    _entropy_kernel(counts, places)
    return _edges(places + np.float32(0.5), counts, maxima)


def mse_of_channels(counts: NDArray[np.int64], maxima: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return :func:`trtcalib.core.mse.mse_amax` of each row, float32 ``[rows]``.

    From the largest candidate downwards, until what is clipped alone is more noise than the best candidate has in all.

    Args:
        counts: From :func:`count_channels`.
        maxima: Likewise.
    """
    bins = counts.shape[1]
    low = np.arange(bins, dtype=np.float64)
    high = low + 1
    signal = np.sum(counts.astype(np.float64) * ((low * low + low * high + high * high) / 3), axis=1)
    places = np.empty(len(counts), np.int64)
    _mse_kernel(counts, signal, MSE_TIE_TOLERANCE, _MARGIN, places)
    amax: NDArray[np.float32] = (places * (maxima.astype(np.float64) / bins)).astype(np.float32)
    np.minimum(amax, maxima, out=amax)
    return amax


def _edges(bins: NDArray[np.generic], counts: NDArray[np.int64], maxima: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return ``f32(bins * f32(max / bins))``; 0 for rows of zeros."""
    width = (maxima / np.float32(counts.shape[1])).astype(np.float32)
    edges: NDArray[np.float32] = (bins.astype(np.float32) * width).astype(np.float32)
    return edges


def _count_python(rows: NDArray[np.float32], counts: NDArray[np.int64], maxima: NDArray[np.float32]) -> None:
    bins = counts.shape[1]
    for r in range(rows.shape[0]):
        largest = np.float32(0)
        for c in range(rows.shape[1]):
            magnitude = abs(rows[r, c])
            if magnitude > largest:  # noqa: PLR1730 - max() asks for NaN too, which takes most of the time
                largest = magnitude
        maxima[r] = largest
        if largest == 0:
            counts[r, 0] = rows.shape[1]
            continue
        for c in range(rows.shape[1]):
            place = np.int64(np.float32(abs(rows[r, c]) / largest) * np.float32(bins))
            counts[r, place if place < bins else bins - 1] += 1


def _percentile_python(counts: NDArray[np.int64], wanted: int, places: NDArray[np.int64]) -> None:
    for r in range(counts.shape[0]):
        inside = 0
        places[r] = counts.shape[1] - 1
        for j in range(counts.shape[1]):
            inside += counts[r, j]
            if inside >= wanted:
                places[r] = j
                break


def _entropy_python(counts: NDArray[np.int64], places: NDArray[np.int64]) -> None:  # noqa: PLR0912, PLR0915 - one kernel
    """Search as ``entropy._interval_python``, but only the candidates that are allowed: a bin that is filled, or nothing behind."""
    bins = counts.shape[1]
    upto = np.zeros(bins + 1, np.int64)
    occupied = np.zeros(bins + 1, np.int64)
    plogp = np.zeros(bins + 1)
    widest = bins // LEVELS + 2
    log_of = np.log(np.arange(1, bins + 1).astype(np.float64))
    term = np.zeros(bins * widest)
    allowed = np.empty(bins, np.uint32)
    begin = np.empty(bins, np.uint32)
    cross = np.empty(bins)
    for r in range(counts.shape[0]):
        row = counts[r].copy()
        row[0] = row[1]
        for j in range(bins):
            upto[j + 1] = upto[j] + row[j]
            occupied[j + 1] = occupied[j] + (row[j] > 0)
        found = 0
        for i in range(LEVELS, bins + 1):
            if occupied[i] >= MIN_OCCUPIED and (row[i - 1] > 0 or upto[bins] == upto[i]):
                allowed[found] = i
                found += 1
        places[r] = bins
        if found == 0:
            continue
        values = int(upto[bins])
        total = np.float64(values)
        shares = np.arange(values + 1) / total
        logs = np.zeros(shares.size)
        for k in range(1, logs.size):
            logs[k] = np.log(shares[k])
        for j in range(bins):
            plogp[j + 1] = plogp[j] + (shares[row[j]] * logs[row[j]] if row[j] > 0 else 0.0)
        for w in range(1, widest):
            for a in range(min(bins + 1 - w, (w + 1) * LEVELS)):
                inside = upto[a + w] - upto[a]
                value = 0.0
                if inside > 0:
                    value = shares[inside] * (logs[inside] - log_of[occupied[a + w] - occupied[a] - 1])
                term[a * widest + w] = value
        begin[:found] = 0
        cross[:found] = 0
        for level in range(1, LEVELS):
            for c in range(found):
                end = (np.uint32(level) * allowed[c] + np.uint32(LEVELS - 1)) // np.uint32(LEVELS)
                cross[c] += term[begin[c] * np.uint32(widest) + end - begin[c]]
                begin[c] = end
        best = np.inf
        for c in range(found):
            stop = np.int64(allowed[c])
            start = np.int64(begin[c])
            cross_term = cross[c]
            clipped = (upto[bins] - upto[stop]) / total
            inside = upto[stop] - upto[start]
            if inside > 0:
                share = inside / total
                cross_term += (share + clipped) * (logs[inside] - log_of[occupied[stop] - occupied[start] - 1])
            last = row[stop - 1] / total + clipped
            entropy = plogp[stop - 1] + (last * np.log(last) if last > 0 else 0.0)
            cross[c] = entropy - cross_term + logs[upto[stop]]
            best = min(best, cross[c])
        for c in range(found):
            if cross[c] <= best + TIE_TOLERANCE:
                places[r] = allowed[c]
                break


def _mse_python(
    counts: NDArray[np.int64],
    signal: NDArray[np.float64],
    tolerance: float,
    margin: float,
    places: NDArray[np.int64],
) -> None:
    """Search as ``mse._search_python``; the top is the number of bins, since the maximum ends the last one."""
    bins = counts.shape[1]
    excess = np.zeros(bins + 1)
    above = np.zeros(bins + 1)
    half = np.zeros(bins + 1)
    noise = np.empty(bins + 1)
    for r in range(counts.shape[0]):
        for j in range(bins - 1, -1, -1):
            above[j] = above[j + 1] + counts[r, j]
            half[j] = counts[r, j] / 2
            excess[j] = excess[j + 1] + above[j + 1] + half[j]
        best = np.inf
        count, ones, squares = 0.0, 0.0, 0.0
        lowest = bins
        for c in range(bins, 0, -1):
            if c < bins:
                squares += 2 * ones + count
                ones += count
                count += counts[r, c]
                if squares + ones + count / 3 > best + margin * signal[r]:
                    break
            step = c / INT8_MAX
            total = 0.0
            for k in range(INT8_MAX):
                x = (k + 0.5) * step
                place = np.int64(x)
                u = x - place
                total += excess[place] - u * (above[place] - u * half[place])
            noise[c] = signal[r] - 2 * step * total
            best = min(best, noise[c])
            lowest = c
        places[r] = bins
        for c in range(bins, lowest - 1, -1):
            if noise[c] <= best + tolerance * signal[r]:
                places[r] = c
                break


_count_kernel = CompiledOnFirstCall(_count_python)
_percentile_kernel = CompiledOnFirstCall(_percentile_python)
_entropy_kernel = CompiledOnFirstCall(_entropy_python)
_mse_kernel = CompiledOnFirstCall(_mse_python)
