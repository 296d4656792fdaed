"""Which batch sizes and orders are studied, and how the samples come in each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["ALL", "BatchSizes", "Layout", "default_sizes", "plan_layouts", "shuffled"]

ALL: Literal["all"] = "all"
"""All samples in one batch: the reference, since no order changes it and its range is the true maximum."""

BatchSizes = Sequence[int | Literal["all"]]

_DEFAULT_RUNS = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class Layout:
    """One batch size in one order.

    Attributes:
        name: ``b8``, ``b8-s3`` for the order of ``--shuffle 3``, or ``all``.
        batch_size: Samples per batch.
        shuffle: Seed of the order; ``None``: the source's.
    """

    name: str
    batch_size: int
    shuffle: int | None = None


def default_sizes(per_run: int) -> BatchSizes:
    """Return the batch sizes that are studied where none are named: multiples of what the model runs at a time, and all."""
    return [*(runs * per_run for runs in _DEFAULT_RUNS), ALL]


def plan_layouts(sizes: BatchSizes, samples: int, seeds: Sequence[int]) -> tuple[list[Layout], list[str]]:
    """Return what to study, the reference first, and what there is to say about it.

    All samples in one batch is always part, and only once: no order changes it.

    Args:
        sizes: Batch sizes as asked for, each positive, or ``all``.
        samples: How many samples there are.
        seeds: Of the shuffled orders.
    """
    notes: list[str] = []
    chosen: list[int] = []
    for size in sizes:
        if size == ALL:
            continue
        if size in chosen:
            notes.append(f"batch size {size} was asked for twice and is studied once")
        elif size > samples:
            notes.append(
                f"batch size {size} is more than the {samples} samples, so that it is the same as all of them in one batch"
            )
        elif size == samples:
            notes.append(f"batch size {size} is all samples in one batch")
        else:
            chosen.append(size)
    if ALL not in sizes and not any(size != ALL and size >= samples for size in sizes):
        notes.append("all samples in one batch was added: it is what the others are compared with")
    partial = [size for size in chosen if samples % size]
    if partial:
        notes.append(
            f"batch size{'s' * (len(partial) > 1)} {', '.join(map(str, partial))} end{'s' * (len(partial) == 1)} in a partial batch, since "
            f"there are {samples} samples; calibrate does the same, TensorRT itself takes full batches only"
        )
    layouts = [Layout(ALL, samples)]
    for size in chosen:
        layouts.append(Layout(f"b{size}", size))
        layouts += [Layout(f"b{size}-s{seed}", size, seed) for seed in seeds]
    return layouts, notes


def shuffled(samples: int, seed: int | None) -> NDArray[np.int64]:
    """Return the order of the samples: that of ``calibrate --shuffle``, or the source's."""
    if seed is None:
        return np.arange(samples)
    return np.random.Generator(np.random.PCG64(seed)).permutation(samples)
