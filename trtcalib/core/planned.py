"""Range policies other than TensorRT's: planned from the maxima of all batches, then counted in a second pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtcalib.core.histogram import Histogram
from trtcalib.core.ranges import Record
from trtcalib.core.tally import finite_values, flat_float32, new_scratch, tally
from trtcalib.errors import HistogramError

__all__ = ["POLICIES", "PlannedTally", "RangePlan", "plan_ranges", "planned_histogram"]

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
            values, record.bits[t] = finite_values(flat_float32(array))
            record.infinite[t] = array.size - values.size
            record.sizes[t] = values.size
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
