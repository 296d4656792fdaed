"""How a tensor's range follows the batches: TensorRT's doubling in one pass, and policies planned from known maxima.

One pass with several workers gives the same counts as TensorRT's batch after batch, because doubling only moves counts:
``floor(floor(y) / 2) == floor(y / 2)``. The one exception is a value equal to the range at the moment it is counted: it
is clamped into the last bin, one lower than it would be after a later doubling. Workers hold such values apart; the
ledger, which sees the samples in order, knows the range after each batch and puts them where TensorRT would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtcalib.core.histogram import (
    INFINITY_BITS,
    Histogram,
    bits_of_range,
    double_counts,
    doublings_needed,
    new_scratch,
    tally,
)
from trtcalib.core.jit import CompiledOnFirstCall
from trtcalib.errors import HistogramError

__all__ = [
    "INFINITY_BITS",
    "POLICIES",
    "Ledger",
    "PlannedTally",
    "RangePlan",
    "Record",
    "Tally",
    "largest_bits",
    "plan_ranges",
    "planned_histogram",
]

POLICIES = ("doubling", "global", "square", "extend")
"""``doubling``
    TensorRT's: the first batch's maximum, doubled until it holds each later batch.
``global``
    The true maximum over all batches.
``square``
    A reading found in some articles: a batch beyond the range makes the range the square of its maximum (1.54, then
    2.4, gives 5.76). For comparison only: real caches refute it. Below 1, where a square would not hold the values, the
    maximum itself is taken; counts so far move whole to the bin that holds the old bin's middle.
``extend``
    pytorch-quantization's: more bins of the first batch's width. Here the number of bins is planned from the true
    maximum, and the bins divide ``[0, n * width]`` evenly.
