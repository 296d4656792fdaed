"""Count |x| in equal bins: the hot kernel, and what needs nothing but it.

The index of a value is ``min(floor(f32(|x| / R) * bins), bins - 1)`` in float32 with an IEEE division: no reciprocal, no
fast-math. For a number of bins that is a power of two this is TensorRT's ``floor(|x| * bins / R)``, since scaling by a
power of two is exact; it differs only where ``|x| * bins`` would overflow (|x| > 2**117 for 2048 bins), and there it
stays right.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from trtcalib.core.jit import CompiledOnFirstCall, prefetch
from trtcalib.errors import HistogramError

__all__ = [
    "BINS",
    "INFINITY_BITS",
    "bits_of_range",
    "count_bins",
    "finite_values",
    "flat_float32",
    "float32_of_bits",
    "largest_and_times",
    "largest_bits",
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

_FLOAT32_MAX = float(np.finfo(np.float32).max)


def count_bins(values: NDArray[np.float32], range_: float, bins: int = BINS) -> tuple[NDArray[np.int64], int]:
    """Return the counts of |values| in ``bins`` equal bins over ``[0, range_]``, and how many were equal to the range.

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
    flat = flat_float32(values)
    if range_ == 0:
        if flat.any():
            raise HistogramError(f"value {float(np.abs(flat).max())!r} exceeds the range 0")
        counts[0] = flat.size
        return counts, 0
    top_bits, at_range = tally(flat, range_, counts, new_scratch(bins))
    if top_bits > bits_of_range(range_):
        raise HistogramError(f"value {float(float32_of_bits(top_bits))!r} exceeds the range {range_!r}")
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


def _tally_past_float32(
    values: NDArray[np.float32], range_: float, counts: NDArray[np.int64], scratch: NDArray[np.uint32]
) -> tuple[int, int]:
    """Tally where doubling took the range past float32: halve both sides of the quotient; no value equals the range."""
    top = largest_bits(values)
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
            prefetch(values, np.uint64(start + block) + first)  # the next block; counting this one leaves memory idle
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


def float32_of_bits(bits: int) -> np.float32:
    """Return the magnitude with the given float32 bits."""
    return np.float32(np.uint32(bits).view(np.float32))


def flat_float32(array: ArrayLike) -> NDArray[np.float32]:
    """Return an array as one contiguous float32 row; float64 beyond float32 becomes infinite."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, dtype=np.float32).reshape(-1)


def finite_values(values: NDArray[np.float32]) -> tuple[NDArray[np.float32], int]:
    """Return the values without infinities, and the bits of the largest of them; with NaN all values and its bits."""
    top = largest_bits(values)
    if top == INFINITY_BITS:
        values = values[np.isfinite(values)]
        top = largest_bits(values)
    return values, top


def largest_bits(values: NDArray[np.float32]) -> int:
    """Return the bits of the largest magnitude as float32; ``INFINITY_BITS`` for infinity, more for NaN, 0 for none."""
    return _largest_kernel(values)


def _largest_python(values: NDArray[np.float32]) -> int:
    bits = values.view(np.int32)
    top = np.int32(0)
    for j in range(bits.size):
        top = max(top, bits[j] & np.int32(0x7FFFFFFF))
    return int(top)


_largest_kernel = CompiledOnFirstCall(_largest_python)


def largest_and_times(values: NDArray[np.float32]) -> tuple[int, int]:
    """Return what :func:`largest_bits` does, and how many values have that magnitude; (0, 0) for no values.

    Args:
        values: float32, one-dimensional, contiguous.
    """
    top, times = _times_kernel(values)
    return int(top), int(times)


def _times_python(values: NDArray[np.float32]) -> tuple[int, int]:
    """Count in a block only where its maximum is a new one or the same: the first scan finds it in the cache."""
    block = 4096
    top = np.int32(-1)
    times = 0
    for start in range(0, values.size, block):
        bits = values[start : start + block].view(np.int32)
        largest = np.int32(0)
        for j in range(bits.size):
            largest = max(largest, bits[j] & np.int32(0x7FFFFFFF))
        if largest < top:
            continue
        found = 0
        for j in range(bits.size):
            found += (bits[j] & np.int32(0x7FFFFFFF)) == largest
        times = times + found if largest == top else found
        top = largest
    return max(int(top), 0), times


_times_kernel = CompiledOnFirstCall(_times_python)
