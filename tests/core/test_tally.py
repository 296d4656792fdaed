"""The counting kernel: indices, lanes, values at the range, and what is not counted at all."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from tests.core.oracles import plain_index
from trtcalib.core.tally import (
    BINS,
    INFINITY_BITS,
    _tally_kernel,
    _times_kernel,
    bits_of_range,
    count_bins,
    largest_and_times,
    largest_bits,
    new_scratch,
    tally,
)
from trtcalib.errors import HistogramError

FLT_MAX = float(np.finfo(np.float32).max)
SMALLEST = 2.0**-149
LANES_FROM = 8192  # values; from here on the kernel counts in eight lanes
BLOCK = 1024  # values per step of the kernel

Kernel = Callable[..., tuple[int, int]]
any_float = st.floats(width=32)
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
positive = st.floats(SMALLEST, FLT_MAX, width=32)
sizes = st.sampled_from([1, 2, 7, 64, 128, BINS])


def run_kernel(kernel: Kernel, values: NDArray[np.float32], range_: float, bins: int) -> tuple[int, int, list[int]]:
    """Return (top bits, values at the range, counts); the kernel starts on counts that are not zero."""
    counts = np.arange(bins, dtype=np.int64)
    scratch = new_scratch(bins)
    before = values.copy()
    with np.errstate(all="ignore"):
        top, at_range = kernel(values, np.float32(range_), counts, scratch)
    assert not scratch.any(), "scratch must be left zeroed"
    assert np.array_equal(values.view(np.uint32), before.view(np.uint32)), "values must not be changed"
    return int(top), int(at_range), (counts - np.arange(bins)).tolist()


@given(arrays(np.float32, st.integers(0, 40), elements=any_float), positive, sizes)
def test_the_compiled_kernel_equals_its_python_form(values: NDArray[np.float32], range_: float, bins: int) -> None:
    assert run_kernel(_tally_kernel, values, range_, bins) == run_kernel(_tally_kernel.python, values, range_, bins)


@pytest.mark.parametrize("size", [BLOCK - 1, BLOCK + 1, LANES_FROM - 1, LANES_FROM, LANES_FROM + 8, LANES_FROM + 13])
def test_blocks_and_lanes_count_every_value_once(size: int) -> None:
    values = np.random.default_rng(size).normal(size=size).astype(np.float32)
    range_ = float(np.abs(values).max())
    top, at_range, counts = run_kernel(_tally_kernel, values, range_, BINS)
    assert (top, at_range, counts) == run_kernel(_tally_kernel.python, values, range_, BINS)
    expected = [0] * BINS
    for value in values.tolist():
        expected[plain_index(abs(value), range_, BINS)] += 1
    expected[-1] -= at_range
    assert counts == expected
    assert at_range == 1
    assert sum(counts) == size - 1


@pytest.mark.parametrize("kernel", [_tally_kernel, _tally_kernel.python], ids=["compiled", "python"])
@pytest.mark.parametrize("size", [3, LANES_FROM + 3])
@pytest.mark.parametrize("excess", [math.nan, math.inf, -math.inf, 1.0000001, -2.0])
def test_nothing_is_added_when_a_value_exceeds_the_range(kernel: Kernel, size: int, excess: float) -> None:
    values = np.full(size, 0.5, np.float32)
    values[-1] = excess
    top, at_range, counts = run_kernel(kernel, values, 1.0, BINS)
    assert top == int(np.float32(abs(excess)).view(np.uint32))
    assert top > bits_of_range(1.0)
    assert at_range == 0
    assert not any(counts)


@pytest.mark.parametrize("kernel", [_tally_kernel, _tally_kernel.python], ids=["compiled", "python"])
@pytest.mark.parametrize("size", [4, LANES_FROM + 4])
def test_values_equal_to_the_range_are_held_apart(kernel: Kernel, size: int) -> None:
    values = np.zeros(size, np.float32)
    values[[0, 1, -1]] = [2.0, -2.0, 1.9999999]
    top, at_range, counts = run_kernel(kernel, values, 2.0, BINS)
    assert (top, at_range) == (bits_of_range(2.0), 2)
    assert counts == [size - 3] + [0] * (BINS - 2) + [1]


@pytest.mark.parametrize("nan", [math.nan, -math.nan])
def test_nan_is_told_from_infinity_by_the_bits(nan: float) -> None:
    values = np.array([math.inf, nan, 0.0], np.float32)
    assert tally(values, 1.0, np.zeros(BINS, np.int64), new_scratch())[0] > INFINITY_BITS
    assert tally(values[[0, 2]], 1.0, np.zeros(BINS, np.int64), new_scratch())[0] == INFINITY_BITS


def test_a_read_only_array_is_counted_too() -> None:
    values = np.ones(3, np.float32)
    values.flags.writeable = False
    counts, at_range = count_bins(values, 2.0)
    assert counts[BINS // 2] == 3
    assert at_range == 0


def test_no_values_leave_the_counts_alone() -> None:
    counts = np.arange(BINS, dtype=np.int64)
    for range_ in (1.0, 2.0**128):
        assert tally(np.zeros(0, np.float32), range_, counts, new_scratch()) == (0, 0)
    assert np.array_equal(counts, np.arange(BINS))


@given(arrays(np.float32, st.integers(1, 40), elements=finite), st.integers(0, 3), st.sampled_from([2, 128, BINS]))
def test_counts_agree_with_one_value_at_a_time(values: NDArray[np.float32], doublings: int, bins: int) -> None:
    range_ = float(np.abs(values).max()) * 2.0**doublings
    before = values.copy()
    counts, at_range = count_bins(values, range_, bins)
    expected = [0] * bins
    for value in values.tolist():
        expected[plain_index(abs(value), range_, bins)] += 1
    assert counts.tolist() == expected
    assert at_range == (sum(abs(value) == range_ for value in values.tolist()) if range_ else 0)
    assert np.array_equal(values, before)


@given(st.integers(0, 2 * BINS), st.integers(-130, 127))
def test_floors_and_never_rounds_to_the_nearest_bin(half_bins: int, exponent: int) -> None:
    """A value in the middle of a bin, or at its lower edge, is in that bin."""
    range_ = 2.0**exponent
    counts, _ = count_bins(np.array([half_bins * range_ / (2 * BINS)], np.float32), range_)
    assert counts[min(half_bins // 2, BINS - 1)] == 1


def test_literal_bins() -> None:
    """Range 8 in 4 bins of width 2: |x| of 0, 1.99 | 2, 3 | 5.9 | 6, 8, 8."""
    values = np.array([[0.0, -1.99, 2.0, -3.0], [5.9, 6.0, -8.0, 8.0]], np.float32)
    counts, at_range = count_bins(values, 8.0, 4)
    assert counts.tolist() == [2, 2, 1, 3]
    assert counts.dtype == np.int64
    assert at_range == 2


def test_the_index_rounds_in_float32() -> None:
    """0.5 * 2048 / 0.8 is 1279.99998 with float32's 0.8 and an exact quotient, and 1280 with a float32 quotient."""
    assert 0.5 * BINS / float(np.float32(0.8)) < 1280
    counts, _ = count_bins(np.array([0.5], np.float32), float(np.float32(0.8)))
    assert np.flatnonzero(counts).tolist() == [1280]


