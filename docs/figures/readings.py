"""Readings of the calibration rules that real caches accept or reject: each differs from the rules in one thing.

Slower and more general than ``trtcalib.core``, with which it shares no code of the search; ``tests/test_docs.py`` holds
the two together.
"""

# ruff: noqa: INP001 - scripts of one page, not a package

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["RULES", "SEARCHES", "Counts", "Search", "candidate", "curve", "pick", "scale_of", "with_range"]

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

TIE = 1e-12
"""Candidates within this of the smallest KL, in nats, are ties, as in ``trtcalib.core.entropy``."""

BINS = 2048
"""Bins of TensorRT's histogram."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """One reading of the search; the defaults are the rules.

    Attributes:
        bin_zero: What bin 0 holds in the search: bin 1's count (``copy``), its own (``keep``), nothing (``empty``), or
            a single count (``one``).
        levels: Quantization levels of Q.
        merge: Which bins a level takes: ``proportional`` is ``floor(j * levels / i)``; ``stride`` takes ``i // levels``
            bins each and the rest in the last level; ``fractional`` splits the bins at the levels' exact borders.
        clipped_in_q: Whether Q is built from P, clipped counts included.
        missing: Where P > 0 and Q = 0: ``forbid`` the candidate, ``skip`` the term, or put this number for Q.
        smoothing: Counts that every empty bin of P and of Q gets from the others; 0 for none.
        first: The first candidate.
        last: The last candidate less the number of bins.
        min_occupied: Non-empty bins that a window needs.
        half_bin: What is added to m before the width is multiplied.
        ties: Which of several smallest candidates wins.
    """

    bin_zero: Literal["copy", "keep", "empty", "one"] = "copy"
    levels: int = 128
    merge: Literal["proportional", "stride", "fractional"] = "proportional"
    clipped_in_q: bool = False
    missing: Literal["forbid", "skip"] | float = "forbid"
    smoothing: float = 0.0
    first: int = 128
    last: int = 0
    min_occupied: int = 2
    half_bin: float = 0.5
    ties: Literal["first", "last"] = "first"


RULES = Search()
"""The rules that the page states."""

SEARCHES = {
    "bin 0 keeps its own count": replace(RULES, bin_zero="keep"),
    "bin 0 is emptied": replace(RULES, bin_zero="empty"),
    "bin 0 is set to 1": replace(RULES, bin_zero="one"),
    "levels of i // 128 bins, the rest in the last": replace(RULES, merge="stride"),
    "levels with fractional borders": replace(RULES, merge="fractional"),
    "127 levels": replace(RULES, levels=127),
    "256 levels": replace(RULES, levels=256, first=256),
    "Q made from P, clipped counts included": replace(RULES, clipped_in_q=True),
    "terms with Q = 0 left out": replace(RULES, missing="skip"),
    "Q = 0 replaced by 1e-4": replace(RULES, missing=1e-4),
    "Q = 0 replaced by 1e-10": replace(RULES, missing=1e-10),
    "empty bins of P and Q smoothed with 1e-4 counts": replace(RULES, smoothing=1e-4),
    "first candidate 129": replace(RULES, first=129),
    "last candidate 2047": replace(RULES, last=-1),
    "any window may win": replace(RULES, min_occupied=1),
    "a window needs 3 bins": replace(RULES, min_occupied=3),
    "a window needs 4 bins": replace(RULES, min_occupied=4),
    "ties go to the last": replace(RULES, ties="last"),
    "no half bin: m * R / 2048": replace(RULES, half_bin=0.0),
    "a whole bin: (m + 1) * R / 2048": replace(RULES, half_bin=1.0),
}
"""Searches that differ from the rules in one thing, by what they do otherwise."""


def scale_of(counts: Counts, range_: np.float32, search: Search = RULES) -> np.float32:
    """Return the scale in float32 steps; 0 for a tensor that was all zero."""
    if range_ == 0:
        return np.float32(0)
    width = np.float32(range_ / np.float32(counts.size))
    with np.errstate(over="ignore"):
        amax = np.float32(np.float32(pick(counts, search) + search.half_bin) * width)
        return np.float32(amax / np.float32(127))


def pick(counts: Counts, search: Search = RULES) -> int:
    """Return m; the number of bins where no candidate is allowed."""
    divergences = curve(counts, search)
    smallest = divergences.min()
    if not np.isfinite(smallest):
        return int(counts.size)
    ties = np.flatnonzero(divergences <= smallest + TIE)
    return search.first + int(ties[0] if search.ties == "first" else ties[-1])


def curve(counts: Counts, search: Search = RULES) -> Floats:
    """Return KL(P || Q) in nats per candidate, infinite where it is not allowed."""
    h = _bin_zero(counts, search)
    candidates = np.arange(search.first, h.size + search.last + 1)
    if search.merge == "fractional" or search.smoothing:
        return np.array([_divergence(h, int(i), search) for i in candidates])
    return _all_at_once(h, candidates, search)


def candidate(counts: Counts, i: int, search: Search = RULES) -> tuple[Floats, Floats]:
    """Return P and Q of one candidate in counts, not yet divided by their sums."""
    return _candidate(_bin_zero(counts, search), i, search)


def _bin_zero(counts: Counts, search: Search) -> Counts:
    h = counts.copy()
    if search.bin_zero != "keep":
        h[0] = {"copy": int(h[1]), "empty": 0, "one": 1}[search.bin_zero]
    return h


def _all_at_once(h: Counts, candidates: Counts, search: Search) -> Floats:
    """Search with prefix sums; levels are intervals of whole bins, so a level's mass is a difference of two sums."""
    upto = np.concatenate([[0], np.cumsum(h)])
    filled = np.concatenate([[0], np.cumsum(h > 0)])
    total = upto[-1]
    borders = _borders(candidates, search)
    mass, members = np.diff(upto[borders]), np.diff(filled[borders])
    clipped = total - upto[candidates]
    gap = (h[candidates - 1] == 0) & (clipped > 0)
    in_p = mass.copy()
    in_p[:, -1] += clipped
    if search.clipped_in_q:
        mass = in_p
        members[:, -1] += gap
    elif search.missing != "forbid":
        in_p[:, -1] -= np.where(gap, clipped, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_q = np.where(mass > 0, np.log(mass / np.maximum(members, 1) / mass.sum(axis=1, keepdims=True)), 0.0)
        share = h / total
        entropy = np.concatenate([[0.0], np.cumsum(np.where(h > 0, share * np.log(share), 0.0))])
        last, out = share[candidates - 1], clipped / total
        own = entropy[candidates] - _xlogx(last) + np.where(gap & (search.missing == "skip"), 0.0, _xlogx(last + out))
    divergences = own - (in_p / total * log_q).sum(axis=1)
    if isinstance(search.missing, float):
        divergences -= np.where(gap, out * np.log(search.missing), 0.0)
    refused = filled[candidates] < search.min_occupied
    if search.missing == "forbid" and not search.clipped_in_q:
        refused |= gap
    return np.where(refused, np.inf, divergences)


def _borders(candidates: Counts, search: Search) -> Counts:
    """Return the first bin of each level and the end of the last, per candidate."""
    level = np.arange(search.levels + 1)
    if search.merge == "proportional":
        return -(-level * candidates[:, None] // search.levels)
    borders = level * (candidates[:, None] // search.levels)
    borders[:, -1] = candidates
    return borders


def _xlogx(x: Floats) -> Floats:
    return np.where(x > 0, x * np.log(np.maximum(x, np.finfo(np.float64).tiny)), 0.0)


def _candidate(h: Counts, i: int, search: Search) -> tuple[Floats, Floats]:
    p = h[:i].astype(np.float64)
    p[-1] += h[i:].sum()
    from_ = p if search.clipped_in_q else h[:i].astype(np.float64)
    # Where both are smoothed, Q fills every bin that P fills, as in the published script.
    occupied = p > 0 if search.smoothing or search.clipped_in_q else from_ > 0
    edges = np.arange(i + 1)
    if search.merge == "fractional":
        borders = np.arange(search.levels + 1) * (i / search.levels)
    else:
        borders = _borders(np.array([i]), search)[0].astype(np.float64)
    mass = np.diff(np.interp(borders, edges, np.concatenate([[0.0], np.cumsum(from_)])))
    members = np.diff(np.interp(borders, edges, np.concatenate([[0.0], np.cumsum(occupied)])))
    per_bin = np.where(members > 0, mass / np.maximum(members, TIE), 0.0)
    spread = np.concatenate([[0.0], np.cumsum(per_bin * np.diff(borders))])
    return p, np.where(occupied, np.diff(np.interp(edges, borders, spread)), 0.0)


def _divergence(h: Counts, i: int, search: Search) -> float:
    if np.count_nonzero(h[:i]) < search.min_occupied:
        return np.inf
    p, q = _candidate(h, i, search)
    if search.smoothing:
        p, q = _smoothed(p, search.smoothing), _smoothed(q, search.smoothing)
    seen = p > 0
    if not q.any() or (q[seen] <= 0).any() or (p < 0).any():
        return np.inf
    p, q = p[seen] / p.sum(), q[seen] / q.sum()
    return float((p * np.log(p / q)).sum())


def _smoothed(values: Floats, eps: float) -> Floats:
    empty = values == 0
    filled = values.size - int(empty.sum())
    return np.where(empty, eps, values - eps * empty.sum() / max(filled, 1))


def with_range(batches: Sequence[NDArray[np.float32]], reading: str = "doubling") -> tuple[Counts, np.float32]:
    """Return counts and range of |x| under a reading of how the histogram is collected.

    Args:
        batches: Values of one tensor, one array per batch.
        reading: ``doubling``: the rules. ``final``: all values counted at the doubled range, so that no value is ever
            clamped at a smaller one. ``global``: R is the maximum of all batches. ``first``: R stays the first batch's
            maximum, and what exceeds it counts in the last bin. ``square``: a batch beyond R makes R the square of its
            maximum, and all values are counted there. ``extend``: as many bins of the first batch's width as it takes.
            ``wide``: 4096 bins of that width, whatever the maximum. ``rounded``: the rules with the index rounded to
            nearest. ``float64``: the rules with the index computed in float64. ``bins N``: the rules with N bins.
    """
    first, top = (np.float32(np.abs(b).max()) for b in (batches[0], np.concatenate(batches)))
    size = BINS
    match reading.split():
        case ["final"]:
            range_ = first
            while range_ < top:
                range_ = np.float32(2 * range_)
        case ["global"]:
            range_ = top
        case ["square"]:
            range_ = _squared(batches)
        case ["extend"]:
            size = int(np.ceil(float(top) / float(first) * BINS))
            range_ = np.float32(float(first) * size / BINS)
        case ["wide"]:
            size, range_ = 2 * BINS, np.float32(2 * first)
        case ["bins", number]:
            return _doubling(batches, int(number), reading)
        case ["first"]:
            range_ = first
        case _:
            return _doubling(batches, size, reading)
    return sum(_count(batch, range_, size, reading) for batch in batches), range_  # type: ignore[return-value]


def _doubling(batches: Sequence[NDArray[np.float32]], size: int, reading: str) -> tuple[Counts, np.float32]:
    counts = np.zeros(size, np.int64)
    range_ = np.float32(np.abs(batches[0]).max())
    for batch in batches:
        while range_ < np.abs(batch).max():
            range_ = np.float32(2 * range_)
            counts = np.concatenate([counts.reshape(-1, 2).sum(axis=1), np.zeros(size // 2, np.int64)])
        counts = counts + _count(batch, range_, size, reading)
    return counts, range_


def _count(batch: NDArray[np.float32], range_: np.float32, size: int, reading: str) -> Counts:
    values = np.abs(batch)
    if reading == "float64":
        position = values.astype(np.float64) * size / np.float64(range_)
    else:
        position = (values * np.float32(size) / range_).astype(np.float64)
    if reading == "rounded":
        position += 0.5
    return np.bincount(np.minimum(position, size - 1).astype(np.int64), minlength=size)


def _squared(batches: Sequence[NDArray[np.float32]]) -> np.float32:
    range_ = np.float32(np.abs(batches[0]).max())
    for batch in batches:
        top = np.float32(np.abs(batch).max())
        if top > range_:
            range_ = max(np.float32(top * top), top)
    return range_
