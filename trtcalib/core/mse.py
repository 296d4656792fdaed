"""Mean squared error: the amax whose INT8 levels change the values least, counted on the histogram of |x|.

The search is ours: TensorRT has no such calibrator. Values are taken to be spread evenly within their bin, so that the
error is an integral and not a sum over bin centres, which would depend on how the centres fall between the levels.

With levels ``k * scale``, k = 0 .. 127, ``scale = amax / 127`` and everything beyond the last level clipped to it,
summing by parts gives

    noise = sum x^2 - 2 * sum q(x) x + sum q(x)^2 = sum x^2 - 2 * scale * sum over k = 0 .. 126 of G((k + 1/2) * scale)

where ``G(a)``, the sum of ``max(x - a, 0)``, is the twofold cumulative sum of the counts: quadratic within a bin. A
candidate so costs 127 evaluations, whatever the number of bins.

What the histogram cannot know:

- Zeros stand in bin 0 and are taken as spread over it, so that they seem to carry noise. For every amax of 254 bins or
  more that is ``width^2 / 3`` each, which favours none of them; a smaller amax seems better by up to as much per zero.
- The sign: clipping is to +-127, and -128 is never used.
- Which of two levels a value exactly between them rounds to; the error is the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trtcalib.core.histogram import Histogram, range_to_float32
from trtcalib.core.jit import CompiledOnFirstCall
from trtcalib.core.scale import INT8_MAX
from trtcalib.errors import HistogramError

__all__ = ["Noise", "mse_amax", "quantization_noise"]

TIE_TOLERANCE = 1e-12
"""Candidates whose noise is within this share of ``sum x^2`` of the least are ties. Ours: 120 dB below the signal,
far below what INT8 can reach unless the tensor is constant, and a hundred times what float64 loses in the sums."""

_BEYOND_ALL_LEVELS = 4 * INT8_MAX
"""An amax so many times the largest value rounds everything to zero (half a level is already twice that value), and so
does every larger one, infinity included."""


@dataclass(frozen=True, slots=True)
class Noise:
    """What quantization does to all counted values, as sums of squares in the square of the tensor's units.

    Attributes:
        signal: ``sum x^2``.
        clipped: ``sum (x - amax)^2`` over values beyond amax.
        rounded: ``sum (x - q(x))^2`` over values up to amax.
    """

    signal: float
    clipped: float
    rounded: float


def mse_amax(histogram: Histogram) -> np.float32:
    """Return the amax with the least expected squared error of symmetric INT8, in the tensor's units, as float32.

    Candidates are the bin edges below the true maximum, each ``f32(i * width)`` with i from 1, and the true maximum
    itself in place of everything above it: a larger amax can suit a tensor of few distinct values better, and would
    leave levels unused. Among ties (:data:`TIE_TOLERANCE`) the largest wins: a constant keeps its value. 0 for a tensor
    that was all zero. Never above the maximum, so finite also where doubling took the range past float32 (there minmax
    is finite too; entropy and percentile are infinite).

    Args:
        histogram: Magnitudes of one tensor over all calibration batches. Without ``maximum`` (a histogram made by
            hand) the upper edge of the last bin that holds a value stands for it.

    Raises:
        HistogramError: If the histogram is empty.

    Source:
        Same aim as the method ``mse`` of pytorch-quantization's histogram calibrator, and other arithmetic. That one
        fake-quantizes the bins' *centres*, weighs their squared errors with the counts in float32, tries the centres
        from bin 128 upwards as amax and takes the first that is smallest. Here the error is integrated over the bins in
        float64, candidates are edges from bin 1 upwards and the true maximum, and ties go to the largest.
    """
    if _is_zero(histogram):
        return np.float32(0)
    spread = _spread(histogram)
    candidates = np.append(np.arange(1.0, np.ceil(spread.top)), spread.top)
    noise = _noise_of_candidates(spread, candidates)
    ties = np.flatnonzero(noise <= noise.min() + TIE_TOLERANCE * spread.signal)
    amax = range_to_float32(float(candidates[ties[-1]]) * spread.width)
    return min(amax, histogram.maximum) if histogram.maximum > 0 else amax


def quantization_noise(histogram: Histogram, amax: float | np.float32) -> Noise:
    """Return the signal and the two kinds of noise that INT8 with this amax makes of it, summed over all values.

    Each piece of a bin between two neighbouring level boundaries is integrated by itself, without differences of
    large sums. Beyond the largest value there is none, so an amax from the true maximum on clips nothing.

    Args:
        histogram: As for :func:`mse_amax`.
        amax: Clip point of |x|, in the tensor's units; 0 clips everything, infinity rounds everything to 0.

    Raises:
        HistogramError: If the histogram is empty, or amax is negative or NaN.
    """
    if not amax >= 0:
        raise HistogramError(f"amax must be zero or positive, got {float(amax)!r}")
    if _is_zero(histogram):
        return Noise(0.0, 0.0, 0.0)
    spread = _spread(histogram)
    reach = min(float(amax) / spread.width, _BEYOND_ALL_LEVELS * spread.top)
    levels = np.arange(INT8_MAX + 1) * (reach / INT8_MAX)
    boundaries = np.append((levels[:-1] + levels[1:]) / 2, reach)
    low, high, mass = _pieces(spread, boundaries)
    centre = (low + high) / 2
    beyond = centre > reach
    level = levels[np.searchsorted(boundaries[:-1], centre)]
    error = mass * _mean_square(low - level, high - level) * spread.width**2
    return Noise(spread.signal * spread.width**2, float(error[beyond].sum()), float(error[~beyond].sum()))


@dataclass(frozen=True, slots=True)
class _Spread:
    """A histogram as an even density per bin, in units of a bin's width, empty bins at the end left out.

    Attributes:
        counts: float64 ``[n]``.
        edges: float64 ``[n + 1]``: 0, 1, 2 ... and last the largest value, so that the last bin can be narrower than 1,
            and of no width where all its values are equal to its lower edge.
        width: A bin's width in the tensor's units; float64, so that it is finite where the range is past float32.
    """

    counts: NDArray[np.float64]
    edges: NDArray[np.float64]
    width: float

    @property
    def top(self) -> float:
        """The largest value, in bins."""
        return float(self.edges[-1])

    @property
    def signal(self) -> float:
        """Return ``sum x^2``, in square bins."""
        low, high = self.edges[:-1], self.edges[1:]
        return float(np.sum(self.counts * _mean_square(low, high)))


def _is_zero(histogram: Histogram) -> bool:
    if histogram.total == 0:
        raise HistogramError("the histogram is empty: was any batch collected?")
    return bool(histogram.range == 0)


def _spread(histogram: Histogram) -> _Spread:
    last = int(np.flatnonzero(histogram.counts)[-1])
    width = histogram.exact_range / histogram.bins
    edges = np.arange(last + 2, dtype=np.float64)
    if histogram.maximum > 0:
        # The bin was chosen in float32, so the maximum can lie an ULP below its bin's lower edge.
        edges[-1] = np.clip(float(histogram.maximum) / width, last, last + 1)
    return _Spread(histogram.counts[: last + 1].astype(np.float64), edges, width)


def _mean_square(low: NDArray[np.float64], high: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of x^2 over ``[low, high]``, also where both are equal."""
    mean: NDArray[np.float64] = (low * low + low * high + high * high) / 3
    return mean


