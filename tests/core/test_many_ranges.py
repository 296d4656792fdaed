"""Counting over many ranges at once gives for each what counting over it alone gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from tests.core.oracles import plain_index
from trtcalib.core import many_ranges
from trtcalib.core.many_ranges import Intervals, _count_kernel, bin_edges, bins_of
from trtcalib.core.tally import BINS, bits_of_range, count_bins

FLT_MAX = float(np.finfo(np.float32).max)
SMALLEST = 2.0**-149

coarse = st.builds(lambda mantissa, exponent: mantissa * 2.0**exponent, st.integers(1, 24), st.integers(-8, 8))
awkward = st.sampled_from([SMALLEST, 3 * SMALLEST, 2.0**-126, 2.0**-120, 2.0**127, FLT_MAX, 2.0**128, 1.5 * 2.0**130])
ranges = st.one_of(coarse, st.floats(SMALLEST, FLT_MAX, width=32), awkward)
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
values = arrays(np.float32, st.integers(0, 40), elements=coarse | coarse.map(lambda v: -v) | finite | st.just(0.0))
bins = st.sampled_from([2, 6, 128, 130, BINS])


def counted(numbers: NDArray[np.float32], over: list[float], size: int) -> Intervals | NDArray[np.int64]:
    intervals = Intervals(over, size)
    counts = intervals.new_counts()
    intervals.count(numbers, counts)
    return intervals, counts


@settings(max_examples=200)
@given(values, st.lists(ranges, min_size=1, max_size=6), bins)
def test_each_range_counts_as_it_would_alone(numbers: NDArray[np.float32], over: list[float], size: int) -> None:
    """Values beyond a range are left out of it; near-by values of every range are among the values."""
    with np.errstate(over="ignore"):
        at = np.array([r for range_ in over for r in (range_, range_ / 2, range_ / size)], np.float32)
    numbers = np.concatenate([numbers, at[np.isfinite(at)], -np.nextafter(at[np.isfinite(at)], np.float32(0))])
    before = numbers.copy()
    intervals, counts = counted(numbers, over, size)
    assert np.array_equal(numbers.view(np.uint32), before.view(np.uint32))
    assert counts.sum() == numbers.size
    for range_ in over:
        inside = numbers[np.abs(numbers).astype(np.float64) <= range_]
        assert (
            intervals.histogram(intervals.cumulated(counts), range_).tolist()
            == count_bins(inside, range_, size)[0].tolist()
        )


@given(values, st.lists(ranges, min_size=1, max_size=4), ranges)
def test_another_range_changes_no_other(numbers: NDArray[np.float32], over: list[float], more: float) -> None:
    one, counts = counted(numbers, over, 128)
    other, more_counts = counted(numbers, [more, *over], 128)
    for range_ in over:
        assert np.array_equal(
            one.histogram(one.cumulated(counts), range_), other.histogram(other.cumulated(more_counts), range_)
        )


@given(values, st.lists(ranges, min_size=1, max_size=3), st.integers(0, 40))
def test_counting_in_pieces_adds_up(numbers: NDArray[np.float32], over: list[float], cut: int) -> None:
    intervals, whole = counted(numbers, over, 128)
    pieces = intervals.new_counts()
    intervals.count(np.ascontiguousarray(numbers[:cut]), pieces)
    intervals.count(np.ascontiguousarray(numbers[cut:]), pieces)
    for range_ in over:
        assert np.array_equal(
            intervals.histogram(intervals.cumulated(pieces), range_),
            intervals.histogram(intervals.cumulated(whole), range_),
        )


@pytest.mark.parametrize("cells", [1, 2, 7])
@pytest.mark.parametrize("size", [1023, 1025, 5000])
def test_many_values_in_blocks_and_any_grid(size: int, cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many_ranges, "CELLS_PER_EDGE", cells)
    rng = np.random.default_rng(size)
    numbers = np.where(rng.random(size) < 0.5, 0, rng.normal(size=size)).astype(np.float32)
    top = float(np.abs(numbers).max())
    intervals, counts = counted(numbers, [top, 1.3 * top, 2 * top, top / 1000], BINS)
    for range_ in intervals.ranges:
        inside = numbers[np.abs(numbers) <= range_]
        assert (
            intervals.histogram(intervals.cumulated(counts), range_).tolist() == count_bins(inside, range_)[0].tolist()
        )


@given(values, st.lists(ranges, min_size=1, max_size=3))
def test_the_compiled_kernel_equals_its_python_form(numbers: NDArray[np.float32], over: list[float]) -> None:
    intervals = Intervals(over, 16)
    compiled, python = intervals.new_counts(), intervals.new_counts()
    arguments = (numbers, intervals._padded, intervals._below, intervals._scale)
    _count_kernel(*arguments, compiled)
    _count_kernel.python(*arguments, python)
    assert compiled.tolist() == python.tolist()


@given(arrays(np.float32, st.integers(1, 20), elements=finite), ranges, bins)
def test_the_bin_is_that_of_one_value_at_a_time(numbers: NDArray[np.float32], range_: float, size: int) -> None:
    range_ = max(range_, float(np.abs(numbers).max()))
    if size & (size - 1):
        size = 128  # the slow loop multiplies first, which is the same for powers of two alone
    found = bins_of(np.abs(numbers), range_, size)
    assert found.tolist() == [plain_index(abs(value), range_, size) for value in numbers.tolist()]


def below(value: np.float32) -> np.float32:
    """The next smaller magnitude; not through arithmetic, which could flush what is subnormal."""
    return (np.float32(value).view(np.uint32) - np.uint32(1)).view(np.float32)


@pytest.mark.parametrize("near", [0, 8])
@pytest.mark.parametrize(
    "range_", [1.0, 0.7, 3.3e-5, 2.0**-120, 2.0**-140, 5 * SMALLEST, SMALLEST, 1e38, FLT_MAX, 2.0**128, 1.7 * 2.0**129]
)
def test_an_edge_is_the_smallest_value_of_its_bin(range_: float, near: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many_ranges, "_NEAR", near)
    edges = bin_edges(range_)
    assert edges.size == BINS - 1
    top = np.uint32(bits_of_range(range_)).view(np.float32)
    for number in (1, 2, 3, 511, 512, 1023, 1024, 2046, 2047):
        edge = edges[number - 1]
        if np.isinf(edge):
            assert range_ > FLT_MAX
            assert bins_of(np.array([top]), range_)[0] < number
            continue
        if edge <= top:
            assert bins_of(np.array([edge]), range_)[0] >= number
        assert bins_of(np.array([min(below(edge), top)]), range_)[0] < number
    assert (np.diff(edges.view(np.uint32).astype(np.int64)) >= 0).all()


def test_literal_edges_and_intervals() -> None:
    """Ranges 4 and 6 in 2 bins: edges 2 and 3; values beyond 4 are in none of its bins."""
    assert bin_edges(4.0, 2).tolist() == [2]
    assert bin_edges(6.0, 2).tolist() == [3]
    intervals, counts = counted(np.array([0, 1.9, -2, 2.9, 3, 4, 4.1, -6, 7], np.float32), [6.0, 4.0, 6.0], 2)
    assert intervals.ranges == (4.0, 6.0)
    assert intervals.histogram(intervals.cumulated(counts), 4.0).tolist() == [2, 4]
    assert intervals.histogram(intervals.cumulated(counts), 6.0).tolist() == [4, 4]


def test_a_range_that_was_not_asked_for_is_refused() -> None:
    intervals, counts = counted(np.ones(1, np.float32), [1.0], 2)
    with pytest.raises(KeyError):
        intervals.histogram(intervals.cumulated(counts), 2.0)


def test_every_call_gives_counts_of_its_own() -> None:
    intervals = Intervals([1.0], 2)
    first = intervals.new_counts()
    intervals.count(np.ones(3, np.float32), first)
    assert not intervals.new_counts().any()
    assert first.sum() == 3
    assert first.size == intervals.size
