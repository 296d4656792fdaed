"""How ranges grow in any batch size and order, replayed from the samples' maxima: no batch is run again.

TensorRT's range starts at the first batch's maximum and doubles until it holds each later one, so that it follows from the
maxima of the samples alone. And since doubling only moves counts (``floor(floor(y) / 2) == floor(y / 2)``), the final histogram is
the plain one at the final range, with one exception: a value equal to the range at the moment it was counted went into the last
bin, one bin lower than it would go at the final range. Such a value is the maximum of its sample, so how often each sample holds
its maximum tells how many there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtcalib.core.ranges import Record
from trtcalib.core.tally import INFINITY_BITS, finite_values, flat_float32, largest_and_times

__all__ = ["Growth", "MaximaTally", "SampleMaxima", "final_ranges", "replay", "with_clamped"]


@dataclass(frozen=True, slots=True)
class SampleMaxima:
    """What a pass over the samples leaves of them.

    Attributes:
        maxima: float32 ``[samples, tensors]``, the largest finite magnitude; 0 where a sample has no values.
        times: int64 ``[samples, tensors]``, how many values have that magnitude.
    """

    maxima: NDArray[np.float32]
    times: NDArray[np.int64]

    @property
    def largest(self) -> NDArray[np.int64]:
        """The first sample that holds each tensor's maximum, int64 ``[tensors]``."""
        first: NDArray[np.int64] = self.maxima.argmax(axis=0)
        return first

    def without(self, samples: NDArray[np.int64]) -> SampleMaxima:
        """Return the maxima with one sample emptied per tensor.

        Args:
            samples: int64 ``[tensors]``, which.
        """
        maxima = self.maxima.copy()
        maxima[samples, np.arange(samples.size)] = 0
        return SampleMaxima(maxima, self.times)


class MaximaTally:
    """One worker of the pass for the maxima: keeps nothing, since each record tells all."""

    def add(self, batch: int, arrays: Sequence[NDArray[Any] | None]) -> Record:
        """Return the maxima of one inference; ``at_range`` says how many values have them."""
        del batch  # a sample's maximum is its own
        record = Record.empty(len(arrays))
        nan: list[int] = []
        for t, array in enumerate(arrays):
            if array is None or array.size == 0:
                continue
            values = flat_float32(array)
            top, times = largest_and_times(values)
            if top == INFINITY_BITS:
                values, _ = finite_values(values)
                top, times = largest_and_times(values)
            if top > INFINITY_BITS:
                nan.append(t)
                continue
            record.bits[t] = top
            record.at_range[t] = times
            record.sizes[t] = values.size
            record.infinite[t] = array.size - values.size
        return Record(record.bits, record.sizes, record.infinite, record.at_range, record.doublings, tuple(nan))


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """How each tensor's range grew in one batch size and order.

    Attributes:
        first_batch: int64 ``[tensors]``, the first batch that is not all zero, from 0; -1 where all are.
        first_max: float32 ``[tensors]``, its maximum: the range before any doubling; 0 where all are zero.
        batch_maxima: float32 ``[batches, tensors]``.
        after: int16 ``[batches, tensors]``, how often the range has doubled after each batch.
        clamped: Per tensor, how many values equalled the range when they were counted, by the doublings at that moment.
    """

    first_batch: NDArray[np.int64]
    first_max: NDArray[np.float32]
    batch_maxima: NDArray[np.float32]
    after: NDArray[np.int16]
    clamped: tuple[Mapping[int, int], ...]

    @property
    def doublings(self) -> NDArray[np.int64]:
        """How often each range doubled in all, int64 ``[tensors]``."""
        last: NDArray[np.int64] = self.after[-1].astype(np.int64)
        return last

    @property
    def ranges(self) -> NDArray[np.float64]:
        """The final ranges, float64 ``[tensors]``: exact, also past float32."""
        exact: NDArray[np.float64] = np.ldexp(self.first_max.astype(np.float64), self.doublings)
        return exact


def replay(samples: SampleMaxima, order: NDArray[np.int64], batch_size: int) -> Growth:
    """Replay how the ranges grow when the samples come in an order, in batches of a size; the last batch may be partial.

    Args:
        samples: Of all samples.
        order: int64, the positions of the samples as they come.
        batch_size: Samples per batch, at least 1.
    """
    maxima = samples.maxima[order]
    batches = np.maximum.reduceat(maxima, np.arange(0, order.size, batch_size), axis=0)
    some = batches > 0
    first_batch = np.where(some.any(axis=0), some.argmax(axis=0), -1)
    first_max = batches[first_batch, np.arange(batches.shape[1])]
    after = _doublings_needed(first_max, np.maximum.accumulate(batches, axis=0))
    ranges = np.ldexp(first_max.astype(np.float64), after)
    at_range = (maxima == ranges[np.arange(order.size) // batch_size]) & (maxima > 0)
    clamped: list[dict[int, int]] = [{} for _ in range(batches.shape[1])]
    for row, t in np.argwhere(at_range).tolist():
        level = int(after[row // batch_size, t])
        clamped[t][level] = clamped[t].get(level, 0) + int(samples.times[order[row], t])
    return Growth(
        first_batch=first_batch, first_max=first_max, batch_maxima=batches, after=after, clamped=tuple(clamped)
    )


def final_ranges(samples: SampleMaxima, order: NDArray[np.int64], batch_size: int) -> NDArray[np.float64]:
    """Return the ranges that :func:`replay` ends at, float64 ``[tensors]``, without what happens in between.

    Args:
        samples: Of all samples.
        order: int64, the positions of the samples as they come.
        batch_size: Samples per batch, at least 1.
    """
    batches = np.maximum.reduceat(samples.maxima[order], np.arange(0, order.size, batch_size), axis=0)
    first_max = batches[(batches > 0).argmax(axis=0), np.arange(batches.shape[1])]
    ranges: NDArray[np.float64] = np.ldexp(
        first_max.astype(np.float64), _doublings_needed(first_max, batches.max(axis=0))
    )
    return ranges


def with_clamped(counts: NDArray[np.int64], clamped: Mapping[int, int], doublings: int) -> NDArray[np.int64]:
    """Return the histogram that batch after batch would have given, from the plain one at the final range.

    Args:
        counts: int64, one per bin, an even number of bins; left as it was.
        clamped: How many values equalled the range when they were counted, by the doublings at that moment.
        doublings: At the end.
    """
    moved = counts.copy()
    for level, times in clamped.items():
        behind = doublings - level
        # The last bin, and the one that the value has at the final range, both after so many sums in pairs.
        moved[counts.size >> behind if behind else -1] -= times
        moved[(counts.size - 1) >> behind] += times
    return moved


def _doublings_needed(first: NDArray[np.float32], maxima: NDArray[np.float32]) -> NDArray[np.int16]:
    """Return the smallest k >= 0 with ``first * 2**k >= maxima``, exactly; 0 where ``first`` is 0. At most 277."""
    fraction, exponent = np.frexp(first)
    wanted_fraction, wanted_exponent = np.frexp(maxima)
    needed = wanted_exponent - exponent + (wanted_fraction > fraction)
    return np.where((first > 0) & (maxima > first), needed, 0).astype(np.int16)
