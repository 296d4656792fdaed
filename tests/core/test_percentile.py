"""Percentile: the upper edge of the bin, with the share compared exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from tests.core.oracles import plain_percentile_bin
from trtcalib.core.histogram import Histogram, collect_histogram
from trtcalib.core.percentile import percentile_amax
from trtcalib.errors import HistogramError

Counts = NDArray[np.int64]

TINY = "0.0000000001"
percentiles = st.sampled_from(
    [TINY, "1", "33.3", "50", "99", "99.9", "99.99", "99.999", "99.9999", "100"]
) | st.decimals(min_value="0.0001", max_value="100", places=4).map(str)
counts = arrays(np.int64, st.integers(1, 40), elements=st.integers(0, 3) | st.integers(0, 10**12)).filter(np.any)


def histogram_of(counts: Counts | list[int], range_: float | None = None) -> Histogram:
    """A histogram whose bins are 1 wide unless the range is given."""
    range_ = float(len(counts)) if range_ is None else range_
    return Histogram(counts=np.array(counts), range=np.float32(range_), first_max=np.float32(range_))


@given(counts, percentiles, st.floats(2.0**-100, 2.0**100, width=32))
def test_agrees_with_exact_fractions(counts: Counts, percentile: str, range_: float) -> None:
    histogram = histogram_of(counts, range_)
    width = np.float32(range_) / np.float32(counts.size)
    amax = percentile_amax(histogram, float(percentile))
    assert amax.dtype == np.float32
    assert amax == np.float32(plain_percentile_bin(counts, percentile) + 1) * width
    assert np.array_equal(histogram.counts, counts)


@given(counts, percentiles, percentiles)
def test_a_larger_percentile_never_clips_more(counts: Counts, one: str, other: str) -> None:
    low, high = sorted((float(one), float(other)))
    assert percentile_amax(histogram_of(counts), low) <= percentile_amax(histogram_of(counts), high)


@given(counts, percentiles, st.integers(1, 1000))
def test_the_sample_size_does_not_matter(counts: Counts, percentile: str, factor: int) -> None:
    once = percentile_amax(histogram_of(counts), float(percentile))
    assert percentile_amax(histogram_of(counts * factor), float(percentile)) == once


@pytest.mark.parametrize(
    ("percentile", "amax"),
    [(1e-10, 1), (50, 1), (90, 1), (90.00001, 2), (99, 2), (99.9, 3), (99.99, 4), (99.999, 5), (99.9999, 6), (100, 8)],
)
def test_literal_percentiles(percentile: float, amax: float) -> None:
    """A million values: 90 % are in bin 0, then 9 %, 0.9 % ... down to one value in bin 7; bin 6 is empty."""
    counts = [900_000, 90_000, 9_000, 900, 90, 9, 0, 1, 0, 0]
    assert percentile_amax(histogram_of(counts), percentile) == amax


def test_the_share_is_exact_where_float64_is_not() -> None:
    """99.9 % of 41000 is 40959; 41000 * 99.9 / 100 is 40959.00000000001 in float64, whose ceiling is 40960."""
    assert math.ceil(41000 * 99.9 / 100) == 40960
    assert percentile_amax(histogram_of([40959, 41]), 99.9) == 1


@pytest.mark.parametrize("percentile", [99.9, 99.99, 99.999, 99.9999])
def test_one_value_more_than_the_share_needs_the_next_bin(percentile: float) -> None:
    total = 10**12
    outside = round((100 - percentile) * total / 100)
    assert percentile_amax(histogram_of([total - outside, outside]), percentile) == 1
    assert percentile_amax(histogram_of([total - outside - 1, outside + 1]), percentile) == 2


def test_empty_bins_before_the_first_value_are_passed_over() -> None:
    assert percentile_amax(histogram_of([0, 0, 5, 0]), 1e-300) == 3


def test_a_constant_reaches_its_own_range_exactly() -> None:
    histogram = collect_histogram([[3.0, 3.0]])
    assert percentile_amax(histogram, 100) == 3


def test_the_edge_is_rounded_in_float32_at_both_steps() -> None:
    width = np.float32(0.1) / np.float32(7)
    assert percentile_amax(histogram_of([1] * 7, 0.1), 100) == np.float32(7) * width


def test_a_tensor_of_zeros_has_amax_zero() -> None:
    amax = percentile_amax(collect_histogram([np.zeros(3, np.float32)]), 99.99)
    assert amax == 0
    assert amax.dtype == np.float32


def test_a_range_past_float32_gives_an_infinite_amax() -> None:
    assert np.isinf(percentile_amax(collect_histogram([[3e38], [3.2e38]]), 100))


@pytest.mark.parametrize("percentile", [0, -1, 100.0001, 101, math.inf, math.nan])
def test_a_percentile_outside_its_interval_is_refused(percentile: float) -> None:
    with pytest.raises(HistogramError, match=rf"^the percentile must be in \(0, 100\], got {percentile}$"):
        percentile_amax(histogram_of([1, 2]), percentile)


def test_an_empty_histogram_is_refused() -> None:
    with pytest.raises(HistogramError, match=r"^the histogram is empty: was any batch collected\?$"):
        percentile_amax(collect_histogram([]), 99.99)
