"""Slow, obvious readings of the calibration rules, written from their text; they share no code with trtcalib.

The searches accept every candidate within ``BAND`` of the smallest divergence: the rule takes the first within 1e-12,
and two programs that add in different orders may see its border differently.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEVELS = 128
FIRST_CANDIDATE = 128
EPS = 1e-4  # counts that variant "smoothed" puts into an empty bin
FLT_MAX = float(np.finfo(np.float32).max)
ROUNDING = 1e-12  # far above what float64 sums of a few thousand terms below 10 can lose
BAND = 1e-12 + ROUNDING


@dataclass(frozen=True)
class Search:
    """What a search found.

    Attributes:
        curve: KL per candidate in nats, from candidate 128 upwards; infinite where the candidate is not allowed.
        acceptable: Every m that a correct search may pick.
    """

    curve: list[float]
    acceptable: set[int]


def plain_search(counts: Sequence[int] | NDArray[np.int64], variant: str) -> Search:
    """Search one bin at a time, in the given variant."""
    bins = [int(count) for count in counts]
    size = len(bins)
    last = size
    if variant in ("tensorrt", "pytorch-quantization"):
        bins[0] = bins[1]
    elif variant == "smoothed":
        bins = bins[1:]
        last = len(bins)
    elif variant == "pseudocode":
        last = size - 1
    else:
        raise AssertionError(variant)
    curve = [_divergence(bins, i, variant) for i in range(FIRST_CANDIDATE, last + 1)]
    return Search(curve, _acceptable(curve, size))


def _acceptable(curve: Sequence[float], size: int) -> set[int]:
    smallest = min(curve)
    if smallest == math.inf:
        return {size}
    return {FIRST_CANDIDATE + n for n, divergence in enumerate(curve) if divergence <= smallest + BAND}


def _divergence(bins: list[int], i: int, variant: str) -> float:
    kept = bins[:i]
    outliers = sum(bins[i:])
    p = [float(count) for count in kept]
    p[-1] += outliers
    if variant == "tensorrt" and sum(count > 0 for count in kept) == 1:
        return math.inf
    if variant in ("tensorrt", "pytorch-quantization"):
        level = [j * LEVELS // i for j in range(i)]
    else:
        level = [min(j // (i // LEVELS), LEVELS - 1) for j in range(i)]
    filled = p if variant == "smoothed" else kept
    mass = [0] * LEVELS
    members = [0] * LEVELS
    for j in range(i):
        mass[level[j]] += kept[j]
        members[level[j]] += filled[j] > 0
    q = [mass[level[j]] / members[level[j]] if filled[j] > 0 else 0.0 for j in range(i)]
    if variant == "smoothed":
        p, q = _smoothed(p), _smoothed(q)
    return _kl(p, q)


def _smoothed(values: list[float]) -> list[float]:
    """Move ``EPS`` counts into each empty bin; an empty list where the others cannot give that much."""
    empty = sum(value == 0 for value in values)
    if empty == len(values):
        return []
    given = EPS * empty / (len(values) - empty)
    smooth = [value - given if value > 0 else EPS for value in values]
    return smooth if min(smooth) > 0 else []


def _kl(p: list[float], q: list[float]) -> float:
    total_p, total_q = math.fsum(p), math.fsum(q)
    if not p or not q or total_p == 0:
        return math.inf
    terms = []
    for x, y in zip(p, q, strict=True):
        if x > 0:
            if y == 0:
                return math.inf
            terms.append(x / total_p * math.log((x / total_p) / (y / total_q)))
    return math.fsum(terms)


def numpy_search(counts: NDArray[np.int64]) -> Search:
    """Search in variant ``tensorrt`` with one ``bincount`` per candidate: fast enough for thousands of histograms."""
    bins = counts.astype(np.float64)
    bins[0] = bins[1]
    positions = np.arange(bins.size)
    curve = [_bincount_divergence(bins, positions, i) for i in range(FIRST_CANDIDATE, bins.size + 1)]
    return Search(curve, _acceptable(curve, bins.size))


def _bincount_divergence(bins: NDArray[np.float64], positions: NDArray[np.int64], i: int) -> float:
    kept = bins[:i]
    outliers = bins[i:].sum()
    occupied = np.flatnonzero(kept)
    if occupied.size <= 1 or (kept[-1] == 0 and outliers > 0):
        return math.inf
    level = positions[occupied] * LEVELS // i
    filled = kept[occupied]
    q = (np.bincount(level, filled) / np.maximum(np.bincount(level), 1))[level]
    p = filled.copy()
    if outliers > 0:
        p[-1] += outliers
    p /= p.sum()
    q /= q.sum()
    return float((p * np.log(p / q)).sum())


@dataclass(frozen=True)
class PlainHistogram:
    """What TensorRT's policy leaves behind.

    Attributes:
        counts: Per bin.
        range: float32; infinite past float32.
        first_max: The first maximum above zero.
        doublings: How often the range doubled.
        clamps: (doublings at that moment, how many values equalled the range), one per batch.
    """

    counts: list[int]
    range: np.float32
    first_max: np.float32
    doublings: int
    clamps: list[tuple[int, int]]

    @property
    def clamped(self) -> int:
        """How many values were equal to the range when they were counted."""
        return sum(count for _, count in self.clamps)


def plain_histogram(batches: Iterable[ArrayLike], bins: int) -> PlainHistogram:
    """Collect value by value with float32 scalars; ``bins`` is a power of two."""
    counts = [0] * bins
    first_max, range_, doublings = 0.0, 0.0, 0  # float64 holds every range exactly, past float32 too
    clamps = []
    for batch in batches:
        magnitudes = [abs(float(value)) for value in np.asarray(batch, np.float32).ravel()]
        top = max(magnitudes, default=0.0)
        if range_ == 0:
            first_max = range_ = top
        while range_ < top:
            range_ *= 2
            doublings += 1
            counts = [counts[2 * j] + counts[2 * j + 1] for j in range(bins // 2)] + [0] * (bins // 2)
        for magnitude in magnitudes:
            counts[plain_index(magnitude, range_, bins)] += 1
        clamps.append((doublings, sum(magnitude == range_ for magnitude in magnitudes) if range_ else 0))
    with np.errstate(over="ignore"):
        return PlainHistogram(counts, np.float32(range_), np.float32(first_max), doublings, clamps)


def plain_index(magnitude: float, range_: float, bins: int) -> int:
    """``min(floor(a * bins / R), bins - 1)`` in float32; both sides shrunk by 2**64 where float32 would overflow."""
    if magnitude == 0:
        return 0
    if magnitude > 2.0**117 or range_ > FLT_MAX:
        magnitude, range_ = magnitude * 2.0**-64, range_ * 2.0**-64
    quotient = np.float32(magnitude) * np.float32(bins) / np.float32(range_)
    return min(int(quotient), bins - 1)  # not negative, so cutting off is flooring


def plain_percentile_bin(counts: Sequence[int] | NDArray[np.int64], percentile: str) -> int:
    """The first bin at which at least ``percentile`` (a decimal number as text) % of the values are at or below it."""
    total = sum(int(count) for count in counts)
    inside = 0
    for position, count in enumerate(counts):
        inside += int(count)
        if Fraction(inside, total) >= Fraction(percentile) / 100:
            return position
    raise AssertionError("100 % are inside at the last bin")
