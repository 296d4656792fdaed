"""Collecting, doubling and merging: TensorRT's range policy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from tests.core.oracles import PlainHistogram, plain_histogram
from trtcalib.core.histogram import Histogram, collect_histogram, double, double_counts, doublings_needed, merge
from trtcalib.core.tally import BINS, count_bins
from trtcalib.errors import HistogramError

Batches = list[NDArray[np.float32]]

FLT_MAX = float(np.finfo(np.float32).max)
SMALLEST = 2.0**-149
SMALL_BINS = 128

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
# Few mantissas and exponents: values that equal a range, now or after some doublings, are frequent.
coarse = st.builds(lambda mantissa, exponent: mantissa * 2.0**exponent, st.integers(-8, 8), st.integers(-4, 4))
batches = st.lists(arrays(np.float32, st.integers(0, 8), elements=coarse | finite), max_size=5)
coarse_batches = st.lists(arrays(np.float32, st.integers(0, 8), elements=coarse), max_size=6)
positive = st.floats(SMALLEST, FLT_MAX, width=32)


def same(histogram: Histogram, plain: PlainHistogram) -> bool:
    return (
        histogram.counts.tolist() == plain.counts
        and (histogram.range, histogram.first_max) == (plain.range, plain.first_max)
        and (histogram.doublings, histogram.clamped) == (plain.doublings, plain.clamped)
    )


def ranges(histogram: Histogram) -> tuple[float, float, float]:
    """The range, the first maximum and the true maximum."""
    return float(histogram.range), float(histogram.first_max), float(histogram.maximum)


@given(batches, st.sampled_from([2, SMALL_BINS, BINS]))
def test_agrees_with_one_value_at_a_time(data: Batches, bins: int) -> None:
    copies = [batch.copy() for batch in data]
    histogram = collect_histogram(data, bins=bins)
    assert same(histogram, plain_histogram(data, bins))
    assert histogram.maximum == max((abs(float(value)) for batch in data for value in batch), default=0)
    assert histogram.total == sum(batch.size for batch in data)
    assert all(np.array_equal(batch, copy) for batch, copy in zip(data, copies, strict=True))


@given(coarse_batches)
def test_agrees_with_one_value_at_a_time_where_maxima_equal_ranges(data: Batches) -> None:
    assert same(collect_histogram(data, bins=SMALL_BINS), plain_histogram(data, SMALL_BINS))


@given(coarse_batches.filter(lambda data: any(batch.any() for batch in data)))
def test_doubling_gives_the_plain_histogram_of_the_final_range_except_for_clamped_values(data: Batches) -> None:
    """floor(floor(y) / 2) = floor(y / 2); a clamped value stays one bin lower until both bins are bin 0."""
    histogram = collect_histogram(data, bins=SMALL_BINS)
    values = np.concatenate(data)
    expected, _ = count_bins(values, float(histogram.first_max) * 2.0**histogram.doublings, SMALL_BINS)
    for doublings, count in plain_histogram(data, SMALL_BINS).clamps:
        later = histogram.doublings - doublings
        if later > 0:
            expected[SMALL_BINS >> later] -= count
            expected[(SMALL_BINS - 1) >> later] += count
    assert histogram.counts.tolist() == expected.tolist()


def test_literal_growth_of_the_range() -> None:
    """4 bins. [1, 3, 4]: range 4 -> 0 1 0 2 (4 is clamped). [5]: range 8 -> pairs 1 2 0 0, then 5 / 2 -> bin 2."""
    histogram = collect_histogram([[1.0, 3.0, -4.0], [5.0]], bins=4)
    assert histogram.counts.tolist() == [1, 2, 1, 0]
    assert ranges(histogram) == (8, 4, 5)
    assert (histogram.doublings, histogram.clamped, histogram.total) == (1, 1, 4)
    assert histogram.bins == 4
    assert histogram.width == 2
    assert histogram.counts.dtype == np.int64
    assert histogram.range.dtype == histogram.first_max.dtype == histogram.maximum.dtype == np.float32


def test_a_maximum_equal_to_the_range_does_not_double_it() -> None:
    histogram = collect_histogram([[4.0], [4.0, 2.0]], bins=4)
    assert histogram.counts.tolist() == [0, 0, 1, 2]
    assert (histogram.doublings, histogram.clamped) == (0, 2)


def test_a_value_at_the_old_range_is_counted_in_the_new_one() -> None:
    """The second batch holds 4 and 5: its maximum doubles the range before anything of it is counted."""
    histogram = collect_histogram([[4.0], [4.0, 5.0]], bins=4)
    assert histogram.counts.tolist() == [0, 1, 2, 0]
    assert (histogram.doublings, histogram.clamped) == (1, 1)


def test_zeros_before_the_first_value_are_in_bin_zero() -> None:
    histogram = collect_histogram([[], [0.0, -0.0], [[2.0], [-1.0]]], bins=4)
    assert histogram.counts.tolist() == [2, 0, 1, 1]
    assert histogram.first_max == 2


@pytest.mark.parametrize("data", [[], [[]], [np.zeros((0, 3), np.float32)]])
def test_no_value_at_all_gives_an_empty_histogram(data: list[list[float]]) -> None:
    histogram = collect_histogram(data)
    assert ranges(histogram) == (0, 0, 0)
    assert (histogram.total, histogram.bins) == (0, BINS)


def test_only_zeros_give_a_range_of_zero() -> None:
    histogram = collect_histogram([np.zeros(5, np.float32), np.zeros(2, np.float32)])
    assert ranges(histogram) == (0, 0, 0)
    assert (histogram.doublings, histogram.clamped) == (0, 0)
    assert histogram.counts[0] == histogram.total == 7


def test_float16_and_python_numbers_are_cast_to_float32() -> None:
    assert collect_histogram([np.array([1, 2], np.float16)]) == collect_histogram([[1, 2]])


def test_a_range_past_float32_is_infinite_and_still_counts_right() -> None:
    """3e38 doubles to 6e38: 3.2e38 is then in bin floor(3.2 / 6 * 2048)."""
    histogram = collect_histogram([[3e38], [3.2e38]])
    assert np.isinf(histogram.range)
    assert np.isinf(histogram.width)
    assert (histogram.doublings, histogram.first_max) == (1, np.float32(3e38))
    assert np.flatnonzero(histogram.counts).tolist() == [1023, 1092]


def test_a_tiny_first_maximum_and_a_huge_later_one() -> None:
    """2**-149 * 2**277 = 2**128 is past float32; FLT_MAX is the last value below it."""
    histogram = collect_histogram([[SMALLEST], [FLT_MAX], [FLT_MAX / 2, 0.0]])
    assert histogram.doublings == 277
    assert np.isinf(histogram.range)
    assert np.repeat(np.arange(BINS), histogram.counts).tolist() == [0, 0, 1023, 2047]


@pytest.mark.parametrize(("value", "shown"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "inf")])
def test_a_batch_that_is_not_finite_is_refused(value: float, shown: str) -> None:
    with pytest.raises(HistogramError, match=f"^a batch holds .*{shown}.*: histograms are of finite values$"):
        collect_histogram([[1.0], [0.0, value]])


@pytest.mark.parametrize("bins", [-2, 0, 1, 3, 2047])
def test_a_number_of_bins_that_cannot_be_paired_is_refused(bins: int) -> None:
    with pytest.raises(HistogramError, match=f"^the number of bins must be even and at least 2, got {bins}$"):
        collect_histogram([[1.0]], bins=bins)


@given(positive, positive)
def test_doublings_needed_is_the_smallest_that_reach_the_maximum(first_max: float, maximum: float) -> None:
    doublings = doublings_needed(np.float32(first_max), np.float32(maximum))
    assert first_max * 2.0**doublings >= maximum
    assert doublings == 0 or first_max * 2.0 ** (doublings - 1) < maximum


@given(st.floats(SMALLEST, 2.0**60, width=32), st.integers(0, 60))
def test_doublings_needed_is_exact_at_the_range_and_one_ulp_above(first_max: float, doublings: int) -> None:
    reached = np.float32(first_max * 2.0**doublings)
    assert doublings_needed(first_max, reached) == doublings
    assert doublings_needed(first_max, np.nextafter(reached, np.float32(np.inf))) == doublings + 1


@pytest.mark.parametrize(
    ("first_max", "maximum", "doublings"),
    [
        (1.0, 1.0, 0),
        (1.0, 0.1, 0),
        (1.0, 1.0000001, 1),
        (3.0, 12.0, 2),
        (0.0, 5.0, 0),
        (0.0, 0.0, 0),
        (2.0, 0.0, 0),
        (0.1, 0.0, 0),
    ],
)
def test_literal_doublings(first_max: float, maximum: float, doublings: int) -> None:
    assert doublings_needed(first_max, maximum) == doublings


@pytest.mark.parametrize(
    ("first_max", "maximum"),
    [(-1.0, 1.0), (1.0, -1.0), (math.nan, 1.0), (1.0, math.nan), (1.0, math.inf), (math.inf, 1.0)],
)
def test_ranges_that_are_no_ranges_are_refused(first_max: float, maximum: float) -> None:
    with pytest.raises(
        HistogramError, match=f"^ranges must be finite and not negative, got {first_max} and {maximum}$"
    ):
        doublings_needed(first_max, maximum)


@given(arrays(np.int64, SMALL_BINS, elements=st.integers(0, 10**12)), st.integers(0, 200), st.integers(0, 200))
def test_doubling_twice_is_doubling_by_the_sum(counts: NDArray[np.int64], once: int, again: int) -> None:
    before = counts.copy()
    doubled = double_counts(double_counts(counts, once), again)
    assert np.array_equal(doubled, double_counts(counts, once + again))
    assert np.array_equal(counts, before)
    assert doubled.sum() == counts.sum()
    assert not doubled[SMALL_BINS >> min(once + again, SMALL_BINS.bit_length() - 1) :][1:].any()


def test_literal_doubling() -> None:
    histogram = collect_histogram([[1.0, 2.0, 3.0, 4.0]], bins=4)
    assert histogram.counts.tolist() == [0, 1, 1, 2]
    doubled = double(histogram)
    assert doubled.counts.tolist() == [1, 3, 0, 0]
    assert ranges(doubled) == (8, 4, 4)
    assert (doubled.doublings, doubled.clamped) == (1, 1)
    assert histogram.counts.tolist() == [0, 1, 1, 2]
    assert double(histogram, 0) == histogram
    assert double(doubled, 5).counts.tolist() == [4, 0, 0, 0]
    assert double(doubled, 5).range == 256


def test_a_range_cannot_be_halved() -> None:
    with pytest.raises(HistogramError, match="^a range cannot be halved, got times=-1$"):
        double(collect_histogram([[1.0]]), -1)


def test_an_odd_number_of_bins_cannot_be_doubled() -> None:
    histogram = Histogram(counts=np.ones(3, np.int64), range=np.float32(1), first_max=np.float32(1))
    with pytest.raises(HistogramError, match="^only an even number of bins can be summed in pairs, got 3$"):
        double(histogram)


def shard(first_max: float, values: NDArray[np.float32]) -> Histogram:
    """The histogram of values that a worker collects when all workers share the first maximum."""
    maximum = np.abs(values).max(initial=0)
    doublings = doublings_needed(first_max, maximum) if maximum > 0 else 0
    counts, clamped = count_bins(values, first_max * 2.0**doublings, SMALL_BINS)
    return Histogram(
        counts=counts,
        range=np.float32(first_max * 2.0**doublings),
        first_max=np.float32(first_max),
        maximum=maximum,
        doublings=doublings,
        clamped=clamped,
    )


shards = st.builds(shard, st.sampled_from([0.75, 1.5, 3.0]), arrays(np.float32, st.integers(0, 8), elements=coarse))


@given(shards, shards)
def test_merging_is_commutative_in_what_was_counted(a: Histogram, b: Histogram) -> None:
    before = [a.counts.copy(), b.counts.copy()]
    left, right = merge(a, b), merge(b, a)
    assert left.counts.tolist() == right.counts.tolist()
    assert (left.range, left.maximum, left.clamped) == (right.range, right.maximum, right.clamped)
    assert left.total == a.total + b.total
    assert (left.first_max, right.first_max) == (a.first_max, b.first_max)
    assert float(left.first_max) * 2.0**left.doublings == left.range
    assert all(np.array_equal(histogram.counts, old) for histogram, old in zip((a, b), before, strict=True))


@given(shards, shards, shards)
def test_merging_is_associative(a: Histogram, b: Histogram, c: Histogram) -> None:
    assert merge(merge(a, b), c) == merge(a, merge(b, c))


@given(coarse_batches.filter(lambda data: any(batch.any() for batch in data)))
def test_shards_from_the_same_first_maximum_merge_into_the_whole(data: Batches) -> None:
    whole = collect_histogram(data, bins=SMALL_BINS)
    # A value clamped at a range that another shard had outgrown would be in another bin, so none but at the end.
    clamps = plain_histogram(data, SMALL_BINS).clamps
    assume(all(count == 0 or doublings == whole.doublings for doublings, count in clamps))
    parts = [shard(float(whole.first_max), batch) for batch in data]
    assume(all(part.clamped == 0 or part.doublings == whole.doublings for part in parts))
    merged = parts[0]
    for part in parts[1:]:
        merged = merge(merged, part)
    assert merged == whole


def test_literal_merge_brings_the_smaller_range_to_the_larger() -> None:
    small = collect_histogram([[0.5, 1.5, 2.0]], bins=4)  # range 2: 0 1 0 2
    large = collect_histogram([[8.0, 1.0]], bins=4)  # range 8: 1 0 0 1
    merged = merge(small, large)
    assert merged.counts.tolist() == [4, 0, 0, 1]
    assert ranges(merged) == (8, 2, 8)
    assert (merged.doublings, merged.clamped) == (2, 2)
    other = merge(large, small)
    assert other.counts.tolist() == [4, 0, 0, 1]
    assert ranges(other) == (8, 8, 8)
    assert other.doublings == 0


def test_merging_keeps_apart_two_ranges_past_float32() -> None:
    once = collect_histogram([[3e38], [3.2e38]])
    twice = double(once)
    assert np.isinf(once.range)
    assert np.isinf(twice.range)
    assert merge(once, twice).counts.tolist() == (twice.counts * 2).tolist()


@given(batches)
def test_a_histogram_of_zeros_merges_with_any(data: Batches) -> None:
    histogram = collect_histogram(data, bins=SMALL_BINS)
    zeros = collect_histogram([np.zeros(3, np.float32)], bins=SMALL_BINS)
    for merged in (merge(histogram, zeros), merge(zeros, histogram)):
        assert (merged.counts - histogram.counts).tolist() == [3] + [0] * (SMALL_BINS - 1)
        assert ranges(merged) == ranges(histogram)
        assert (merged.doublings, merged.clamped) == (histogram.doublings, histogram.clamped)


def test_ranges_no_power_of_two_apart_do_not_merge() -> None:
    with pytest.raises(
        HistogramError, match=r"^ranges .*2\.0.* and .*3\.0.* are not a power of two apart, so their .*"
    ):
        merge(collect_histogram([[2.0]]), collect_histogram([[3.0]]))


def test_a_histogram_made_from_counts_and_range_alone_keeps_its_range() -> None:
    made = Histogram(counts=np.array([1, 2, 3, 4]), range=np.float32(2))
    assert double(made).range == 4
    with pytest.raises(HistogramError, match="not a power of two apart"):
        merge(made, Histogram(counts=np.array([1, 2, 3, 4]), range=np.float32(3)))


def test_different_numbers_of_bins_do_not_merge() -> None:
    with pytest.raises(HistogramError, match="^histograms of 4 and 2048 bins cannot be merged$"):
        merge(collect_histogram([[2.0]], bins=4), collect_histogram([[2.0]]))


@pytest.mark.parametrize(
    ("counts", "range_", "message"),
    [
        (np.zeros((2, 2)), 1.0, r"^counts must be one-dimensional and not empty, got shape \(2, 2\)$"),
        ([], 1.0, r"^counts must be one-dimensional and not empty, got shape \(0,\)$"),
        ([1, -2], 1.0, "^counts must not be negative, got -2$"),
        ([1, 2], -1.0, r"^the range must be zero or positive, got .*-1\.0"),
        ([1, 2], math.nan, "^the range must be zero or positive, got .*nan"),
    ],
)
def test_a_histogram_refuses_what_is_none(counts: list[int], range_: float, message: str) -> None:
    with pytest.raises(HistogramError, match=message):
        Histogram(counts=np.array(counts), range=np.float32(range_), first_max=np.float32(1))


def test_a_histogram_is_a_value() -> None:
    counts = np.array([1, 2], np.int64)
    histogram = Histogram(counts=counts, range=np.float32(1), first_max=np.float32(1))
    counts[0] = 9
    assert histogram.counts.tolist() == [1, 2]
    with pytest.raises(ValueError, match="read-only"):
        histogram.counts[0] = 9
    with pytest.raises(AttributeError):
        histogram.range = np.float32(2)  # type: ignore[misc]  # frozen, which is what is tested
    with pytest.raises(TypeError, match="unhashable"):
        hash(histogram)
    assert histogram == Histogram(counts=np.array([1, 2]), range=np.float32(1), first_max=np.float32(1))
    assert histogram != Histogram(counts=np.array([1, 3]), range=np.float32(1), first_max=np.float32(1))
    assert histogram != Histogram(counts=np.array([1, 2]), range=np.float32(2), first_max=np.float32(1))
    assert histogram != "a histogram"


@pytest.mark.parametrize(
    ("range_", "bins", "width"), [(2048.0, BINS, 1.0), (SMALLEST, BINS, 0.0), (3 * SMALLEST, 2, 2 * SMALLEST)]
)
def test_the_width_is_a_float32_quotient(range_: float, bins: int, width: float) -> None:
    histogram = Histogram(counts=np.ones(bins, np.int64), range=np.float32(range_), first_max=np.float32(range_))
    assert histogram.width.dtype == np.float32
    assert histogram.width == width
