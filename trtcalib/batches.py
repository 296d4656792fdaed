"""Samples grouped in calibration batches: which, how many, in what order, and what happens to a last partial one.

Inference runs one sample at a time (or at the model's own fixed batch); a batch only says which samples TensorRT would
have seen together, because the histogram's range grows from batch to batch.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby, islice
from typing import TypeVar

import numpy as np

from trtcalib.errors import DataError
from trtcalib.samples.feeds import DataSource, Feed, Sample, check_finite

__all__ = [
    "DEFAULT_BATCH_SIZE",
    "Batches",
    "Batching",
    "Run",
    "fits_batches",
    "full_batches",
    "in_order",
    "plan_batches",
]

Item = TypeVar("Item")
Result = TypeVar("Result")

DEFAULT_BATCH_SIZE = 32
"""Samples per batch where the model does not fix it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """How to group samples.

    Attributes:
        batch_size: Samples per batch; ``None``: the model's fixed batch, else 32, and 1 for models without a batch axis.
        max_samples: Only the first so many samples of the source are used; ``None``: all.
        shuffle: Seed of the order (NumPy's PCG64 permutation of the used samples); ``None``: the source's order.
        drop_last: Leave out a last batch that is not full.
    """

    batch_size: int | None = None
    max_samples: int | None = None
    shuffle: int | None = None
    drop_last: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """One inference.

    Attributes:
        batch: The batch it belongs to, from 0.
        samples: How many samples it holds.
        label: What an error calls it.
        load: Reads it; may be called from another thread.
    """

    batch: int
    samples: int
    label: str
    load: Callable[[], Feed]


