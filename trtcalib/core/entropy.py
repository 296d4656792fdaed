"""The entropy (KL divergence) search: histogram of |x| -> amax, in the published variants and in TensorRT's own.

For each candidate i the first i bins are kept: P is what calibration saw, with everything beyond i clipped into the
last kept bin; Q is what 128 quantization levels would make of the kept bins. The candidate m with the smallest
KL(P || Q) wins, and ``amax = (m + 0.5) * bin_width``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trtcalib.core.histogram import Histogram
from trtcalib.core.jit import CompiledOnFirstCall
from trtcalib.errors import HistogramError

__all__ = ["VARIANTS", "EntropyVariant", "amax_of_bin", "divergences", "entropy_amax", "entropy_bin", "entropy_clip"]

LEVELS = 128
"""Quantization levels of Q: the non-negative levels of symmetric INT8. Real caches reject 127 and 256. A constant and no
parameter, so that the compiled search divides by shifting."""

TIE_TOLERANCE = 1e-12
"""Candidates within this of the smallest KL, in nats, are ties. Ours: plateaus of 6 to 33 equal candidates occur in
real histograms, and without a tolerance rounding would pick among them. Nothing in the real caches tests it."""

MIN_OCCUPIED = 2
"""Non-empty bins that a candidate's window needs. A window of one bin has KL 0 whatever it clips and must not win;
the real caches fit 2 and 3, not 4."""

SMOOTHING_EPS = 1e-4
"""What variant ``smoothed`` puts into empty bins, in counts; from the published script."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EntropyVariant:
    """One published reading of the search, with every choice that the readings differ in.

    Attributes:
        kl: Maps (counts after the bin-0 rule, the variant) to KL in nats per candidate ``first .. last``; ``inf``
            where the candidate is not allowed.
        bin_zero: What happens to the zeros: ``copy`` sets bin 0 to bin 1's count, ``keep`` leaves it, ``drop`` removes
            the bin, so that candidates count from bin 1.
        ties: Which of several smallest candidates wins.
        half_bin: Whether amax is in the middle of the bin behind the last kept one, ``(m + 0.5) * width``, or at the
            edge, ``m * width``.
        first: The first candidate.
        leave_out: Candidates left out at the end: the last candidate is the number of bins less this.
        min_occupied: Non-empty bins that a window needs to be allowed.
    """

    kl: Callable[[NDArray[np.int64], EntropyVariant], NDArray[np.float64]]
    bin_zero: Literal["copy", "keep", "drop"]
    ties: Literal["first", "last"] = "first"
    half_bin: bool = True
    first: int = 128
    leave_out: int = 0
    min_occupied: int = 1


def entropy_amax(histogram: Histogram, variant: str = "tensorrt") -> np.float32:
    """Return the amax that minimises KL(P || Q), in the tensor's units, as float32.

    A histogram over ``[0, 0]`` (all zero) gives 0, as TensorRT writes it. Where no candidate is allowed, m is the
    number of bins. The result can lie above the range (m = 2048 gives ``2048.5 / 2048 * range``), as TensorRT's does.

    Args:
        histogram: Magnitudes of one tensor over all calibration batches.
        variant: A name in :data:`VARIANTS`.

    Raises:
        HistogramError: If the variant is unknown, or the histogram is empty or has too few bins to search.

    Source:
        See :data:`VARIANTS`.
    """
    return entropy_clip(histogram, variant)[0]


def entropy_clip(histogram: Histogram, variant: str = "tensorrt") -> tuple[np.float32, int | None]:
    """Return what :func:`entropy_amax` does, and the candidate m that it is of; ``None`` where there was no search.

    Raises:
        HistogramError: As :func:`entropy_amax`.
    """
    rule = _variant(variant)
    if histogram.range == 0 and histogram.total > 0:
        return np.float32(0), None
    m = entropy_bin(histogram, variant)
    return amax_of_bin(m, histogram, half_bin=rule.half_bin), m


def amax_of_bin(m: int, histogram: Histogram, *, half_bin: bool = True) -> np.float32:
    """Return ``f32((m + 0.5) * f32(range / bins))``, rounded in float32 at both steps, or the bin's edge."""
    with np.errstate(over="ignore"):
        return np.float32(np.float32(m + 0.5 if half_bin else m) * histogram.width)


def entropy_bin(histogram: Histogram, variant: str = "tensorrt") -> int:
    """Return the winning candidate m: how many bins are kept.

    Raises:
        HistogramError: As :func:`entropy_amax`.
    """
    rule = _variant(variant)
    curve = divergences(histogram, variant)
    smallest = curve.min()
    if not np.isfinite(smallest):
        return histogram.bins
    ties = np.flatnonzero(curve <= smallest + TIE_TOLERANCE)
    return rule.first + int(ties[0] if rule.ties == "first" else ties[-1])


