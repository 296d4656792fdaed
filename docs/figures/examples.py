"""The page's small worked examples and its tables of literal numbers."""

# ruff: noqa: INP001 - scripts of one page, not a package

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from readings import RULES, Search, candidate, curve
from tables import markdown

from trtcalib.core.entropy import amax_of_bin, entropy_bin
from trtcalib.core.histogram import collect_histogram, double
from trtcalib.core.planned import POLICIES, plan_ranges
from trtcalib.core.scale import INT8_MAX, bits_from_scale, scale_from_amax
from trtcalib.core.tally import BINS

__all__ = ["FEW_BINS", "TOY_CANDIDATE", "TOY_COUNTS", "TOY_SEARCH", "example_batches", "literal_tables"]

FIRST_MAXIMUM, SECOND_MAXIMUM = 1.54, 2.4
"""The example known from discussions of range doubling: is the range 3.08 or 5.76 afterwards?"""

FEW_BINS = 16
"""Bins where the rule is drawn; TensorRT has 2048."""

TOY_COUNTS = np.array([40, 9, 8, 6, 4, 0, 3, 2, 1, 2, 0, 3], np.int64)
TOY_CANDIDATE = 10
TOY_SEARCH = Search(levels=4, first=4)
"""P and Q with 12 bins and 4 levels instead of 2048 and 128, to be worked out by hand."""

CONSTANTS = {
    "1.0": 1.0,
    "0.125": 0.125,
    "8.0": 8.0,
    "2.8284271": 2.8284270763397217,
    "1e-12": 9.999999960041972e-13,
    "-FLT_MAX": -float(np.finfo(np.float32).max),
    "0": 0.0,
}


def example_batches() -> list[NDArray[np.float32]]:
    """Return two batches of 600 values, seed 0, thinning out evenly towards their maxima 1.54 and 2.4."""
    rng = np.random.default_rng(0)
    batches = []
    for maximum in (FIRST_MAXIMUM, SECOND_MAXIMUM):
        values = (maximum * (1 - np.sqrt(rng.random(600)))).astype(np.float32)
        values[0] = maximum
        batches.append(values)
    return batches


def literal_tables() -> Iterator[str]:
    """Yield the tables that depend on no data."""
    yield markdown("doubling", ("policy", "after batch 1", "after batch 2", "bins"), _doubling_rows())
    yield markdown("pairs", ("bin", *map(str, range(FEW_BINS))), _pair_rows())
    yield markdown("clamped", ("where 1.54 is counted", "bin at that moment", "bin at the end"), _clamped_rows())
    yield markdown("toy", ("bin", *map(str, range(TOY_CANDIDATE))), _toy_rows())
    yield markdown("toy-kl", ("sum of P", "sum of Q", "KL(P, Q) in nats"), [_toy_kl()])
    head = ("constant", "R / 2048", "amax = 2048.5 * that", "scale = amax / 127", "in the cache")
    yield markdown("rounding", head, _rounding_rows())


def _doubling_rows() -> Iterator[tuple[str, ...]]:
    maxima = np.array([FIRST_MAXIMUM, SECOND_MAXIMUM], np.float32)
    for policy in POLICIES:
        if policy == "doubling":
            ranges = [collect_histogram(example_batches()[:n]).exact_range for n in (1, 2)]
            bins = BINS
        else:
            plan = plan_ranges(policy, maxima, BINS)
            # Policy global knows all batches before it counts; the others know what came so far.
            ranges = [plan.ranges[0] if policy == "global" else float(plan.first_max), plan.ranges[-1]]
            bins = plan.bins
        yield f"`{policy}`", f"{ranges[0]:.3g}", f"{ranges[1]:.3g}", str(bins)


def _pair_rows() -> Iterator[tuple[str, ...]]:
    first, second = example_batches()
    one = collect_histogram([first], bins=FEW_BINS)
    for label, histogram in (
        ("batch 1, R = 1.54", one),
        ("summed in pairs, R = 3.08", double(one)),
        ("with batch 2", collect_histogram([first, second], bins=FEW_BINS)),
    ):
        yield label, *map(str, histogram.counts.tolist())


def _clamped_rows() -> Iterator[tuple[str, ...]]:
    maximum, beyond = np.array([FIRST_MAXIMUM], np.float32), np.array([SECOND_MAXIMUM], np.float32)
    alone = collect_histogram([maximum]).counts
    early = collect_histogram([maximum, beyond]).counts
    late = _moved_late()
    together = collect_histogram([np.concatenate([maximum, beyond])]).counts
    yield "in batch 1, where it is the range 1.54", _lowest(alone), _lowest(early)
    yield "in batch 2, after the range doubled to 3.08", _lowest(late), _lowest(late)
    yield "in one batch with 2.4, range 2.4", _lowest(together), _lowest(together)


def _moved_late() -> NDArray[np.int64]:
    """Count 1.54 in the second batch, behind a first batch whose maximum is 1.54 too, and leave that one out."""
    first = np.array([FIRST_MAXIMUM], np.float32)
    both = collect_histogram([first, np.array([SECOND_MAXIMUM, FIRST_MAXIMUM], np.float32)]).counts
    without = collect_histogram([first, np.array([SECOND_MAXIMUM], np.float32)]).counts
    return both - without


def _lowest(counts: NDArray[np.int64]) -> str:
    return str(np.flatnonzero(counts)[0])


def _toy_rows() -> Iterator[tuple[str, ...]]:
    p, q = candidate(TOY_COUNTS, TOY_CANDIDATE, TOY_SEARCH)
    counts = TOY_COUNTS.copy()
    counts[0] = counts[1]
    levels = np.arange(TOY_CANDIDATE) * TOY_SEARCH.levels // TOY_CANDIDATE
    yield "count, bin 0 set to bin 1's", *map(str, counts[:TOY_CANDIDATE].tolist())
    yield "level", *map(str, levels.tolist())
    yield "P, in counts", *(f"{x:g}" for x in p)
    yield "Q, in counts", *(f"{x:.4g}" for x in q)


def _toy_kl() -> tuple[str, ...]:
    p, q = candidate(TOY_COUNTS, TOY_CANDIDATE, TOY_SEARCH)
    divergence = curve(TOY_COUNTS, TOY_SEARCH)[TOY_CANDIDATE - TOY_SEARCH.first]
    return f"{p.sum():g}", f"{q.sum():g}", f"{divergence:.5f}"


def _rounding_rows() -> Iterator[tuple[str, ...]]:
    for name, value in CONSTANTS.items():
        histogram = collect_histogram([np.array([value], np.float32)])
        if histogram.range == 0:
            yield name, "-", "`0`", "`0`", "`0`"
            continue
        assert entropy_bin(histogram) == BINS
        amax = amax_of_bin(BINS, histogram)
        scale = scale_from_amax(amax)
        steps = (histogram.width, amax, scale)
        yield name, *(f"`{bits_from_scale(step):x}` ({step:.7g})" for step in steps), f"`{bits_from_scale(scale):x}`"


assert INT8_MAX == 127  # noqa: PLR2004 - the table's head says so
assert RULES.half_bin == 0.5  # noqa: PLR2004 - as above