class Batches:
    """The planned batches; every call of :meth:`runs` reads the source again from the start.

    Attributes:
        source: Where the samples come from.
        batch_size: Samples per batch.
        batching: What was asked for.
        seen: Samples that the last complete pass gave.
        left_out: Samples at its end that could not fill the model's fixed batch.
    """

    def __init__(self, source: DataSource, batching: Batching, batch_size: int, samples_per_run: int) -> None:
        self.source = source
        self.batching = batching
        self.batch_size = batch_size
        self.seen = 0
        self.left_out = 0
        self._unfilled = 0
        self._samples_per_run = samples_per_run
        self._rows_per_run = 1 if source.whole else samples_per_run

    @property
    def samples(self) -> int | None:
        """How many samples a pass gives; ``None`` where only reading tells."""
        total = self._available
        if total is None:
            return None
        unit = self.batch_size if self.batching.drop_last else self._samples_per_run
        return total - total % unit

    @property
    def dropped(self) -> int:
        """Samples that ``drop_last`` left out at the end of the last pass."""
        if not self.batching.drop_last:
            return 0
        total = self._available
        return self._unfilled if total is None else total - self.seen

    @property
    def _available(self) -> int | None:
        """How many samples there are up to ``max_samples``, whether they fill a batch or not."""
        size = self.source.size()
        if size is None:
            return None
        per_sample = self._samples_per_run // self._rows_per_run
        total = size * per_sample
        if self.batching.max_samples is None:
            return total
        # A whole feed is used whole or not at all.
        return min(total, self.batching.max_samples - self.batching.max_samples % per_sample)

    @property
    def last_is_partial(self) -> bool:
        """Whether the last batch of the last pass was not full."""
        return self.seen % self.batch_size != 0

    def runs(self, batches: int | None = None) -> Iterator[Run]:
        """Yield the inferences in order; only those of the first ``batches`` batches when given.

        Raises:
            DataError: If there are not enough samples for one inference, or for one batch with ``drop_last``.
        """
        run_limit = None if batches is None else batches * self.batch_size // self._samples_per_run
        seen = 0
        for position, samples in enumerate(islice(self._grouped(), run_limit)):
            first = position * self._samples_per_run
            seen = first + self._samples_per_run
            yield Run(first // self.batch_size, self._samples_per_run, _label(samples), _loader(samples))
        if batches is None:
            self.seen = seen
        if seen == 0:
            needed = self.batch_size if self.batching.drop_last else self._samples_per_run
            raise DataError(self.source.name, f"fewer samples than the {needed} that one batch needs")

    def numbered_runs(self) -> Iterator[tuple[int, Run]]:
        """Yield each inference with the position of its first sample; as :meth:`runs`."""
        first = 0
        for run in self.runs():
            yield first, run
            first += run.samples

    def _grouped(self) -> Iterator[list[Sample]]:
        """Yield the samples of one inference each; a rest that fills none is left out."""
        samples = self.source.samples(self._order())
        total = self.samples
        limit = self.batching.max_samples if total is None or not self.batching.drop_last else total
        taken: Iterator[Sample] = islice(
            samples, None if limit is None else limit * self._rows_per_run // self._samples_per_run
        )
        if total is None and self.batching.drop_last:
            taken = self._full(taken, self.batch_size * self._rows_per_run // self._samples_per_run)
        while len(group := list(islice(taken, self._rows_per_run))) == self._rows_per_run:
            yield group
        self.left_out = len(group)

    def _full(self, samples: Iterator[Sample], size: int) -> Iterator[Sample]:
        """Yield only whole groups of ``size``; holds one group at a time."""
        while len(group := list(islice(samples, size))) == size:
            yield from group
        self._unfilled = len(group) * self._samples_per_run // self._rows_per_run

    def _order(self) -> list[int] | None:
        """Return the sample order; the permutation is of the samples that ``max_samples`` leaves."""
        if self.batching.shuffle is None:
            return None
        size = self.source.size()
        if size is None:
            # The source says why it has no random order.
            return []
        if self.batching.max_samples is not None:
            size = min(size, self.batching.max_samples * self._rows_per_run // self._samples_per_run)
        return np.random.Generator(np.random.PCG64(self.batching.shuffle)).permutation(size).tolist()  # type: ignore[no-any-return]


def plan_batches(source: DataSource, fixed_batch: int | None, batching: Batching) -> Batches:
    """Plan the batches of a source for a model.

    Args:
        source: The samples.
        fixed_batch: The model's fixed batch; ``None`` where it is free or there is no batch axis.
        batching: What was asked for.

    Raises:
        DataError: If a number is not positive, or the batch size cannot be made of the model's fixed batch.
    """
    for name in ("batch_size", "max_samples"):
        value = getattr(batching, name)
        if value is not None and value < 1:
            raise DataError(source.name, f"{name} must be at least 1, got {value}")
    if batching.shuffle is not None and batching.shuffle < 0:
        raise DataError(source.name, f"the seed of the shuffle must not be negative, got {batching.shuffle}")
    samples_per_run = fixed_batch or 1
    default = fixed_batch or (1 if source.whole else DEFAULT_BATCH_SIZE)
    batch_size = batching.batch_size or default
    if batch_size % samples_per_run:
        raise DataError(
            source.name,
            f"the model has a fixed batch of {fixed_batch}: the batch size must be a multiple of it, got {batch_size}",
        )
    return Batches(source, batching, batch_size, samples_per_run)


def full_batches(batches: Batches, workers: int, check: Callable[[Run, Feed], None]) -> Iterator[Feed]:
    """Yield every batch as one feed, read ahead by several threads, in order.

    Args:
        batches: Planned with ``drop_last``.
        workers: Threads that read samples.
        check: Called with each inference's feed, in the order of the samples; raises where it does not fit.

    Raises:
        DataError: If the samples cannot be read.
    """
    # Twice the threads, and a batch: the next one is read while TensorRT works on this one.
    ahead = 2 * workers + batches.batch_size
    with (
        ThreadPoolExecutor(workers, thread_name_prefix="trtcalib") as pool,
        # Closed before the pool, which would wait for samples that nobody takes any more.
        contextlib.closing(in_order(pool, lambda run: run.load(), batches.runs(), ahead)) as loaded,
    ):
        for _, group in groupby(loaded, key=lambda pair: pair[0].batch):
            feeds = []
            for run, feed in group:
                check(run, feed)
                feeds.append(feed)
            yield feeds[0] if len(feeds) == 1 else {n: np.concatenate([f[n] for f in feeds]) for n in feeds[0]}


def fits_batches(source: str, shapes: Mapping[str, tuple[int, ...]]) -> Callable[[Run, Feed], None]:
    """Return a check for :func:`full_batches`: every sample fits the shapes that TensorRT runs at, and holds finite numbers.

    Args:
        source: What an error calls the data.
        shapes: Per input, the shape of a batch: kOPT's.
    """

    def check(run: Run, feed: Feed) -> None:
        for name, array in feed.items():
            # The first axis is put together from several samples; the others must be kOPT's.
            if array.shape[1:] != shapes[name][1:]:
                raise DataError(
                    source,
                    f"input {name!r} has shape {array.shape}, and TensorRT calibrates at {shapes[name]}, the profile's kOPT shape",
                    run.label,
                )
        check_finite(feed, source, run.label)

    return check


def in_order(
    pool: ThreadPoolExecutor, work: Callable[[Item], Result], items: Iterator[Item], window: int
) -> Generator[tuple[Item, Result], None, None]:
    """Yield each item with its result in the order of the items; at most ``window`` are under way or waiting.

    The pool's threads take items in order, so that each thread sees its own items in increasing order.
    """
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(work, item)))
            if len(waiting) >= window:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        for _, future in waiting:
            future.cancel()


def _label(samples: list[Sample]) -> str:
    return samples[0].label if len(samples) == 1 else f"{samples[0].label} to {samples[-1].label}"


def _loader(samples: list[Sample]) -> Callable[[], Feed]:
    if len(samples) == 1:
        return samples[0].load

    def load() -> Feed:
        feeds = [sample.load() for sample in samples]
        return {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}

    return load
