"""Which batch size, offset and number of samples was a calibration cache made with? Its scales tell.

A tensor's range is the maximum of the first batch in which it is not all zero, doubled as often as the maximum over all batches
needs. So per-sample maxima give the range of every layout, and a layout is possible only if every entropy scale is a whole bin of
its range.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trtcalib.core.agreement import WHOLE
from trtcalib.core.entropy import LEVELS
from trtcalib.core.scale import INT8_MAX

__all__ = ["Layout", "first_maxima", "fitting_layouts"]


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

    Offsets are multiples of the batch size, as those who skip batches have them; sample counts are too, since TensorRT takes full
    batches only.

    Args:
        maxima: float32 ``[samples, tensors]``, the largest finite magnitude of each sample.
        scales: float32 ``[tensors]``, amax / 127 as in the cache; positive and finite.
        bins: Bins per histogram.
        batch_sizes: Which batch sizes to try, each at least 1; one beyond the samples has no layout.
    """
    tops = maxima.astype(np.float64)
    amax = scales.astype(np.float64) * INT8_MAX
    for size in batch_sizes:
        batches = len(tops) // size
        if not batches:
            continue
        by_batch = tops[: batches * size].reshape(batches, size, -1).max(axis=1)
        firsts = _from_each_batch(by_batch)
        # Few first maxima fit after any number of doublings: without this, every pair of batches would be looked at.
        for first in np.flatnonzero(_possible(firsts, amax, bins)).tolist():
            # Rows: the range after one batch, two batches, and so on.
            running = np.maximum.accumulate(by_batch[first:], axis=0)
            for count in np.flatnonzero(_fits(firsts[first], running, amax, bins)).tolist():
                yield Layout(size, first * size, (count + 1) * size)


def first_maxima(maxima: NDArray[np.float32], layout: Layout) -> NDArray[np.float32]:
    """Return the range that each tensor starts with in a layout; 0 for one that is all zero in it.

    Args:
        maxima: float32 ``[samples, tensors]``, as for :func:`fitting_layouts`.
        layout: The samples that were fed.
    """
    fed = maxima[layout.offset : layout.offset + layout.samples]
    by_batch = fed.reshape(-1, layout.batch_size, maxima.shape[1]).max(axis=1)
    first: NDArray[np.float32] = np.take_along_axis(by_batch, (by_batch > 0).argmax(axis=0)[np.newaxis], axis=0)[0]
    return first


def _from_each_batch(by_batch: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return, per batch to start from, the first maximum that is not zero; 0 where there is none."""
    firsts = by_batch.copy()
    if not firsts.all():
        for batch in range(len(firsts) - 2, -1, -1):
            firsts[batch] = np.where(firsts[batch] > 0, firsts[batch], firsts[batch + 1])
    return firsts


def _possible(firsts: NDArray[np.float64], amax: NDArray[np.float64], bins: int) -> NDArray[np.bool_]:
    """Whether all scales are whole bins after some number of doublings each, per row of first maxima."""
    with np.errstate(divide="ignore"):
        position = amax * bins / firsts
    position[firsts == 0] = np.nan
    # The fewest doublings that bring the scale down into the candidates' reach; each more halves its bin.
    _, exponent = np.frexp(position / (bins + 1))
    fewest = np.maximum(exponent, 0)
    result = np.zeros(firsts.shape, np.bool_)
    for more in range((bins // LEVELS).bit_length() + 1):
        result |= _is_bin(np.ldexp(position, -(fewest + more)), bins)
    return np.asarray(result.all(axis=1))


def _fits(
    firsts: NDArray[np.float64], running: NDArray[np.float64], amax: NDArray[np.float64], bins: int
) -> NDArray[np.bool_]:
    """Whether all scales are whole bins, per row of running maxima."""
    # ceil(log2) counts doublings; frexp gives it exactly: maximum / first = fraction * 2**exponent, fraction in [0.5, 1).
    fraction, exponent = np.frexp(running / firsts)
    doublings = np.maximum(exponent - (fraction == 0.5), 0)  # noqa: PLR2004 - the least fraction
    # A tensor that was all zero so far has no range yet, and no scale but 0.
    whole = _is_bin(amax * bins / np.ldexp(firsts, doublings), bins) & (running > 0)
    return np.asarray(whole.all(axis=1))


def _is_bin(position: NDArray[np.float64], bins: int) -> NDArray[np.bool_]:
    """Whether ``position``, in bins, is a candidate and a half."""
    nearest = np.rint(position - 0.5)
    near = np.abs(position - 0.5 - nearest) <= WHOLE
    return np.asarray(near & (nearest >= LEVELS) & (nearest <= bins), np.bool_)
