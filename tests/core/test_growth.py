"""Ranges replayed from the samples' maxima: every batch size and order gives the histogram of batch after batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from tests.core.oracles import plain_histogram
from trtcalib.core.growth import Growth, MaximaTally, SampleMaxima, replay, with_clamped
from trtcalib.core.histogram import Histogram, collect_histogram, merge, range_to_float32
from trtcalib.core.many_ranges import Intervals
from trtcalib.core.tally import BINS, INFINITY_BITS

Values = NDArray[np.float32]

FLT_MAX = float(np.finfo(np.float32).max)
SMALLEST = 2.0**-149

# Few mantissas and exponents: ties and values that equal a range, now or after some doublings, are frequent.
coarse = st.builds(lambda mantissa, exponent: mantissa * 2.0**exponent, st.integers(-8, 8), st.integers(-4, 4))
extreme = st.sampled_from([0.0, -0.0, SMALLEST, -3 * SMALLEST, 2.0**-126, 1.5 * 2.0**127, FLT_MAX, -FLT_MAX])
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
samples_of = {
    "coarse": st.lists(arrays(np.float32, st.integers(0, 6), elements=coarse), min_size=1, max_size=9),
    "any": st.lists(arrays(np.float32, st.integers(0, 6), elements=coarse | extreme | finite), min_size=1, max_size=9),
}
kinds = st.sampled_from(sorted(samples_of))
bins = st.sampled_from([2, 6, 16, 128, 130, BINS])


@dataclass(frozen=True)
class Layout:
    """Samples of two tensors, in an order and batches."""

    tensors: tuple[list[Values], list[Values]]
    order: NDArray[np.int64]
    size: int

    def batches(self, t: int) -> list[Values]:
        """The batches of one tensor, as calibrate would see them."""
        values = [self.tensors[t][position] for position in self.order]
        return [np.concatenate(values[i : i + self.size]) for i in range(0, len(values), self.size)]


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    first = draw(draw(kinds.map(samples_of.__getitem__)))
    # Another tensor with values of its own: what belongs to one must not show in the other.
    second = [draw(st.sampled_from(first)) * np.float32(draw(st.sampled_from([0, 0.5, 1]))) for _ in first]
    order = np.array(draw(st.permutations(range(len(first)))), np.int64)
    return Layout((first, second), order, draw(st.integers(1, len(first) + 1)))


def maxima_of(*tensors: list[Values]) -> SampleMaxima:
    """What the pass for the maxima leaves, one record per sample."""
    tally = MaximaTally()
    records = [tally.add(0, arrays_) for arrays_ in zip(*tensors, strict=True)]
    return SampleMaxima(
        np.stack([record.bits.astype(np.uint32).view(np.float32) for record in records]),
        np.stack([record.at_range for record in records]),
    )


def histogram(values: list[Values], growth: Growth, t: int, bins: int) -> Histogram:
    """Put a tensor's histogram together: plain counts over its final range, and the clamped values moved."""
    flat = np.concatenate(values)
    range_, doublings = float(growth.ranges[t]), int(growth.doublings[t])
    counts = np.zeros(bins, np.int64)
    counts[0] = flat.size
    if range_:
        intervals = Intervals([2 * range_, range_, 8 * range_], bins)
        by_interval = intervals.new_counts()
        intervals.count(flat, by_interval)
        counts = with_clamped(
            intervals.histogram(intervals.cumulated(by_interval), range_), growth.clamped[t], doublings
        )
    return Histogram(
        counts=counts,
        range=range_to_float32(range_),
        first_max=growth.first_max[t],
        maximum=np.abs(flat).max(initial=0),
        doublings=doublings,
        clamped=sum(growth.clamped[t].values()),
    )


@settings(max_examples=300)
@given(layouts(), bins)
def test_any_order_and_batch_size_is_batch_after_batch_bit_for_bit(layout: Layout, bins: int) -> None:
    growth = replay(maxima_of(*layout.tensors), layout.order, layout.size)
    for t, values in enumerate(layout.tensors):
        assert histogram(values, growth, t, bins) == collect_histogram(layout.batches(t), bins=bins)