def test_one_ulp_below_the_range_is_in_the_last_bin_but_not_at_the_range() -> None:
    counts, at_range = count_bins(np.array([np.nextafter(np.float32(1), np.float32(0))]), 1.0)
    assert (counts[-1], at_range) == (1, 0)


@pytest.mark.parametrize(
    ("values", "range_", "bins"),
    [
        ([SMALLEST], SMALLEST, [BINS - 1]),
        ([SMALLEST, 2 * SMALLEST, 3 * SMALLEST], 4 * SMALLEST, [512, 1024, 1536]),  # no flush to zero
        ([2.0**117, 2.0**118, 2.0**127], 2.0**127, [2, 4, BINS - 1]),  # a * 2048 would overflow
        ([FLT_MAX, 2.0**127, SMALLEST], FLT_MAX, [0, 1024, BINS - 1]),
        ([FLT_MAX, 2.0**127, 1.0], 2.0**128, [0, 1024, BINS - 1]),  # past float32
        ([FLT_MAX, 2.0**127, SMALLEST], 1.5 * 2.0**128, [0, 682, 1365]),
        ([FLT_MAX, 0.0], 2.0**139, [0, 0]),
        ([FLT_MAX], 2.0**300, [0]),
    ],
)
def test_extreme_ranges(values: list[float], range_: float, bins: list[int]) -> None:
    counts, _ = count_bins(np.array(values, np.float32), range_)
    assert np.repeat(np.arange(BINS), counts).tolist() == bins


