"""Why each scale is what it is: one tensor in one batch size and order, told from the replay."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from trtcalib.batch_study.replaying import Replayed
from trtcalib.batch_study.result import Doubling, Outcome, Without
from trtcalib.batch_study.state import Maxima
from trtcalib.core.histogram import Histogram, clipped_share
from trtcalib.core.many_ranges import bins_of
from trtcalib.core.scale import bits_from_scale, scale_from_amax
from trtcalib.methods import ClipPoint

__all__ = ["change", "json_number", "outcomes_of"]


def outcomes_of(
    replayed: Replayed, maxima: Maxima, names: Sequence[str], reference: Mapping[str, np.float32], rows_per_batch: int
) -> dict[str, Outcome]:
    """Return the outcome of every tensor that has values.

    Args:
        replayed: One batch size and order.
        maxima: From the first pass.
        names: The tensors.
        reference: Their scales in the reference.
        rows_per_batch: Rows of the maxima in a batch.
    """
    doublings = _doublings(replayed, maxima, rows_per_batch)
    found = {}
    for t, name in enumerate(names):
        histogram, clip = replayed.histograms[t], replayed.clips[t]
        if histogram is not None and clip is not None:
            found[name] = _outcome(
                t, replayed, maxima, (histogram, clip), doublings[t], reference[name], rows_per_batch
            )
    return found


def _outcome(  # noqa: PLR0913, PLR0917 - one value's facts from all that is known of it
    t: int,
    replayed: Replayed,
    maxima: Maxima,
    solved: tuple[Histogram, ClipPoint],
    doublings: list[Doubling],
    reference: np.float32,
    rows_per_batch: int,
) -> Outcome:
    histogram, clip = solved
    growth = replayed.growth
    scale = scale_from_amax(clip.amax)
    first = int(growth.first_batch[t])
    outlier = None
    if t in replayed.without:
        outlier = maxima.labels[int(maxima.samples.largest[t])]
    return Outcome(
        first_maximum=float(growth.first_max[t]),
        first_batch=first + 1,
        first_sample=None if first < 0 else maxima.labels[_holder(t, first, replayed, maxima, rows_per_batch)],
        doublings=doublings,
        range=json_number(histogram.range),
        wasted_bins=_wasted_bins(histogram),
        bin_m=clip.bin_m,
        amax=json_number(clip.amax),
        scale=json_number(scale),
        scale_hex=f"{bits_from_scale(scale):x}",
        change=change(scale, reference),
        clipped=clipped_share(histogram, clip.amax),
        without=None if outlier is None else _without(outlier, *replayed.without[t], scale),
    )


def _without(sample: str, histogram: Histogram, clip: ClipPoint, scale: np.float32) -> Without:
    other = scale_from_amax(clip.amax)
    return Without(
        sample=sample,
        range=json_number(histogram.range),
        doublings=histogram.doublings,
        bin_m=clip.bin_m,
        scale=json_number(other),
        change=change(other, scale),
    )


def _doublings(replayed: Replayed, maxima: Maxima, rows_per_batch: int) -> list[list[Doubling]]:
    """Return each tensor's batches beyond its range."""
    growth = replayed.growth
    found: list[list[Doubling]] = [[] for _ in range(growth.first_max.size)]
    for before, t in np.argwhere(np.diff(growth.after, axis=0) > 0).tolist():
        batch = before + 1
        was = math.ldexp(float(growth.first_max[t]), int(growth.after[before, t]))
        found[t].append(
            Doubling(
                batch=batch + 1,
                times=int(growth.after[batch, t] - growth.after[before, t]),
                sample=maxima.labels[_holder(t, batch, replayed, maxima, rows_per_batch)],
                maximum=float(growth.batch_maxima[batch, t]),
                alone=int((maxima.samples.maxima[:, t] > was).sum()) == 1,
            )
        )
    return found


def _holder(t: int, batch: int, replayed: Replayed, maxima: Maxima, rows_per_batch: int) -> int:
    """Return the row that holds a batch's maximum."""
    rows = replayed.order[batch * rows_per_batch : (batch + 1) * rows_per_batch]
    return int(rows[maxima.samples.maxima[rows, t].argmax()])


def _wasted_bins(histogram: Histogram) -> int:
    if histogram.range == 0:
        return 0
    return histogram.bins - 1 - int(bins_of(np.array([histogram.maximum]), histogram.exact_range, histogram.bins)[0])


def change(scale: np.float32, reference: np.float32) -> float | None:
    """Return ``scale / reference - 1``; 0 for equal scales, ``None`` where the quotient says nothing."""
    if scale == reference:
        return 0.0
    if reference == 0 or not (np.isfinite(scale) and np.isfinite(reference)):
        return None
    return float(scale) / float(reference) - 1


def json_number(value: float | np.float32) -> float | None:
    """Return a number that JSON can hold."""
    return float(value) if np.isfinite(value) else None