@given(layouts())
def test_what_is_told_of_the_growth_is_what_one_value_at_a_time_shows(layout: Layout) -> None:
    growth = replay(maxima_of(*layout.tensors), layout.order, layout.size)
    for t in range(2):
        batches = layout.batches(t)
        tops = [float(np.abs(batch).max(initial=0)) for batch in batches]
        assert growth.batch_maxima[:, t].tolist() == tops
        assert growth.first_batch[t] == next((b for b, top in enumerate(tops) if top > 0), -1)
        assert growth.first_max[t] == next((top for top in tops if top > 0), 0)
        clamps: dict[int, int] = {}
        for b in range(len(batches)):
            plain = plain_histogram(batches[: b + 1], 2)
            level, count = plain.clamps[-1]
            assert growth.after[b, t] == level == plain.doublings
            if count:
                clamps[level] = clamps.get(level, 0) + count
        assert growth.clamped[t] == clamps
        assert growth.doublings[t] == growth.after[-1, t]
        assert growth.ranges[t] == float(growth.first_max[t]) * 2.0 ** int(growth.doublings[t])


@given(layouts(), st.randoms(use_true_random=False))
def test_permuting_the_samples_inside_a_batch_changes_nothing(layout: Layout, random) -> None:
    inside = [layout.order[i : i + layout.size].tolist() for i in range(0, layout.order.size, layout.size)]
    for batch in inside:
        random.shuffle(batch)  # a list: a shuffled array would be a view of the order itself
    maxima = maxima_of(*layout.tensors)
    one = replay(maxima, layout.order, layout.size)
    other = replay(maxima, np.concatenate(inside), layout.size)
    assert np.array_equal(one.after, other.after)
    assert np.array_equal(one.batch_maxima, other.batch_maxima)
    assert (one.first_max.tolist(), one.first_batch.tolist()) == (other.first_max.tolist(), other.first_batch.tolist())
    assert one.clamped == other.clamped


@given(layouts(), st.integers(0, 3))
def test_all_in_one_batch_never_doubles_and_knows_no_order(layout: Layout, more: int) -> None:
    maxima = maxima_of(*layout.tensors)
    growth = replay(maxima, layout.order, layout.order.size + more)
    straight = replay(maxima, np.arange(layout.order.size), layout.order.size)
    assert growth.after.shape == (1, 2)
    assert not growth.doublings.any()
    assert growth.clamped == straight.clamped
    for t, values in enumerate(layout.tensors):
        assert growth.first_max[t] == growth.ranges[t] == np.abs(np.concatenate(values)).max(initial=0)
        assert histogram(values, growth, t, 16) == collect_histogram([np.concatenate(values)], bins=16)


@given(layouts(), bins)
def test_shards_from_one_first_maximum_merge_to_the_whole(layout: Layout, bins: int) -> None:
    """As merge() allows: the first shard's range never doubles, and the second starts from the same sample."""
    first, rest = layout.tensors[0][0], layout.tensors[0][1:]
    top = np.abs(first).max(initial=0)
    small = [np.clip(values, -top, top) for values in rest]
    if not top:
        return
    shards = [[first, *small], [first, *rest]]
    order = [np.arange(len(shard)) for shard in shards]
    parts = [histogram(shard, replay(maxima_of(shard), o, 1), 0, bins) for shard, o in zip(shards, order, strict=True)]
    whole = shards[0] + shards[1]
    assert merge(*parts) == histogram(whole, replay(maxima_of(whole), np.arange(len(whole)), 1), 0, bins)


@given(layouts())
def test_without_a_sample_is_as_if_its_batch_never_held_it(layout: Layout) -> None:
    maxima = maxima_of(*layout.tensors)
    before = maxima.maxima.copy(), maxima.times.copy()
    growth = replay(maxima.without(maxima.largest), layout.order, layout.size)
    assert np.array_equal(maxima.maxima, before[0])
    assert np.array_equal(maxima.times, before[1])
    for t, values in enumerate(layout.tensors):
        tops = [float(np.abs(sample).max(initial=0)) for sample in values]
        gone = tops.index(max(tops))
        assert maxima.largest[t] == gone
        emptied = [sample[:0] if position == gone else sample for position, sample in enumerate(values)]
        tensors = (emptied, emptied)
        expected = collect_histogram(Layout(tensors, layout.order, layout.size).batches(0), bins=16)
        assert histogram(emptied, growth, t, 16) == expected