@given(arrays(np.float32, st.integers(1, 20), elements=finite), st.floats(0.5, 1, exclude_min=True, width=32))
def test_past_float32_nothing_equals_the_range(values: NDArray[np.float32], fraction: float) -> None:
    range_ = fraction * 2.0**129
    counts, at_range = count_bins(values, range_)
    expected = [0] * BINS
    for value in values.tolist():
        expected[plain_index(abs(value), range_, BINS)] += 1
    assert counts.tolist() == expected
    assert at_range == 0


@pytest.mark.parametrize("excess", [math.nan, math.inf])
def test_past_float32_only_what_is_not_finite_exceeds_the_range(excess: float) -> None:
    counts = np.zeros(BINS, np.int64)
    top, at_range = tally(np.array([1.0, excess], np.float32), 2.0**128, counts, new_scratch())
    assert top == int(np.float32(excess).view(np.uint32)) > bits_of_range(2.0**128)
    assert at_range == 0
    assert not counts.any()


@pytest.mark.parametrize(
    ("range_", "bits"),
    [(1.0, 0x3F800000), (SMALLEST, 1), (FLT_MAX, 0x7F7FFFFF), (2.0**128, 0x7F7FFFFF), (2.0**200, 0x7F7FFFFF)],
)
def test_bits_of_a_range_stop_at_the_largest_float32(range_: float, bits: int) -> None:
    assert bits_of_range(range_) == bits


@pytest.mark.parametrize(
    ("values", "range_", "message"),
    [
        ([0.0, -0.5], 0.0, r"value .*0\.5.* exceeds the range 0$"),
        ([1.0, 3.0], 2.0, r"value .*3\.0.* exceeds the range 2\.0$"),
        ([1.0, -math.inf], 2.0, r"value .*inf.* exceeds the range 2\.0$"),
        ([math.nan], 2.0, r"value .*nan.* exceeds the range 2\.0$"),
        ([math.inf], 2.0**128, r"value .*inf.* exceeds the range 3\.4"),
    ],
)
def test_values_outside_the_range_are_named(values: list[float], range_: float, message: str) -> None:
    with pytest.raises(HistogramError, match=message):
        count_bins(np.array(values, np.float32), range_)


def test_zeros_in_a_range_of_zero_are_in_the_first_bin() -> None:
    counts, at_range = count_bins(np.array([0.0, -0.0], np.float32), 0.0)
    assert counts.tolist() == [2] + [0] * (BINS - 1)
    assert at_range == 0


@settings(max_examples=20)
@given(st.integers(0, 3), st.integers(1, LANES_FROM * 3))
def test_equal_values_in_all_lanes_are_all_counted(quarter: int, size: int) -> None:
    counts, _ = count_bins(np.full(size, quarter / 4, np.float32), 1.0)
    assert counts[quarter * BINS // 4] == size == counts.sum()


TIMES_BLOCK = 4096  # values per step of the kernel that counts the largest


@given(arrays(np.float32, st.integers(0, 40), elements=any_float | st.sampled_from([0.0, -0.0, 1.5, -1.5])))
def test_the_largest_magnitude_and_how_often_it_occurs(values: NDArray[np.float32]) -> None:
    top, times = largest_and_times(values)
    bits = [int(value.view(np.uint32)) & 0x7FFFFFFF for value in values]
    assert top == largest_bits(values) == max(bits, default=0)
    assert times == bits.count(top)
    assert (top, times) == tuple(map(int, _times_kernel.python(values)))
    assert type(top) is type(times) is int


@pytest.mark.parametrize("kernel", [_times_kernel, _times_kernel.python], ids=["compiled", "python"])
@pytest.mark.parametrize("last", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("size", [TIMES_BLOCK - 1, TIMES_BLOCK, TIMES_BLOCK + 1, 2 * TIMES_BLOCK + 5])
def test_the_largest_is_counted_over_all_blocks(kernel: Callable[..., tuple[int, int]], size: int, last: float) -> None:
    """Two in the first block, and in the last place less, the same, or more."""
    values = np.full(size, 0.5, np.float32)
    values[[1, 7, -1]] = [2, -2, last]
    expected = {1.0: (2, 2), 2.0: (2, 3), 3.0: (3, 1)}[last]
    top, times = kernel(values)
    assert (float(np.uint32(top).view(np.float32)), int(times)) == expected


def test_zeros_are_counted_as_the_largest_too_and_no_values_are_none() -> None:
    assert largest_and_times(np.zeros(TIMES_BLOCK + 3, np.float32)) == (0, TIMES_BLOCK + 3)
    assert largest_and_times(np.zeros(0, np.float32)) == (0, 0)
