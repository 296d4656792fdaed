"""Count |x| over several ranges at once: the cost of a value hardly depends on how many ranges there are.

The bin of a value never falls when the value grows, so each bin of each range starts at a smallest float32 value, its edge. All
edges together cut the magnitudes into intervals; a value is counted once, in its interval, and every range's histogram is a
sum over intervals. That is exact: an edge is found by asking the same float32 arithmetic that :mod:`trtcalib.core.tally` counts with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trtcalib.core.jit import CompiledOnFirstCall
from trtcalib.core.tally import BINS, bits_of_range

__all__ = ["Intervals", "bin_edges", "bins_of"]

CELLS_PER_EDGE = 2
"""Cells of the grid that finds a value's interval; with more the grid falls out of the cache, with fewer the cells are searched
longer. It changes the speed alone."""

_FLOAT32_MAX = float(np.finfo(np.float32).max)

_SPREAD = 4
"""Slots that the lowest interval is counted in by turns: runs of zeros after ReLU would queue for one."""

_NEAR = 2
"""Float32 values on each side of an edge's first guess that are looked at before all of them are: the guess and the bin's own
arithmetic round twice each."""


class Intervals:
    """The intervals that the bins of several ranges cut the magnitudes into.

    Attributes:
        ranges: The distinct ranges, ascending; exact, so that some may be past float32.
        bins: Bins of each.
        size: How many counts :meth:`new_counts` gives.
    """

    def __init__(self, ranges: Sequence[float], bins: int = BINS) -> None:
        self.ranges = tuple(sorted(set(ranges)))
        self.bins = bins
        edges = {range_: bin_edges(range_, bins) for range_ in self.ranges}
        beyond = [_bits_to_float32(np.int64(bits_of_range(range_) + 1)) for range_ in self.ranges]
        self._edges = np.unique(np.concatenate([*edges.values(), np.array(beyond, np.float32)]))
        self._starts = {
            range_: np.searchsorted(self._edges, np.append(found, end)) + 1
            for (range_, found), end in zip(edges.items(), beyond, strict=True)
        }
        cells = CELLS_PER_EDGE * self._edges.size
        self._scale = cells / self.ranges[-1]
        # Infinity, the edge past float32, falls into the last cell, as every value beyond the ranges does.
        place = np.minimum(self._edges.astype(np.float64) * self._scale, cells - 1).astype(np.int64)
        self._below = np.searchsorted(place, np.arange(cells)).astype(np.uint32)
        self._padded = np.append(self._edges, np.float32(np.inf))
        self.size = self._edges.size + _SPREAD

    def new_counts(self) -> NDArray[np.int64]:
        """Return the zeroed counts that :meth:`count` adds to."""
        return np.zeros(self.size, np.int64)

    def count(self, values: NDArray[np.float32], counts: NDArray[np.int64]) -> None:
        """Add the magnitudes of values to ``counts`` in place, which alone is changed.

        Args:
            values: float32, one-dimensional, contiguous, all finite.
            counts: From :meth:`new_counts`.
        """
        _count_kernel(values, self._padded, self._below, self._scale, counts)

    def cumulated(self, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many values lie below each interval, int64, for :meth:`histogram`.

        Args:
            counts: From :meth:`new_counts`, counted.
        """
        lowest = counts[:_SPREAD].sum()
        return np.concatenate([[0, lowest], lowest + np.cumsum(counts[_SPREAD:])])

    def histogram(self, cumulated: NDArray[np.int64], range_: float) -> NDArray[np.int64]:
        """Return the counts of one of the ranges, int64, one per bin; values beyond the range are left out.

        Args:
            cumulated: From :meth:`cumulated`.
            range_: One of :attr:`ranges`.

        Raises:
            KeyError: If it is none of them.
        """
        return np.diff(cumulated[self._starts[range_]], prepend=0)


def bins_of(magnitudes: NDArray[np.float32], range_: float, bins: int = BINS) -> NDArray[np.int64]:
    """Return the bin of each magnitude, as :mod:`trtcalib.core.tally` counts it.

    Args:
        magnitudes: float32, finite, none above the range.
        range_: > 0; may be past float32.
        bins: Number of bins.
    """
    shrink = 1.0
    if range_ > _FLOAT32_MAX:
        shrink = 2.0 ** -math.frexp(range_ / _FLOAT32_MAX)[1]
    position = magnitudes * np.float32(shrink) / np.float32(range_ * shrink) * np.float32(bins)
    return np.minimum(position.astype(np.int64), bins - 1)


def bin_edges(range_: float, bins: int = BINS) -> NDArray[np.float32]:
    """Return the smallest float32 magnitude of each bin but the lowest, ascending, ``bins - 1`` of them.

    Where the range is so small that its bins are narrower than float32 values lie, several bins share an edge and all but the
    highest of them stay empty. A bin that only values beyond float32 would reach has the edge infinity.

    Args:
        range_: > 0; may be past float32.
        bins: Number of bins.
    """
    wanted = np.arange(1, bins)
    last = bits_of_range(range_)
    with np.errstate(over="ignore"):
        guess = (wanted * (range_ / bins)).astype(np.float32).view(np.uint32).astype(np.int64)
    below = np.clip(guess - _NEAR, 0, last)
    inside = np.clip(guess + _NEAR, 0, last)
    missed = (_bin_at(below, range_, bins) >= wanted) | (_bin_at(inside, range_, bins) < wanted)
    below = np.where(missed, -1, below)  # under the bits of zero
    inside = np.where(missed, last + 1, inside)
    while (inside - below > 1).any():
        middle = (below + inside) // 2
        reached = _bin_at(np.clip(middle, 0, last), range_, bins) >= wanted
        inside = np.where(reached, middle, inside)
        below = np.where(reached, below, middle)
    return _bits_to_float32(inside)


def _bin_at(bits: NDArray[np.int64], range_: float, bins: int) -> NDArray[np.int64]:
    return bins_of(_bits_to_float32(bits), range_, bins)


def _bits_to_float32(bits: NDArray[np.int64] | np.int64) -> NDArray[np.float32]:
    return np.asarray(bits).astype(np.uint32).view(np.float32)


def _count_python(
    values: NDArray[np.float32],
    edges: NDArray[np.float32],
    below: NDArray[np.uint32],
    scale: float,
    counts: NDArray[np.int64],
) -> None:
    """Find each value's interval: a grid tells how many edges lie in the cells before its own, the rest is compared.

    The grid's own rounding does not matter, as long as a larger value never lands in a lower cell.
    """
    block = 1024
    last = np.float64(below.size - 1)
    one = np.uint32(1)
    spread = np.uint32(_SPREAD - 1)
    cells = np.empty(block, np.int32)
    cell = cells.view(np.uint32)
    for start in range(0, values.size, block):
        part = values[start : start + block]
        for j in range(part.size):
            position = np.float64(np.abs(part[j])) * scale
            cells[j] = np.int32(position if position < last else last)  # noqa: FURB136 - so that it vectorises
        for j in range(part.size):
            magnitude = np.abs(part[j])
            interval = below[cell[j]]
            # Twice without a jump, because most cells hold few edges.
            interval += np.uint32(edges[interval] <= magnitude)
            interval += np.uint32(edges[interval] <= magnitude)
            while edges[interval] <= magnitude:
                interval += one
            slot = interval + spread if interval > 0 else np.uint32(j) & spread
            counts[slot] += 1


_count_kernel = CompiledOnFirstCall(_count_python)
