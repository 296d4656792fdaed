"""The two passes of a study: the maxima of every sample, then every tensor's histogram at every range that some batch size ends at.

Memory: samples x tensors x 12 bytes for the maxima; per tensor and distinct range about 28 bytes a bin (57 kB at 2048 bins) for the
counts and the tables that find a value's place, shared by the workers; and one sample's activations per worker.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from itertools import islice
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtcalib.batch_study.state import Counted, Maxima, State, TensorPlan
from trtcalib.batches import Batches, Run
from trtcalib.core.growth import MaximaTally, SampleMaxima
from trtcalib.core.ranges import Record
from trtcalib.core.tally import finite_values, flat_float32
from trtcalib.passes import Passes, Progress
from trtcalib.provenance import portable_name

__all__ = ["RangeTally", "count_ranges", "find_maxima"]

SAVE_EVERY = 30.0
"""Seconds between two savings of what an interrupted study goes on from."""

_AT_A_TIME = 64
"""Samples between two moments at which all workers rest, so that the counts are those of whole samples."""


class RangeTally:
    """Counts at many ranges, shared by all workers: adding whole numbers in any order gives the same."""

    def __init__(self, plans: Sequence[TensorPlan]) -> None:
        self._plans = plans
        self._locks = [threading.Lock() for _ in plans]
        self._cumulated: dict[int, NDArray[np.int64]] = {}
        self.counted = Counted(
            rows=0,
            counts=[None if plan.intervals is None else plan.intervals.new_counts() for plan in plans],
            alone=[{} for _ in plans],
        )

    def add(self, row: int, arrays: Sequence[NDArray[Any] | None]) -> Record:
        """Count the arrays of one sample, one per tensor; the record tells their maxima."""
        record = Record.empty(len(arrays))
        for t, array in enumerate(arrays):
            if array is None or array.size == 0:
                continue
            values, record.bits[t] = finite_values(flat_float32(array))
            record.sizes[t] = values.size
            record.infinite[t] = array.size - values.size
            self._count(t, row, values)
        return record

    def _count(self, t: int, row: int, values: NDArray[np.float32]) -> None:
        plan, counts = self._plans[t], self.counted.counts[t]
        if plan.intervals is None or counts is None:
            return
        if row != plan.outlier:
            with self._locks[t]:
                plan.intervals.count(values, counts)
            return
        alone = plan.intervals.new_counts()
        plan.intervals.count(values, alone)
        below = plan.intervals.cumulated(alone)
        self.counted.alone[t] = {r: plan.intervals.histogram(below, r) for r in plan.outlier_ranges}
        with self._locks[t]:
            counts += alone

    def histogram(self, t: int, range_: float) -> NDArray[np.int64]:
        """Return a tensor's counts over one of its ranges; once all samples are counted."""
        plan, counts = self._plans[t], self.counted.counts[t]
        assert plan.intervals is not None
        assert counts is not None
        if t not in self._cumulated:
            self._cumulated[t] = plan.intervals.cumulated(counts)
        return plan.intervals.histogram(self._cumulated[t], range_)

    def histogram_without(self, t: int, range_: float) -> NDArray[np.int64]:
        """Return a tensor's counts over one of its ranges, the outlier left out."""
        return self.histogram(t, range_) - self.counted.alone[t][range_]


def find_maxima(passes: Passes, batches: Batches, state: State, progress: Progress | None) -> Maxima:
    """Return the maxima of every sample; goes on from those that an interrupted study saved.

    Raises:
        TrtcalibError: As :func:`trtcalib.collect.collect`.
    """
    saved = state.load_maxima(passes.names)
    if saved is not None and saved.complete:
        batches.seen, batches.left_out = saved.seen, saved.left_out
        return saved
    rows = _Rows(saved, len(passes.names))
    total = batches.samples
    last = monotonic()
    try:
        with passes.workers(MaximaTally) as records:
            for run, record in records(islice(batches.runs(), len(rows.labels), None)):
                rows.add(run, record)
                if progress is not None:
                    progress(len(rows.labels) * run.samples, None if total is None else 2 * total)
                if monotonic() - last > SAVE_EVERY:
                    state.save_maxima(rows.maxima(complete=False), passes.names)
                    last = monotonic()
    except KeyboardInterrupt:
        if rows.labels:
            state.save_maxima(rows.maxima(complete=False), passes.names)
        raise
    found = rows.maxima(complete=True, seen=batches.seen, left_out=batches.left_out)
    state.save_maxima(found, passes.names)
    return found


def count_ranges(
    passes: Passes,
    batches: Batches,
    maxima: Maxima,
    plans: Sequence[TensorPlan],
    state: State,
    progress: Progress | None,
) -> RangeTally:
    """Count every tensor over its ranges; goes on from where an interrupted study was.

    Raises:
        DataError: If the data give other maxima than in the pass before.
        TrtcalibError: As :func:`trtcalib.collect.collect`.
    """
    tally = RangeTally(plans)
    saved = state.load_counts(plans, len(maxima.labels))
    if saved is not None:
        tally.counted = saved
    last = monotonic()
    with passes.workers(lambda: tally) as records:
        for chunk in _chunks(islice(batches.runs(), tally.counted.rows, None)):
            for run, record in records(chunk):
                row = tally.counted.rows
                if row == len(maxima.labels):
                    passes.check_length(row, row + 1)
                passes.check_same(f"sample {run.label}", maxima.samples.maxima[row], _maxima_of(record))
                tally.counted.rows += 1
                if progress is not None:
                    done = (len(maxima.labels) + tally.counted.rows) * run.samples
                    progress(done, 2 * len(maxima.labels) * run.samples)
            if monotonic() - last > SAVE_EVERY:
                state.save_counts(tally.counted, plans)
                last = monotonic()
    passes.check_length(len(maxima.labels), tally.counted.rows)
    return tally


def _chunks(runs: Iterator[Run]) -> Iterator[Iterator[Run]]:
    """Cut into pieces; the first run of each is taken here, so that no piece is empty."""
    for first in runs:
        yield _prepend(first, islice(runs, _AT_A_TIME - 1))


def _prepend(first: Run, others: Iterator[Run]) -> Iterator[Run]:
    yield first
    yield from others


def _maxima_of(record: Record) -> NDArray[np.float32]:
    return record.bits.astype(np.uint32).view(np.float32)


class _Rows:
    """The rows of the maxima, as they come."""

    def __init__(self, saved: Maxima | None, tensors: int) -> None:
        self.labels = [] if saved is None else list(saved.labels)
        self._maxima = [] if saved is None else list(saved.samples.maxima)
        self._times = [] if saved is None else list(saved.samples.times)
        self._sizes = np.zeros(tensors, np.int64) if saved is None else saved.sizes.copy()
        self._infinite = np.zeros(tensors, np.int64) if saved is None else saved.infinite.copy()

    def add(self, run: Run, record: Record) -> None:
        self.labels.append(portable_name(run.label))
        self._maxima.append(_maxima_of(record))
        self._times.append(record.at_range)
        self._sizes += record.sizes
        self._infinite += record.infinite

    def maxima(self, *, complete: bool, seen: int = 0, left_out: int = 0) -> Maxima:
        return Maxima(
            samples=SampleMaxima(np.stack(self._maxima), np.stack(self._times)),
            labels=tuple(self.labels),
            sizes=self._sizes,
            infinite=self._infinite,
            complete=complete,
            seen=seen,
            left_out=left_out,
        )