def divergences(histogram: Histogram, variant: str = "tensorrt") -> NDArray[np.float64]:
    """Return KL(P || Q) in nats for each candidate, float64, from ``VARIANTS[variant].first`` upwards.

    Raises:
        HistogramError: As :func:`entropy_amax`.
    """
    rule = _variant(variant)
    counts = histogram.counts
    if histogram.total == 0:
        raise HistogramError("the histogram is empty: was any batch collected?")
    if counts.size <= rule.first:
        raise HistogramError(f"the entropy search needs more than {rule.first} bins, got {counts.size}")
    if rule.bin_zero == "drop":
        counts = counts[1:]
    elif rule.bin_zero == "copy":
        counts = counts.copy()
        counts[0] = counts[1]
    return rule.kl(counts, rule)


def _variant(name: str) -> EntropyVariant:
    if name not in VARIANTS:
        raise HistogramError(f"unknown entropy variant {name!r}: expected one of {', '.join(VARIANTS)}")
    return VARIANTS[name]


def _proportional_kl(counts: NDArray[np.int64], rule: EntropyVariant) -> NDArray[np.float64]:
    """KL where bin j belongs to level ``floor(j * 128 / i)`` and Q is built without the clipped counts."""
    return _interval_kernel(counts, rule.first, rule.min_occupied)


def _interval_python(counts: NDArray[np.int64], first: int, min_occupied: int) -> NDArray[np.float64]:
    """Search all candidates through one precomputed entry per distinct level interval.

    With p the counts over their total, S and n the mass and the non-empty bins of a level, Q is S/n in each of them,
    so the level adds ``S log(S/n)`` to the cross term. The level's bins ``[a, a + w)`` move with the candidate, but
    there are only about ``bins * (bins / LEVELS + 1)`` distinct intervals: their terms are computed once, and each
    candidate is then a sum over its levels. Only the last level is special, since P holds the clipped mass there.
    Masses are differences of exact integer prefix sums, and normalising before the logarithm keeps every sum below
    log(bins), so that rounding stays far under ``TIE_TOLERANCE``.
    """
    bins = counts.size
    upto = np.zeros(bins + 1, np.int64)
    occupied = np.zeros(bins + 1, np.int64)
    for j in range(bins):
        upto[j + 1] = upto[j] + counts[j]
        occupied[j + 1] = occupied[j] + (counts[j] > 0)
    total = np.float64(upto[bins])
    plogp = np.zeros(bins + 1)
    for j in range(bins):
        p = counts[j] / total
        plogp[j + 1] = plogp[j] + (p * np.log(p) if counts[j] > 0 else 0.0)
    widest = bins // LEVELS + 2
    term = np.zeros(bins * widest)
    log_of = np.log(np.arange(1, bins + 1).astype(np.float64))
    for w in range(1, widest):
        # Levels w bins wide belong to candidates below (w + 1) * LEVELS, so later starts are never asked for.
        for a in range(min(bins + 1 - w, (w + 1) * LEVELS)):
            inside = upto[a + w] - upto[a]
            if inside > 0:
                share = inside / total
                term[a * widest + w] = share * (np.log(share) - log_of[occupied[a + w] - occupied[a] - 1])
    # Level l of candidate i starts at ceil(l * i / LEVELS). All candidates side by side, so that the loop vectorises.
    candidates = bins + 1 - first
    cross = np.zeros(candidates)
    begin = np.zeros(candidates, np.uint32)
    for level in range(1, LEVELS):
        for c in range(candidates):
            end = (np.uint32(level) * np.uint32(c + first) + np.uint32(LEVELS - 1)) // np.uint32(LEVELS)
            cross[c] += term[begin[c] * np.uint32(widest) + end - begin[c]]
            begin[c] = end
    curve = np.full(candidates, np.inf)
    for i in range(first, bins + 1):
        clipped = (upto[bins] - upto[i]) / total
        if occupied[i] < max(min_occupied, 1) or (counts[i - 1] == 0 and clipped > 0):
            continue
        a = begin[i - first]
        inside = upto[i] - upto[a]
        cross_term = cross[i - first]
        if inside > 0:
            share = inside / total
            cross_term += (share + clipped) * (np.log(share) - log_of[occupied[i] - occupied[a] - 1])
        last = counts[i - 1] / total + clipped
        entropy = plogp[i - 1] + (last * np.log(last) if last > 0 else 0.0)
        curve[i - first] = entropy - cross_term + np.log(upto[i] / total)
    return curve


_interval_kernel = CompiledOnFirstCall(_interval_python)