class TestLiterals:
    def grown(self, samples: list[list[float]], size: int = 1) -> Growth:
        values = [np.array(sample, np.float32) for sample in samples]
        return replay(maxima_of(values), np.arange(len(values)), size)

    def test_1_54_then_2_4_doubles_to_3_08_and_not_to_the_square_of_2_4(self) -> None:
        growth = self.grown([[1.54], [2.4]])
        assert growth.ranges[0] == 2 * float(np.float32(1.54))
        assert growth.ranges[0] == pytest.approx(3.08)
        assert growth.after[:, 0].tolist() == [0, 1]
        assert growth.doublings.tolist() == [1]
        # The first maximum was clamped before the range doubled.
        assert growth.clamped == ({0: 1},)

    def test_a_value_equal_to_the_range_is_clamped_and_then_doubled(self) -> None:
        """4 bins. [2, 2, 1]: 2 is the range, so both lie in bin 3 of [0, 2] and in bin 1 of [0, 4]; by value in bin 2."""
        growth = self.grown([[2, -2, 1], [3]])
        assert growth.clamped == ({0: 2},)
        plain = np.array([0, 1, 2, 1], np.int64)
        assert with_clamped(plain, growth.clamped[0], 1).tolist() == [0, 3, 0, 1]
        assert plain.tolist() == [0, 1, 2, 1]

    def test_clamped_at_two_levels(self) -> None:
        """1, then 2 = the doubled range, then 8: 1 is two doublings behind after 2, 2 is; in all 3 and 2 behind."""
        growth = self.grown([[1], [2], [2], [8], [8]])
        assert growth.after[:, 0].tolist() == [0, 1, 1, 3, 3]
        assert growth.clamped == ({0: 1, 1: 2, 3: 2},)
        # Over [0, 8] in 8 bins: 1 in bin 1, moved to 7 >> 3 = 0; both 2 in bin 2, moved to 7 >> 2 = 1; 8 in bin 7 either way.
        counts = with_clamped(np.array([0, 1, 2, 0, 0, 0, 0, 2], np.int64), growth.clamped[0], 3)
        assert counts.tolist() == [1, 2, 0, 0, 0, 0, 0, 2]

    @pytest.mark.parametrize(("behind", "moved"), [(11, [-1, 1]), (12, [0, 0]), (200, [0, 0])])
    def test_after_twelve_doublings_a_clamped_value_is_where_it_would_be(self, behind: int, moved: list[int]) -> None:
        """2047 >> 11 = 0 and 2048 >> 11 = 1; from 12 on both are 0."""
        counts = with_clamped(np.full(BINS, 9, np.int64), {3: 1}, 3 + behind) - 9
        assert [counts[1], counts[0]] == moved
        assert not counts[2:].any()

    def test_zeros_before_the_first_value_belong_to_no_range(self) -> None:
        growth = self.grown([[0, 0], [], [0], [0.5], [1.5]])
        assert (growth.first_batch[0], growth.first_max[0]) == (3, 0.5)
        assert growth.after[:, 0].tolist() == [0, 0, 0, 0, 2]

    def test_a_tensor_of_zeros_has_no_first_batch(self) -> None:
        growth = self.grown([[0], [0, -0.0]])
        assert (growth.first_batch[0], growth.first_max[0], growth.ranges[0]) == (-1, 0, 0)
        assert growth.clamped == ({},)

    def test_from_the_smallest_float32_to_the_largest_are_277_doublings(self) -> None:
        growth = self.grown([[SMALLEST], [FLT_MAX]])
        assert growth.doublings[0] == 277
        assert growth.ranges[0] == 2.0**128
        assert growth.after.dtype == np.int16

    def test_the_same_sample_maximum_in_two_batches_of_one_level_adds_up(self) -> None:
        assert self.grown([[4, 4], [1], [4]], size=2).clamped == ({0: 3},)


class TestMaximaTally:
    def add(self, *arrays_: object):
        return MaximaTally().add(7, [None if a is None else np.asarray(a) for a in arrays_])

    def test_infinities_are_left_out_and_counted(self) -> None:
        record = self.add(np.array([np.inf, -3, 3, -np.inf, 1], np.float32), np.array([np.inf], np.float32))
        assert record.bits.astype(np.uint32).view(np.float32).tolist() == [3, 0]
        assert record.at_range.tolist() == [2, 0]
        assert record.sizes.tolist() == [3, 0]
        assert record.infinite.tolist() == [2, 1]
        assert record.nan == ()

    def test_nan_is_told_also_beside_infinity(self) -> None:
        nan = np.array([np.nan], np.float32)
        both = np.array([[np.inf, np.nan]], np.float32)
        assert self.add(nan, np.ones(1, np.float32), both).nan == (0, 2)

    def test_what_is_missing_or_empty_leaves_no_trace(self) -> None:
        record = self.add(None, np.zeros((0, 3), np.float32))
        assert not any(part.any() for part in (record.bits, record.at_range, record.sizes, record.infinite))

    def test_other_types_are_taken_as_float32(self) -> None:
        record = self.add(np.array([[1.5, -2.5]], np.float16), np.array([1e300, 0.1]))
        assert record.bits.astype(np.uint32).view(np.float32).tolist() == [2.5, float(np.float32(0.1))]
        assert record.infinite.tolist() == [0, 1]
        assert INFINITY_BITS not in record.bits
