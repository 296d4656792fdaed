"""The histogram of |x| that TensorRT's calibration is made from: collect, double, merge.

TensorRT keeps 2048 bins over ``[0, R]``. R is the first batch's exact maximum of |x|; when a later batch exceeds it,
R doubles until it does not, and at each doubling neighbouring bins are summed in pairs. This module holds the value
and that rule for arrays in memory; ``trtcalib.collect`` streams a whole model through the same kernel.

Source:
    Recovered from calibration caches that TensorRT 7.0.0 to 10.14.1 wrote (variant ``tensorrt``); NVIDIA has not
    published the code. That the range doubles over different batches rests on one LeNet cache of TensorRT 7.2.2.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trtcalib.core.tally import BINS, count_bins, flat_float32, float32_of_bits, largest_bits
from trtcalib.errors import HistogramError

__all__ = [
    "Histogram",
    "clipped_share",
    "collect_histogram",
    "double",
    "double_counts",
    "doublings_needed",
    "merge",
    "range_to_float32",
]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Histogram:
    """Counts of |x| in equal bins over ``[0, range]``, and how the range came about.

    Attributes:
        counts: int64, one per bin, read-only.
        range: float32 upper end of the last bin, in the tensor's units; ``inf`` when doubling went past float32 (the
            exact range is then ``first_max * 2**doublings``); 0 for a tensor that was all zero.
        first_max: float32 range before any doubling: the first batch's maximum of |x| that is not zero; not given, the
            range itself.
        maximum: float32 true maximum of |x| over all finite values.
        doublings: How often the range doubled.
        clamped: Values equal to the range at the moment they were counted; they went one bin lower, into the last.
    """

    counts: NDArray[np.int64]
    range: np.float32
    first_max: np.float32 = field(default=np.float32(0))
    maximum: np.float32 = field(default=np.float32(0))
    doublings: int = 0
    clamped: int = 0

    def __post_init__(self) -> None:
        counts = np.array(self.counts, dtype=np.int64)
        if counts.ndim != 1 or counts.size == 0:
            raise HistogramError(f"counts must be one-dimensional and not empty, got shape {counts.shape}")
        if (counts < 0).any():
            raise HistogramError(f"counts must not be negative, got {counts.min()}")
        if not self.range >= 0:
            raise HistogramError(f"the range must be zero or positive, got {float(self.range)!r}")
        counts.flags.writeable = False
        object.__setattr__(self, "counts", counts)
        for name in ("range", "first_max", "maximum"):
            object.__setattr__(self, name, np.float32(getattr(self, name)))
        if self.first_max == 0 and self.doublings == 0:
            object.__setattr__(self, "first_max", self.range)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Histogram):
            return NotImplemented
        mine = (self.range, self.first_max, self.maximum, self.doublings, self.clamped)
        theirs = (other.range, other.first_max, other.maximum, other.doublings, other.clamped)
        return mine == theirs and np.array_equal(self.counts, other.counts)

    __hash__ = None  # type: ignore[assignment]  # holds an array, so equal values could hash differently

    @property
    def bins(self) -> int:
        """Number of bins."""
        return int(self.counts.size)

    @property
    def width(self) -> np.float32:
        """float32 width of one bin, ``f32(range / bins)``: rounds only where the quotient is subnormal."""
        return np.float32(self.range / np.float32(self.bins))

    @property
    def exact_range(self) -> float:
        """The range, also where doubling took it past float32 and ``range`` is infinite."""
        return float(self.range) if np.isfinite(self.range) else math.ldexp(float(self.first_max), self.doublings)

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum())


def collect_histogram(batches: Iterable[ArrayLike], *, bins: int = BINS) -> Histogram:
    """Return the histogram that TensorRT would have after the given batches, in order (range policy ``doubling``).

    Args:
        batches: One array of any shape per calibration batch; cast to float32. Empty arrays contribute nothing.
        bins: Number of bins, even.

    Raises:
        HistogramError: If a value is NaN or infinite, or ``bins`` is odd or below 2.
    """
    if bins <= 0 or bins % 2:
        raise HistogramError(f"the number of bins must be even and at least 2, got {bins}")
    histogram = Histogram(counts=np.zeros(bins, np.int64), range=np.float32(0))
    for batch in batches:
        histogram = _extend(histogram, flat_float32(batch))
    return histogram


def _extend(histogram: Histogram, values: NDArray[np.float32]) -> Histogram:
    """Return the histogram after one more batch."""
    if values.size == 0:
        return histogram
    maximum = float32_of_bits(largest_bits(values))
    if not np.isfinite(maximum):
        raise HistogramError(f"a batch holds {float(maximum)!r}: histograms are of finite values")
    first_max = histogram.first_max if histogram.first_max > 0 else maximum
    total = doublings_needed(first_max, max(maximum, histogram.maximum))
    grown = double(histogram, total - histogram.doublings)
    counts, at_range = count_bins(values, float(first_max) * 2.0**total, grown.bins)
    return Histogram(
        counts=grown.counts + counts,
        range=range_to_float32(math.ldexp(float(first_max), total)),
        first_max=first_max,
        maximum=max(maximum, histogram.maximum),
        doublings=total,
        clamped=histogram.clamped + at_range,
    )


def doublings_needed(first_max: float | np.float32, maximum: float | np.float32) -> int:
    """Return the smallest k >= 0 with ``first_max * 2**k >= maximum``, exactly; 0 when ``first_max`` is 0.

    Raises:
        HistogramError: If either is negative, NaN or infinite.
    """
    if not (math.isfinite(first_max) and math.isfinite(maximum) and first_max >= 0 and maximum >= 0):
        raise HistogramError(f"ranges must be finite and not negative, got {float(first_max)!r} and {float(maximum)!r}")
    if first_max == 0 or maximum <= first_max:
        return 0
    fraction, exponent = math.frexp(float(first_max))
    wanted_fraction, wanted_exponent = math.frexp(float(maximum))
    return wanted_exponent - exponent + (wanted_fraction > fraction)


def double(histogram: Histogram, times: int = 1) -> Histogram:
    """Return the histogram over twice the range, ``times`` times: bins summed in pairs, the upper half empty.

    Raises:
        HistogramError: If ``times`` is negative or the number of bins is odd.
    """
    if times < 0:
        raise HistogramError(f"a range cannot be halved, got times={times}")
    if histogram.bins % 2:
        raise HistogramError(f"only an even number of bins can be summed in pairs, got {histogram.bins}")
    if times == 0:
        return histogram
    return Histogram(
        counts=double_counts(histogram.counts, times),
        range=range_to_float32(math.ldexp(histogram.exact_range, times)),
        first_max=histogram.first_max,
        maximum=histogram.maximum,
        doublings=histogram.doublings + times,
        clamped=histogram.clamped,
    )


def double_counts(counts: NDArray[np.int64], times: int) -> NDArray[np.int64]:
    """Return the counts after ``times`` doublings of the range; the argument is left as it was."""
    doubled = counts.copy()
    # After log2(bins) doublings everything is in bin 0, and further ones change nothing.
    for _ in range(min(times, counts.size.bit_length())):
        pairs = doubled.reshape(-1, 2).sum(axis=1)
        doubled[: pairs.size] = pairs
        doubled[pairs.size :] = 0
    return doubled


def clipped_share(histogram: Histogram, amax: float | np.float32) -> float:
    """Return the share of values in bins that lie wholly at or above ``amax``; 0 for an empty histogram."""
    if histogram.total == 0 or histogram.range == 0:
        return 0.0
    first = int(np.ceil(min(float(amax) / histogram.exact_range, 1.0) * histogram.bins))
    return int(histogram.counts[first:].sum()) / histogram.total


def merge(first: Histogram, second: Histogram) -> Histogram:
    """Return the histogram of both together; exact, because the smaller range is brought to the larger by doubling.

    The result tells its range in doublings of ``first``'s first maximum. Histograms that saw only zeros merge with
    any. Equal to collecting everything at once when both were started from the same first maximum and no value of
    one shard was clamped at a range that the other had already outgrown.

    Raises:
        HistogramError: If the numbers of bins differ, or the ranges are not a power of two apart.
    """
    if first.bins != second.bins:
        raise HistogramError(f"histograms of {first.bins} and {second.bins} bins cannot be merged")
    if first.range == 0 or second.range == 0:
        ranged, other = (second, first) if first.range == 0 else (first, second)
        apart = 0
    else:
        ranged, other = first, second
        apart = _doublings_apart(first, second)
        if apart > 0:
            ranged = double(ranged, apart)
    counts = other.counts if apart >= 0 else double_counts(other.counts, -apart)
    return Histogram(
        counts=ranged.counts + counts,
        range=ranged.range,
        first_max=ranged.first_max,
        maximum=max(first.maximum, second.maximum),
        doublings=ranged.doublings,
        clamped=first.clamped + second.clamped,
    )


def _doublings_apart(first: Histogram, second: Histogram) -> int:
    """Return how often ``first`` must double to reach ``second``'s range; negative the other way round."""
    fraction, exponent = math.frexp(first.exact_range)
    other_fraction, other_exponent = math.frexp(second.exact_range)
    if fraction != other_fraction:
        raise HistogramError(
            f"ranges {first.exact_range!r} and {second.exact_range!r} are not a power of two apart, so their histograms cannot be "
            "merged exactly: collect both from the same first maximum"
        )
    return other_exponent - exponent


def range_to_float32(range_: float) -> np.float32:
    """Round a range to float32; infinite past float32, as TensorRT's doubling would be."""
    with np.errstate(over="ignore"):
        return np.float32(range_)