"""

MOST_BINS = 32768
"""Bins up to which ``extend`` goes: the search's memory grows with their square."""


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
            values = _flat(array)
            if self._firsts[t] == 0:
                top, at_range = largest_bits(values), 0
                if top >= INFINITY_BITS:
                    values = values[np.isfinite(values)]
            else:
                top, at_range = tally(values, self._ranges[t], self.counts[t], self._scratch)
                if top > self._limits[t]:
                    values, top, at_range = self._grow(t, values, top)
            if top > INFINITY_BITS:
                nan.append(t)
                continue
            record.infinite[t] = array.size - values.size
            record.bits[t] = top if top < INFINITY_BITS else largest_bits(values)
            record.sizes[t] = values.size
            record.at_range[t] = at_range
            record.doublings[t] = self.doublings[t]
        return Record(record.bits, record.sizes, record.infinite, record.at_range, record.doublings, tuple(nan))

    def _grow(self, t: int, values: NDArray[np.float32], top: int) -> tuple[NDArray[np.float32], int, int]:
        """Leave out infinities, double the range until it holds the values, and count them."""
        if top > INFINITY_BITS:
            return values, top, 0
        if top == INFINITY_BITS:
            values = values[np.isfinite(values)]
            top = largest_bits(values)
        needed = doublings_needed(self._firsts[t], _float(top))
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
        batch_maxima: float32 maxima per batch, of the batches seen so far.
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
        self._waiting: list[Record] = []
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
        if record.at_range.any():
            self._waiting.append(record)

    def end_batch(self) -> None:
        """Settle the range after a batch, and with it where the values go that equalled some worker's range."""
        maxima = self._batch_bits.astype(np.uint32).view(np.float32)
        self.batch_maxima.append(maxima)
        self.first_maxima = np.where(self.first_maxima == 0, maxima, self.first_maxima)
        outgrown = np.flatnonzero((maxima > self.maxima) & (self._firsts > 0))
        self.maxima = np.maximum(self.maxima, maxima)
        for t in outgrown:
            needed = doublings_needed(self._firsts[t], self.maxima[t])
            if needed > self._doublings[t]:
                self._held[t] = double_counts(self._held[t], int(needed - self._doublings[t]))
                self._doublings[t] = needed
        for record in self._waiting:
            for t in np.flatnonzero(record.at_range):
                behind = int(self._doublings[t] - record.doublings[t])
                count = record.at_range[t]
                # At the true range a value equal to it is clamped into the last bin; at a smaller one it is no clamp.
                self._held[t, -1 if behind == 0 else self._held.shape[1] >> min(behind, 62)] += count
                self._clamped[t] += count if behind == 0 else 0
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
        with np.errstate(over="ignore"):
            range_ = np.float32(np.ldexp(np.float64(self._firsts[t]), int(self._doublings[t])))
        return Histogram(
            counts=counts,
            range=range_,
            first_max=self._firsts[t],
            maximum=self.maxima[t],
            doublings=int(self._doublings[t]),
            clamped=int(self._clamped[t]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RangePlan:
    """A tensor's ranges, planned from the maxima of all batches.

    Attributes:
        starts: The batch from which each range holds; the first is 0.
        ranges: float32 ranges, as Python floats.
        bins: Bins over the last range.
        first_max: float32 maximum of the first batch that is not all zero.
        maximum: float32 maximum over all batches.
    """

    starts: tuple[int, ...]
    ranges: tuple[float, ...]
    bins: int
    first_max: np.float32
    maximum: np.float32


def plan_ranges(policy: str, maxima: NDArray[np.float32], bins: int) -> RangePlan:
    """Plan one tensor's ranges under ``global``, ``square`` or ``extend``.

    Args:
        policy: One of these three.
        maxima: float32, the tensor's maximum per batch.
        bins: Bins per range; ``extend`` adds to them.

    Raises:
        HistogramError: If ``extend`` would need too many bins.
    """
    maximum = np.float32(maxima.max())
    first_max = np.float32(maxima[np.flatnonzero(maxima)[0]]) if maximum > 0 else np.float32(0)
    starts: tuple[int, ...] = (0,)
    ranges: tuple[float, ...] = (float(maximum),)
    if policy == "square":
        starts, ranges = _squared(maxima, first_max)
    elif policy == "extend" and maximum > first_max:
        width = float(first_max) / bins
        bins = int(min(np.ceil(float(maximum) / width), MOST_BINS + 1))
        if bins > MOST_BINS:
            raise HistogramError(
                f"range policy 'extend' needs over {MOST_BINS} bins, because the range grew from {first_max:.6g} to "
                f"{maximum:.6g}: use 'doubling'"
            )
        ranges = (max(width * bins, float(maximum)),)
    return RangePlan(starts=starts, ranges=ranges, bins=bins, first_max=first_max, maximum=maximum)


def _squared(maxima: NDArray[np.float32], first_max: np.float32) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Return from which batch each range of policy ``square`` holds, and the ranges."""
    starts, ranges = [0], [float(first_max)]
    for batch, maximum in enumerate(maxima.tolist()):
        if maximum > ranges[-1]:
            starts.append(batch)
            ranges.append(float(min(max(maximum * maximum, maximum), np.finfo(np.float32).max)))
    return tuple(starts), tuple(ranges)


class PlannedTally:
    """One worker's counts at ranges that were planned from the maxima; a tensor's ranges are kept apart until the end."""

    def __init__(self, plans: Sequence[RangePlan]) -> None:
        self._plans = plans
        self._scratch: dict[int, NDArray[np.uint32]] = {}
        self.counts: list[dict[int, NDArray[np.int64]]] = [{} for _ in plans]
        self.clamped = np.zeros(len(plans), np.int64)

    def add(self, batch: int, arrays: Sequence[NDArray[Any] | None]) -> Record:
        """Count the arrays of one inference, one per tensor."""
        record = Record.empty(len(arrays))
        for t, array in enumerate(arrays):
            if array is None or array.size == 0:
                continue
            values = _flat(array)
            if largest_bits(values) >= INFINITY_BITS:
                values = values[np.isfinite(values)]
            record.infinite[t] = array.size - values.size
            record.sizes[t] = values.size
            record.bits[t] = largest_bits(values)
            self._count(t, batch, values)
        return record

    def _count(self, t: int, batch: int, values: NDArray[np.float32]) -> None:
        plan = self._plans[t]
        epoch = int(np.searchsorted(plan.starts, batch, side="right")) - 1
        bins = plan.bins
        counts = self.counts[t].setdefault(epoch, np.zeros(bins, np.int64))
        if plan.ranges[epoch] == 0:
            counts[0] += values.size
            return
        if bins not in self._scratch:
            self._scratch[bins] = new_scratch(bins)
        _, at_range = tally(values, plan.ranges[epoch], counts, self._scratch[bins])
        counts[-1] += at_range
        self.clamped[t] += at_range


def planned_histogram(plan: RangePlan, t: int, tallies: Sequence[PlannedTally]) -> Histogram:
    """Return one tensor's histogram: each range's counts moved on to the next range, and those of all workers added."""
    counts = np.zeros(plan.bins, np.int64)
    for epoch, range_ in enumerate(plan.ranges):
        if epoch > 0:
            counts = _moved(counts, plan.ranges[epoch - 1], range_)
        for worker in tallies:
            counts = counts + worker.counts[t].get(epoch, 0)
    return Histogram(
        counts=counts,
        range=np.float32(plan.ranges[-1]),
        first_max=plan.first_max,
        maximum=plan.maximum,
        clamped=int(sum(worker.clamped[t] for worker in tallies)),
    )


def _moved(counts: NDArray[np.int64], old: float, new: float) -> NDArray[np.int64]:
    """Move each bin's count whole to the bin of a larger range that holds the bin's middle."""
    middle = (np.arange(counts.size) + 0.5) * (old / new)
    moved = np.zeros_like(counts)
    np.add.at(moved, np.minimum(middle.astype(np.int64), counts.size - 1), counts)
    return moved


def _flat(array: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, dtype=np.float32).reshape(-1)


def _float(bits: int) -> np.float32:
    return np.float32(np.uint32(bits).view(np.float32))


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
