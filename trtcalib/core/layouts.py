"""Which batch size, offset and number of samples was a calibration cache made with? Its scales tell.

A tensor's range is its first batch's maximum, doubled as often as the maximum over all batches needs. So per-sample maxima give the
range of every layout, and a layout is possible only if every entropy scale is a whole bin of its range.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trtcalib.core.agreement import WHOLE
from trtcalib.core.entropy import LEVELS
from trtcalib.core.scale import INT8_MAX

__all__ = ["Layout", "fitting_layouts"]


@dataclass(frozen=True, slots=True, order=True)
class Layout:
    """How samples were fed.

    Attributes:
        batch_size: Samples per batch.
        offset: The first sample, from 0.
        samples: How many samples were fed.
    """

    batch_size: int
    offset: int
    samples: int


def fitting_layouts(
    maxima: NDArray[np.float32], scales: NDArray[np.float32], bins: int, batch_sizes: Sequence[int]
) -> Iterator[Layout]:
    """Yield the layouts for which every scale is a whole bin of its tensor's range.

    Offsets are multiples of the batch size, as those who skip batches have them; sample counts are too.

    Args:
        maxima: float32 ``[samples, tensors]``, the largest finite magnitude of each sample.
        scales: float32 ``[tensors]``, amax / 127 as in the cache.
        bins: Bins per histogram.
        batch_sizes: Which batch sizes to try.
    """
    tops = maxima.astype(np.float64)
    amax = scales.astype(np.float64) * INT8_MAX
    for size in batch_sizes:
        batches = len(tops) // size
        if not batches:
            continue
        by_batch = tops[: batches * size].reshape(batches, size, -1).max(axis=1)
        for first in range(batches):
            # Rows: the range after one batch, two batches, and so on.
            running = np.maximum.accumulate(by_batch[first:], axis=0)
            for count in np.flatnonzero(_fits(by_batch[first], running, amax, bins)).tolist():
                yield Layout(size, first * size, (count + 1) * size)


def _fits(
    firsts: NDArray[np.float64], running: NDArray[np.float64], amax: NDArray[np.float64], bins: int
) -> NDArray[np.bool_]:
    """Whether all scales are whole bins, per row of running maxima."""
    if not firsts.all():
        return np.zeros(len(running), np.bool_)
    # ceil(log2) counts doublings; frexp gives it exactly: maximum / first = fraction * 2**exponent, fraction in [0.5, 1).
    fraction, exponent = np.frexp(running / firsts)
    doublings = np.maximum(exponent - (fraction == 0.5), 0)  # noqa: PLR2004 - the least fraction
    position = amax * bins / np.ldexp(firsts, doublings) - 0.5
    nearest = np.rint(position)
    whole = (np.abs(position - nearest) <= WHOLE) & (nearest >= LEVELS) & (nearest <= bins)
    result: NDArray[np.bool_] = whole.all(axis=1)
    return result
