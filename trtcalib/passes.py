"""Passes over the data: worker threads count, and a ledger that sees the samples in order settles the ranges."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trtcalib.batches import Batches, Run, in_order
from trtcalib.core.histogram import Histogram
from trtcalib.core.planned import PlannedTally, plan_ranges, planned_histogram
from trtcalib.core.ranges import Ledger, Record, Tally
from trtcalib.errors import ActivationError, DataError, HistogramError

__all__ = ["Collection", "Counter", "Observer", "Passes", "Progress", "Records"]

Progress = Callable[[int, int | None], None]
"""Called with (samples done, samples in all or ``None``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """What a pass over the data found.

    Attributes:
        histograms: Per tensor with a histogram of its own, in graph order.
        infinite: How many infinite values were left out, per tensor that had any.
        late: Tensors that were all zero in the first batch and not later.
        unseen: Candidates that ONNX Runtime did not give as floating point, or never produced.
    """

    histograms: dict[str, Histogram]
    infinite: dict[str, int] = field(default_factory=dict)
    late: tuple[str, ...] = ()
    unseen: frozenset[str] = frozenset()


class Observer(Protocol):
    """Runs the model on one feed and shows some of its tensors.

    Attributes:
        names: The tensors that every run shows, inputs first.
        inputs: How many of them are inputs.
    """

    names: list[str]
    inputs: int

    def run(self, run: Run, wanted: frozenset[str] | None) -> list[NDArray[Any] | None]:
        """Return the values of :attr:`names`, in that order; of the others ``None`` where only some are wanted."""


class Passes:
    """Passes over the data, each with all workers."""

    def __init__(
        self, observer: Observer, batches: Batches, bins: int, workers: int, progress: Progress | None
    ) -> None:
        self._observer = observer
        self._batches = batches
        self._bins = bins
        self._workers = workers
        self._progress = progress
        self._names = observer.names

    @property
    def names(self) -> list[str]:
        """The tensors that a pass shows, inputs first."""
        return self._names

    def doubling(self) -> Collection:
        """Collect under TensorRT's policy: the first batch twice, everything else once."""
        first = self._maxima(batches=1)[0]
        found, ledger = self._doubling_pass(first)
        self._check_batches([first], ledger.batch_maxima[:1])
        late = [name for name, histogram in zip(self._names, found, strict=True) if histogram is None]
        if late:
            # Their first maximum is known only now: one more pass, for them alone.
            again, _ = self._doubling_pass(ledger.first_maxima, frozenset(late))
            found = [b if a is None else a for a, b in zip(found, again, strict=True)]
        return self._collection(found, ledger, late)

    def planned(self, policy: str) -> Collection:
        """Collect under a policy that needs all maxima first: one pass for them, one to count."""
        table = self.sample_maxima()
        plans = []
        for t, name in enumerate(self._names):
            try:
                plans.append(plan_ranges(policy, table[:, t], self._bins))
            except HistogramError as error:
                raise HistogramError(f"tensor {name!r}: {error}") from error
        tallies: list[PlannedTally] = []
        ledger = Ledger(np.zeros(len(self._names), np.float32), self._bins)

        def make() -> PlannedTally:
            tallies.append(PlannedTally(plans))
            return tallies[-1]

        self._pass(make, ledger)
        self._check_batches(list(table), ledger.batch_maxima)
        found = [planned_histogram(plan, t, tallies) for t, plan in enumerate(plans)]
        return self._collection(found, ledger, [])

    def sample_maxima(self) -> NDArray[np.float32]:
        """Return the largest finite magnitude of every tensor in every batch, ``[batches, tensors]``."""
        return np.stack(self._maxima(batches=None))

    def _maxima(self, batches: int | None) -> list[NDArray[np.float32]]:
        """Return the maxima per batch."""
        unknown = np.zeros(len(self._names), np.float32)
        ledger = Ledger(unknown, self._bins)
        self._pass(lambda: Tally(unknown, self._bins), ledger, batches=batches)
        return ledger.batch_maxima

    def _check_batches(self, before: Sequence[NDArray[np.float32]], after: Sequence[NDArray[np.float32]]) -> None:
        """Refuse data whose maxima per batch are other ones than in the pass before: ranges were chosen by those."""
        for batch, (was, now) in enumerate(zip(before, after, strict=False)):
            self.check_same("the first batch" if batch == 0 else f"batch {batch}", was, now)
        self.check_length(len(before), len(after), "batches")

    def check_length(self, was: int, now: int, what: str = "samples") -> None:
        """Refuse data of another length than in the pass before.

        Raises:
            DataError: If they are.
        """
        if was != now:
            raise DataError(
                self._batches.source.name,
                f"the data gave {was} {what}, and {now} when they were read again: they must be the same",
            )

    def check_same(self, what: str, was: NDArray[np.float32], now: NDArray[np.float32]) -> None:
        """Refuse a batch or a sample whose maxima are other ones than in the pass before.

        Raises:
            DataError: If they are, naming a tensor.
        """
        if not np.array_equal(was, now):
            t = int(np.flatnonzero(was != now)[0])
            raise DataError(
                self._batches.source.name,
                f"{what} gave other values when it was read again "
                f"(tensor {self._names[t]!r} reached {float(was[t])!r}, then {float(now[t])!r}): the data must be the same on every "
                "pass, without random augmentation",
            )

    def _doubling_pass(
        self, first: NDArray[np.float32], wanted: frozenset[str] | None = None
    ) -> tuple[list[Histogram | None], Ledger]:
        ledger = Ledger(first, self._bins)
        tallies: list[Tally] = []

        def make() -> Tally:
            tallies.append(Tally(first, self._bins))
            return tallies[-1]

        self._pass(make, ledger, wanted=wanted)
        return [ledger.histogram(t, tallies) for t in range(len(self._names))], ledger

    def _collection(self, found: Sequence[Histogram | None], ledger: Ledger, late: Sequence[str]) -> Collection:
        named = zip(self._names, found, strict=True)
        return Collection(
            histograms={name: histogram for name, histogram in named if histogram is not None and histogram.total},
            infinite={name: int(n) for name, n in zip(self._names, ledger.infinite, strict=True) if n},
            late=tuple(late),
        )

    def _pass(
        self,
        make: Callable[[], Counter],
        ledger: Ledger,
        *,
        batches: int | None = None,
        wanted: frozenset[str] | None = None,
    ) -> None:
        """Run the batches through the workers and the records through the ledger, in order."""
        total = self._batches.samples
        done = 0
        with self.workers(make, wanted) as records:
            for run, record in records(self._batches.runs(batches)):
                ledger.add(run.batch, record)
                done += run.samples
                if self._progress is not None and batches is None:
                    self._progress(done, total)
        ledger.end_batch()

    @contextlib.contextmanager
    def workers(self, make: Callable[[], Counter], wanted: frozenset[str] | None = None) -> Iterator[Records]:
        """Give a function that sends inferences through all workers and yields their records, in order.

        It may be called again with further inferences; between two calls no worker is at work, so that what they counted is
        that of whole samples.

        Args:
            make: Makes a worker's counter; called once per worker.
            wanted: The only tensors to show.
        """
        local = threading.local()

        def work(run: Run) -> Record:
            if not hasattr(local, "counter"):
                local.counter = make()
            record: Record = local.counter.add(run.batch, self._observer.run(run, wanted))
            if record.nan:
                self._refuse_nan(record.nan[0], run.label)
            if record.infinite[: self._observer.inputs].any():
                t = int(np.flatnonzero(record.infinite[: self._observer.inputs])[0])
                raise DataError(
                    self._batches.source.name, f"input {self._names[t]!r} holds an infinite value", run.label
                )
            return record

        with ThreadPoolExecutor(self._workers, thread_name_prefix="trtcalib") as pool:
            yield lambda runs: in_order(pool, work, runs, 2 * self._workers)

    def _refuse_nan(self, t: int, label: str) -> None:
        if t < self._observer.inputs:
            raise DataError(self._batches.source.name, f"input {self._names[t]!r} holds NaN", label)
        raise ActivationError(self._names[t], label, "holds NaN: the model divides by zero or overflows on this sample")


class Counter(Protocol):
    """What a worker counts with."""

    def add(self, batch: int, arrays: Sequence[NDArray[Any] | None]) -> Record:
        """Count the arrays of one inference, one per tensor."""


Records = Callable[[Iterator[Run]], Iterator[tuple[Run, Record]]]
"""Sends inferences through the workers and yields their records in order."""
