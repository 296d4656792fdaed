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

from trtcalib.core.jit import CompiledOnFirstCall
from trtcalib.errors import HistogramError

__all__ = [
    "BINS",
    "Histogram",
    "clipped_share",
    "collect_histogram",
    "count_bins",
    "double",
    "doublings_needed",
    "merge",
    "new_scratch",
    "tally",
]

BINS = 2048
"""Bins of TensorRT's histogram, whatever the range."""

INFINITY_BITS = 0x7F800000
"""Bits of +inf as float32: a larger magnitude is NaN."""

_LANES = 8
"""Private histograms that one kernel call counts in, so that runs of equal values (zeros after ReLU) do not queue."""

_LANE_PADDING = 144
"""Unused bins between lanes: lanes a multiple of 4096 bytes apart would alias in the cache and stall each other."""


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
        with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite, and is refused as such
            values = np.ascontiguousarray(batch, dtype=np.float32).ravel()
        histogram = _extend(histogram, values)
    return histogram


def _extend(histogram: Histogram, values: NDArray[np.float32]) -> Histogram:
    """Return the histogram after one more batch."""
    if values.size == 0:
        return histogram
    maximum = np.float32(np.abs(values).max())
    if not np.isfinite(maximum):
        raise HistogramError(f"a batch holds {float(maximum)!r}: histograms are of finite values")
    first_max = histogram.first_max if histogram.first_max > 0 else maximum
    total = doublings_needed(first_max, max(maximum, histogram.maximum))
    grown = double(histogram, total - histogram.doublings)
    counts, at_range = count_bins(values, float(first_max) * 2.0**total, grown.bins)
    return Histogram(
        counts=grown.counts + counts,
        range=_to_float32(math.ldexp(float(first_max), total)),
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
        range=_to_float32(math.ldexp(histogram.exact_range, times)),
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
    first = int(np.ceil(min(float(amax) / float(histogram.range), 1.0) * histogram.bins))
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


def _to_float32(range_: float) -> np.float32:
    """Round a range to float32; infinite past float32, as TensorRT's doubling would be."""
    with np.errstate(over="ignore"):
        return np.float32(range_)


def count_bins(values: NDArray[np.float32], range_: float, bins: int = BINS) -> tuple[NDArray[np.int64], int]:
    """Return the counts of |values| in ``bins`` equal bins over ``[0, range_]``, and how many were equal to the range.

    The index is ``min(floor(f32(|x| / R) * bins), bins - 1)`` in float32 with an IEEE division. For a number of bins
    that is a power of two this is TensorRT's ``floor(|x| * bins / R)``, since scaling by a power of two is exact; it
    differs only where ``|x| * bins`` would overflow (|x| > 2**117 for 2048 bins), and there it stays right.

    Args:
        values: float32, any shape, all finite.
        range_: Upper end of the last bin, > 0 unless all values are 0; may be past float32 (up to 2**128 * 2**k).
        bins: Number of bins.

    Raises:
        HistogramError: If a value is not finite or exceeds the range, or the range is negative or not finite.
    """
    if not (0 <= range_ < math.inf):
        raise HistogramError(f"the range must be finite and not negative, got {float(range_)!r}")
    counts = np.zeros(bins, np.int64)
    flat = np.ascontiguousarray(values, dtype=np.float32).reshape(-1)
    if range_ == 0:
        if flat.any():
            raise HistogramError(f"value {float(np.abs(flat).max())!r} exceeds the range 0")
        counts[0] = flat.size
        return counts, 0
    top_bits, at_range = tally(flat, range_, counts, new_scratch(bins))
    if top_bits > bits_of_range(range_):
        raise HistogramError(f"value {float(np.uint32(top_bits).view(np.float32))!r} exceeds the range {range_!r}")
    counts[-1] += at_range
    return counts, at_range


def new_scratch(bins: int = BINS) -> NDArray[np.uint32]:
    """Return the zeroed working memory of :func:`tally`; one per thread, left zeroed by each call."""
    return np.zeros((_LANES, bins + _LANE_PADDING), np.uint32)


def bits_of_range(range_: float) -> int:
    """Return the largest float32 bits that are inside the range: those of the range, or of FLT_MAX past float32."""
    with np.errstate(over="ignore"):
        return min(int(np.float32(range_).view(np.uint32)), INFINITY_BITS - 1)


def tally(
    values: NDArray[np.float32], range_: float, counts: NDArray[np.int64], scratch: NDArray[np.uint32]
) -> tuple[int, int]:
    """Add |values| to ``counts`` in place, if none exceeds the range; the streaming form of :func:`count_bins`.

    Returns:
        The bits of the largest magnitude as float32 (above ``INFINITY_BITS`` there is a NaN), and how many values
        equal the range. When the largest exceeds :func:`bits_of_range` nothing was added: double and call again.
        Values equal to the range are NOT added: whether they belong to the last bin or one higher is known only when
        the batch ends, because the batch's maximum may still double the range.

    Args:
        values: float32, one-dimensional, contiguous.
        range_: The current range, > 0.
        counts: int64, one per bin; the only argument that is changed for the caller.
        scratch: From :func:`new_scratch` with as many bins.
    """
    if range_ > _FLOAT32_MAX:
        return _tally_past_float32(values, range_, counts, scratch)
    return _tally_kernel(values, np.float32(range_), counts, scratch)


_FLOAT32_MAX = float(np.finfo(np.float32).max)


def _tally_past_float32(
    values: NDArray[np.float32], range_: float, counts: NDArray[np.int64], scratch: NDArray[np.uint32]
) -> tuple[int, int]:
    """Tally where doubling took the range past float32: halve both sides of the quotient; no value equals the range."""
    top = int(np.abs(values).max(initial=0).view(np.uint32))
    if top < INFINITY_BITS:
        _, exponent = math.frexp(range_ / _FLOAT32_MAX)
        shrink = 2.0**-exponent
        _tally_kernel(values * np.float32(shrink), np.float32(range_ * shrink), counts, scratch)
    return top, 0


def _tally_python(
    values: NDArray[np.float32], range_: np.float32, counts: NDArray[np.int64], scratch: NDArray[np.uint32]
) -> tuple[int, int]:
    """Count block by block: indices first (vectorised division), then one increment per value, in eight lanes.

    Magnitudes are compared as integers: float32 bits without the sign order as the values do, with infinity and then
    NaN on top, so that one integer maximum finds all three.
    """
    block = 1024
    few = 8192  # below this the increments cost less than adding up eight lanes
    bins = counts.size
    last_bin = np.float32(bins - 1)
    scale = np.float32(bins)
    one = np.uint32(1)
    lanes = 1 if values.size < few else 8
    lane0, lane1, lane2, lane3 = scratch[0], scratch[1], scratch[2], scratch[3]
    lane4, lane5, lane6, lane7 = scratch[4], scratch[5], scratch[6], scratch[7]
    indices = np.empty(block, np.int32)
    index = indices.view(np.uint32)
    top = np.int32(0)
    for start in range(0, values.size, block):
        part = values[start : start + block]
        bits = part.view(np.int32)
        for j in range(part.size):
            top = max(top, bits[j] & np.int32(0x7FFFFFFF))
            position = np.float32(np.abs(part[j]) / range_) * scale
            # Written so that NaN compares false and lands in the last bin: such a call is not kept.
            position = position if position < last_bin else last_bin  # noqa: FURB136 - min() would let NaN through
            indices[j] = np.int32(position)
        octets = part.size // 8 if lanes > 1 else 0
        for o in range(octets):
            first = np.uint64(8 * o)
            lane0[index[first]] += one
            lane1[index[first + np.uint64(1)]] += one
            lane2[index[first + np.uint64(2)]] += one
            lane3[index[first + np.uint64(3)]] += one
            lane4[index[first + np.uint64(4)]] += one
            lane5[index[first + np.uint64(5)]] += one
            lane6[index[first + np.uint64(6)]] += one
            lane7[index[first + np.uint64(7)]] += one
        for j in range(8 * octets, part.size):
            lane0[index[np.uint64(j)]] += one
    range_bits = np.array([range_], np.float32).view(np.int32)[0]
    for lane in range(lanes):
        if top <= range_bits:
            for j in range(bins):
                counts[j] += np.int64(scratch[lane, j])
        scratch[lane, :bins] = 0
    at_range = 0
    if top == range_bits:
        bits = values.view(np.int32)
        for j in range(bits.size):
            if (bits[j] & np.int32(0x7FFFFFFF)) == range_bits:
                at_range += 1
        counts[bins - 1] -= at_range
    return int(top), at_range


_tally_kernel = CompiledOnFirstCall(_tally_python)