def _pieces(
    spread: _Spread, boundaries: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Cut the bins at the boundaries; return each piece's lower end, upper end and count."""
    cuts = np.unique(np.concatenate([spread.edges, np.minimum(boundaries, spread.top)]))
    low, high = cuts[:-1], cuts[1:]
    owner = np.searchsorted(spread.edges, low, side="right") - 1
    mass = spread.counts[owner] * (high - low) / (spread.edges[owner + 1] - spread.edges[owner])
    if spread.edges[-2] == spread.top:
        low, high, mass = np.append(low, spread.top), np.append(high, spread.top), np.append(mass, spread.counts[-1])
    return low, high, mass


def _noise_of_candidates(spread: _Spread, candidates: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the noise of each candidate amax up to ``spread.top``, in square bins; float64, and exact but for rounding.

    Within bin j, ``G(j + u) = G(j) - u * above(j) + u^2 * counts[j] / (2 * width)``, and every term of the sums that
    make G(j) is positive.
    """
    widths = np.diff(spread.edges)
    above = np.cumsum(spread.counts[::-1])[::-1]
    inside = spread.counts * widths / 2
    excess = np.cumsum((np.append(above[1:], 0.0) * widths + inside)[::-1])[::-1]
    # A last bin without width is never asked for: all boundaries lie below it.
    curvature = np.divide(spread.counts, 2 * widths, out=np.zeros_like(widths), where=widths > 0)
    table = np.stack([excess, above, curvature], axis=1)
    return _search_kernel(candidates, table, spread.signal)


def _search_python(candidates: NDArray[np.float64], table: NDArray[np.float64], signal: float) -> NDArray[np.float64]:
    """Sum G over the 127 level boundaries of every candidate; ``table`` holds a row of three coefficients per bin."""
    noise = np.empty(candidates.size)
    for c in range(candidates.size):
        step = candidates[c] / INT8_MAX
        total = 0.0
        for k in range(INT8_MAX):
            x = (k + 0.5) * step
            j = np.int64(x)
            u = x - j
            total += table[j, 0] - u * (table[j, 1] - u * table[j, 2])
        noise[c] = signal - 2 * step * total
    return noise


_search_kernel = CompiledOnFirstCall(_search_python)