def _stride_kl(counts: NDArray[np.int64], rule: EntropyVariant) -> NDArray[np.float64]:
    """KL where a level is ``i // 128`` bins, the last level takes the remainder, and an empty Q forbids."""
    curve = np.full(counts.size + 1 - rule.leave_out - rule.first, np.inf)
    for i in range(rule.first, rule.first + curve.size):
        p, q = _stride_candidate(counts, i, occupied=counts[:i] > 0)
        curve[i - rule.first] = _kl(p, q)
    return curve


def _smoothed_kl(counts: NDArray[np.int64], rule: EntropyVariant) -> NDArray[np.float64]:
    """As :func:`_stride_kl`, Q spread over P's non-empty bins, and both smoothed in counts."""
    curve = np.full(counts.size + 1 - rule.leave_out - rule.first, np.inf)
    for i in range(rule.first, rule.first + curve.size):
        occupied = counts[:i] > 0
        occupied[-1] |= bool(counts[i:].any())
        p, q = _stride_candidate(counts, i, occupied=occupied)
        smooth_p, smooth_q = _smooth(p), _smooth(q)
        if smooth_p is not None and smooth_q is not None:
            curve[i - rule.first] = _kl(smooth_p, smooth_q)
    return curve


def _stride_candidate(
    counts: NDArray[np.int64], i: int, occupied: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return P and Q of one candidate, in counts: levels of ``i // 128`` bins, the remainder in the last."""
    p = counts[:i].astype(np.float64)
    starts = np.arange(LEVELS) * (i // LEVELS)
    mass = np.add.reduceat(p, starts)
    members = np.add.reduceat(occupied.astype(np.float64), starts)
    widths = np.diff(starts, append=i)
    q = np.where(occupied, np.repeat(mass / np.maximum(members, 1), widths), 0.0)
    p[-1] += counts[i:].sum()
    return p, q


def _smooth(values: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Give each empty bin ``SMOOTHING_EPS`` counts, taken evenly from the others; ``None`` where that is impossible."""
    empty = values == 0
    filled = values.size - int(empty.sum())
    if filled == 0:
        return None
    taken = SMOOTHING_EPS * int(empty.sum()) / filled
    smooth = np.where(empty, SMOOTHING_EPS, values - taken)
    return smooth if (smooth > 0).all() else None


def _kl(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    """Return KL(p || q) in nats of two unnormalised distributions; infinite where q rules out what p holds."""
    seen = p > 0
    if not seen.any() or (q[seen] == 0).any():
        return np.inf
    p, q = p[seen] / p.sum(), q[seen] / q.sum()
    return float(np.sum(p * np.log(p / q)))


VARIANTS: Mapping[str, EntropyVariant] = MappingProxyType(
    {
        "tensorrt": EntropyVariant(kl=_proportional_kl, bin_zero="copy", min_occupied=MIN_OCCUPIED),
        "pseudocode": EntropyVariant(kl=_stride_kl, bin_zero="keep", leave_out=1),
        "smoothed": EntropyVariant(kl=_smoothed_kl, bin_zero="drop"),
        "pytorch-quantization": EntropyVariant(kl=_proportional_kl, bin_zero="copy", ties="last", half_bin=False),
    }
)
"""The searches by name.

``tensorrt``
    What TensorRT's own caches show (7.0.0 to 10.14.1; 57 of 57 tensors pick the same bin). Bin 0 takes bin 1's count;
    candidates 128 to 2048; bin j belongs to level ``floor(j * 128 / i)``; Q without the clipped counts; P > 0 where
    Q = 0 forbids the candidate, no smoothing; a window needs two non-empty bins; ties to the first. Not settled by the
    caches: the ties, two or three non-empty bins, and whether Q = 0 is forbidden or a tiny number (1e-10 fits).
``pseudocode``
    The loop published with "8-bit Inference with TensorRT" (GTC 2017), read literally: candidates 128 to 2047, bin 0
    kept, levels of ``i // 128`` bins with the remainder in the last one, no smoothing. Where the text is silent: P > 0
    with Q = 0 forbids the candidate.
``smoothed``
    The Python script that is widely copied from MXNet: bin 0 dropped (so that m counts from bin 1, as published), the
    same levels, Q spread over the bins that P, clipped counts included, fills, and both smoothed with 1e-4. Deviations
    from the script, which is defective: counts are smoothed, not probabilities (its own assertion fails on most real
    histograms), and the last level includes its last bin (``stop = -1`` lost it).
``pytorch-quantization``
    NVIDIA's toolkit, and ModelOpt's torch calibrator: as ``tensorrt`` but any window is allowed, the *last* minimum wins
    and amax is at the bin's edge. Deviations: ties are taken within 1e-12 instead of exactly, and the caller's
    histogram is not edited.
"""
