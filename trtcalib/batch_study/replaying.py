"""One batch size and order after another: the histograms that TensorRT's rules give, from the two passes alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trtcalib.batch_study.configurations import Layout, shuffled
from trtcalib.batch_study.counting import RangeTally
from trtcalib.batch_study.state import Maxima, TensorPlan
from trtcalib.core.growth import Growth, SampleMaxima, final_ranges, replay, with_clamped
from trtcalib.core.histogram import Histogram, range_to_float32
from trtcalib.core.many_ranges import Intervals
from trtcalib.methods import ClipPoint, clip_point
from trtcalib.specs import Recipe

__all__ = ["Replayed", "Replays", "by_name", "late_tensors", "plan_ranges"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What one batch size and order gives, per tensor that depends on the data.

    Attributes:
        order: The samples' positions as they come.
        growth: How the ranges grew.
        histograms: ``None`` for a tensor without values.
        clips: amax and bin; ``None`` likewise.
        without: Histogram and amax without the tensor's outlier, where that ends at another range.
    """

    order: NDArray[np.int64]
    growth: Growth
    histograms: list[Histogram | None]
    clips: list[ClipPoint | None]
    without: dict[int, tuple[Histogram, ClipPoint]]


class _Outliers:
    """The one sample that alone holds each tensor's maximum, and the maxima without it."""

    def __init__(self, samples: SampleMaxima) -> None:
        largest = samples.largest
        self.rest = samples.without(largest)
        next_maximum = self.rest.maxima.max(axis=0)
        alone = (samples.maxima.max(axis=0) > next_maximum) & (len(samples.maxima) > 1)
        self.rows = np.where(alone, largest, -1)
        self.next_maximum = next_maximum


def plan_ranges(maxima: Maxima, layouts: Sequence[Layout], bins: int, rows_per_batch: int) -> list[TensorPlan]:
    """Return over which ranges each tensor must be counted, for all layouts.

    Args:
        maxima: From the first pass.
        layouts: The batch sizes and orders.
        bins: Bins per histogram.
        rows_per_batch: Samples in a row of the maxima: the model's fixed batch, or 1.
    """
    outliers = _Outliers(maxima.samples)
    tensors = maxima.sizes.size
    ranges: list[set[float]] = [set() for _ in range(tensors)]
    without: list[set[float]] = [set() for _ in range(tensors)]
    for layout in layouts:
        order = shuffled(len(maxima.labels), layout.shuffle)
        size = -(-layout.batch_size // rows_per_batch)
        found = final_ranges(maxima.samples, order, size).tolist()
        rest = final_ranges(outliers.rest, order, size).tolist()
        for t in range(tensors):
            ranges[t].add(found[t])
            if outliers.rows[t] >= 0 and 0 < rest[t] != found[t]:
                without[t].add(rest[t])
    return [
        TensorPlan(Intervals([*ranges[t], *without[t]], bins), int(outliers.rows[t]), tuple(sorted(without[t])))
        if maxima.samples.maxima[:, t].any()
        else TensorPlan(None)
        for t in range(tensors)
    ]


class Replays:
    """Gives the result of any layout; each distinct histogram is searched once."""

    def __init__(
        self, maxima: Maxima, tally: RangeTally, recipe: Recipe, rows_per_batch: int, pool: ThreadPoolExecutor
    ) -> None:
        self._maxima = maxima
        self._tally = tally
        self._recipe = recipe
        self._rows_per_batch = rows_per_batch
        self._pool = pool
        self._outliers = _Outliers(maxima.samples)
        self._clips: dict[tuple[object, ...], ClipPoint] = {}

    @property
    def searches(self) -> int:
        """How many distinct histograms were searched."""
        return len(self._clips)

    @property
    def next_maximum(self) -> NDArray[np.float32]:
        """The largest maximum among the samples but one that alone holds each tensor's, float32 ``[tensors]``."""
        found: NDArray[np.float32] = self._outliers.next_maximum
        return found

    def replay(self, layout: Layout) -> Replayed:
        """Return what a layout gives.

        Raises:
            TrtcalibError: If the recipe's method refuses a histogram.
        """
        order = shuffled(len(self._maxima.labels), layout.shuffle)
        size = -(-layout.batch_size // self._rows_per_batch)
        growth = replay(self._maxima.samples, order, size)
        rest = replay(self._outliers.rest, order, size)
        tensors = range(self._maxima.sizes.size)
        ranges, other = growth.ranges, rest.ranges
        moves = [t for t in tensors if self._outliers.rows[t] >= 0 and other[t] != ranges[t]]
        found = list(self._pool.map(lambda t: self._solved(t, growth, alone=False), tensors))
        without = list(self._pool.map(lambda t: self._solved(t, rest, alone=True), moves))
        return Replayed(
            order=order,
            growth=growth,
            histograms=[None if pair is None else pair[0] for pair in found],
            clips=[None if pair is None else pair[1] for pair in found],
            without={t: pair for t, pair in zip(moves, without, strict=True) if pair is not None},
        )

    def _solved(self, t: int, growth: Growth, *, alone: bool) -> tuple[Histogram, ClipPoint] | None:
        histogram = self._histogram(t, growth, alone=alone)
        if histogram.total == 0:
            return None
        key = (t, alone, float(histogram.first_max), histogram.doublings, frozenset(growth.clamped[t].items()))
        if key not in self._clips:
            self._clips[key] = clip_point(histogram, self._recipe)
        return histogram, self._clips[key]

    def _histogram(self, t: int, growth: Growth, *, alone: bool) -> Histogram:
        doublings = int(growth.doublings[t])
        range_ = float(growth.ranges[t])
        maximum = (self._outliers.rest if alone else self._maxima.samples).maxima[:, t].max()
        if range_ == 0:
            counts = np.zeros(self._recipe.bins, np.int64)
            counts[0] = self._maxima.sizes[t]
        else:
            plain = (self._tally.histogram_without if alone else self._tally.histogram)(t, range_)
            counts = with_clamped(plain, growth.clamped[t], doublings)
        return Histogram(
            counts=counts,
            range=range_to_float32(range_),
            first_max=growth.first_max[t],
            maximum=maximum,
            doublings=doublings,
            clamped=sum(growth.clamped[t].values()),
        )


def late_tensors(names: Sequence[str], growth: Growth) -> tuple[str, ...]:
    """Return the tensors that are all zero in the first batch and not later."""
    return tuple(name for name, first in zip(names, growth.first_batch, strict=True) if first > 0)


def by_name(names: Sequence[str], histograms: Sequence[Histogram | None]) -> Mapping[str, Histogram]:
    """Return the histograms by tensor, those without values left out."""
    return {name: histogram for name, histogram in zip(names, histograms, strict=True) if histogram is not None}
