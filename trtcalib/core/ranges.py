"""How a tensor's range follows the batches: TensorRT's doubling, streamed in one pass by several workers.

One pass with several workers gives the same counts as TensorRT's batch after batch, because doubling only moves counts:
``floor(floor(y) / 2) == floor(y / 2)``. The one exception is a value equal to the range at the moment it is counted: it
is clamped into the last bin, one lower than it would be after a later doubling. Workers hold such values apart; the
ledger, which sees the samples in order, knows the range after each batch and puts them where TensorRT would.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtcalib.core.histogram import Histogram, double_counts, doublings_needed, range_to_float32
from trtcalib.core.tally import (
    INFINITY_BITS,
    bits_of_range,
    finite_values,
    flat_float32,
    float32_of_bits,
    new_scratch,
    tally,
)

__all__ = ["Ledger", "Record", "Tally"]


@dataclass(frozen=True, slots=True)
class Record:
    """What one inference showed, per tensor.

    Attributes:
        bits: int64, the bits of the largest finite magnitude as float32.
        sizes: int64, how many finite values.
        infinite: int64, how many infinite values, which are left out.
        at_range: int64, how many values equalled the worker's range; held apart.
        doublings: int64, the worker's doublings at that moment.
        nan: Positions of tensors that hold a NaN.
    """

    bits: NDArray[np.int64]
    sizes: NDArray[np.int64]
    infinite: NDArray[np.int64]
    at_range: NDArray[np.int64]
    doublings: NDArray[np.int64]
    nan: tuple[int, ...] = ()

    @classmethod
    def empty(cls, tensors: int) -> Record:
        """Make a record of no values."""
        bits, sizes, infinite, at_range, doublings = np.zeros((5, tensors), np.int64)
        return cls(bits, sizes, infinite, at_range, doublings)


class Tally:
    """One worker's counts, each tensor at a range of its own that doubles as needed; samples must come in order.

    A first maximum of 0 means that the range is not known (yet): then only maxima are recorded.
    """

    def __init__(self, first_maxima: NDArray[np.float32], bins: int) -> None:
        self.counts = np.zeros((first_maxima.size if first_maxima.any() else 0, bins), np.int64)
        self.doublings = np.zeros(first_maxima.size, np.int64)
        self._ranges = [float(first) for first in first_maxima]
        self._limits = [bits_of_range(first) for first in self._ranges]
        self._firsts = list(self._ranges)
        self._scratch = new_scratch(bins)

    def add(self, batch: int, arrays: Sequence[NDArray[Any] | None]) -> Record:
        """Count the arrays of one inference, one per tensor (``None`` for one that was not produced)."""
        del batch  # the range follows the data alone
        record = Record.empty(len(arrays))
        nan: list[int] = []
        for t, array in enumerate(arrays):
            if array is None or array.size == 0:
                continue
            values = flat_float32(array)
            if self._firsts[t] == 0:
                (values, top), at_range = finite_values(values), 0
            else:
                top, at_range = tally(values, self._ranges[t], self.counts[t], self._scratch)
                if top > self._limits[t]:
                    values, top, at_range = self._grow(t, values, top)
            if top > INFINITY_BITS:
                nan.append(t)
                continue
            record.infinite[t] = array.size - values.size
            record.bits[t] = top
            record.sizes[t] = values.size
            record.at_range[t] = at_range
            record.doublings[t] = self.doublings[t]
        return Record(record.bits, record.sizes, record.infinite, record.at_range, record.doublings, tuple(nan))

    def _grow(self, t: int, values: NDArray[np.float32], top: int) -> tuple[NDArray[np.float32], int, int]:
        """Leave out infinities, double the range until it holds the values, and count them."""
        if top >= INFINITY_BITS:
            values, top = finite_values(values)
        if top > INFINITY_BITS:
            return values, top, 0
        needed = doublings_needed(self._firsts[t], float32_of_bits(top))
        if needed > self.doublings[t]:
            self.counts[t] = double_counts(self.counts[t], int(needed - self.doublings[t]))
            self.doublings[t] = needed
            self._ranges[t] = self._firsts[t] * 2.0**needed
            self._limits[t] = bits_of_range(self._ranges[t])
        top, at_range = tally(values, self._ranges[t], self.counts[t], self._scratch)
        return values, top, at_range


class Ledger:
    """Sees the records in the order of the samples and knows each tensor's true range after each batch.

    Attributes:
        maxima: float32 largest finite magnitude per tensor.
        first_maxima: float32 maximum of the first batch in which the tensor was not all zero.
        batch_maxima: float32 maxima per batch where no range is known yet; else of the first batch alone.
        infinite: int64 infinite values left out per tensor.
        sizes: int64 values per tensor.
    """

    def __init__(self, first_maxima: NDArray[np.float32], bins: int) -> None:
        tensors = first_maxima.size
        self._firsts = first_maxima
        self._held = np.zeros((tensors if first_maxima.any() else 0, bins), np.int64)
        self._doublings = np.zeros(tensors, np.int64)
        self._clamped = np.zeros(tensors, np.int64)
        self._batch = 0
        self._batch_bits = np.zeros(tensors, np.int64)
        self._waiting: dict[tuple[int, int], int] = {}
        self.batch_maxima: list[NDArray[np.float32]] = []
        self.first_maxima = np.zeros(tensors, np.float32)
        self.maxima = np.zeros(tensors, np.float32)
        self.infinite = np.zeros(tensors, np.int64)
        self.sizes = np.zeros(tensors, np.int64)

    def add(self, batch: int, record: Record) -> None:
        """Take the record of the next inference."""
        if batch != self._batch:
            self.end_batch()
            self._batch = batch
        np.maximum(self._batch_bits, record.bits, out=self._batch_bits)
        self.infinite += record.infinite
        self.sizes += record.sizes
        for t in np.flatnonzero(record.at_range).tolist():
            key = (t, int(record.doublings[t]))
            self._waiting[key] = self._waiting.get(key, 0) + int(record.at_range[t])

    def end_batch(self) -> None:
        """Settle the range after a batch, and with it where the values go that equalled some worker's range."""
        maxima = self._batch_bits.astype(np.uint32).view(np.float32)
        if not self.batch_maxima or not self._held.size:
            self.batch_maxima.append(maxima)
        self.first_maxima = np.where(self.first_maxima == 0, maxima, self.first_maxima)
        outgrown = np.flatnonzero((maxima > self.maxima) & (self._firsts > 0))
        self.maxima = np.maximum(self.maxima, maxima)
        for t in outgrown:
            needed = doublings_needed(self._firsts[t], self.maxima[t])
            if needed > self._doublings[t]:
                self._held[t] = double_counts(self._held[t], int(needed - self._doublings[t]))
                self._doublings[t] = needed
        for (tensor, doublings), count in self._waiting.items():
            behind = int(self._doublings[tensor]) - doublings
            # At the true range a value equal to it is clamped into the last bin; at a smaller one it is no clamp.
            self._held[tensor, -1 if behind == 0 else self._held.shape[1] >> behind] += count
            self._clamped[tensor] += count if behind == 0 else 0
        self._waiting.clear()
        self._batch_bits = np.zeros_like(self._batch_bits)

    def histogram(self, t: int, tallies: Sequence[Tally]) -> Histogram | None:
        """Return a tensor's histogram; ``None`` where its range is not known although it was not all zero."""
        bins = self._held.shape[1]
        counts = np.zeros(bins, np.int64)
        if self._firsts[t] == 0:
            counts[0] = self.sizes[t]
            return None if self.maxima[t] > 0 else Histogram(counts=counts, range=np.float32(0))
        counts += self._held[t]
        for worker in tallies:
            counts += double_counts(worker.counts[t], int(self._doublings[t] - worker.doublings[t]))
        return Histogram(
            counts=counts,
            range=range_to_float32(math.ldexp(float(self._firsts[t]), int(self._doublings[t]))),
            first_max=self._firsts[t],
            maximum=self.maxima[t],
            doublings=int(self._doublings[t]),
            clamped=int(self._clamped[t]),
        )
