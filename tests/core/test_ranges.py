"""Ranges over batches: the streaming tally, the ledger, and the planned policies, on values that are easy to follow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtcalib.core.cache import is_writable, make_cache
from trtcalib.core.histogram import clipped_share, collect_histogram
from trtcalib.core.planned import PlannedTally, plan_ranges, planned_histogram
from trtcalib.core.ranges import Ledger, Tally
from trtcalib.core.tally import INFINITY_BITS, _largest_kernel, largest_bits


@given(st.lists(st.floats(width=32), max_size=40))
def test_the_largest_bits_order_infinity_and_nan_on_top(numbers: list[float]) -> None:
    values = np.array(numbers, np.float32)
    top = largest_bits(values)
    assert top == _largest_kernel.python(values)
    if np.isnan(values).any():
        assert top > INFINITY_BITS
    elif values.size:
        assert np.uint32(top).view(np.float32) == np.abs(values).max()
    else:
        assert top == 0


def test_a_value_equal_to_the_range_is_clamped_only_where_the_batch_does_not_double_it() -> None:
    first = np.array([2.0], np.float32)
    tally, ledger = Tally(first, 8), Ledger(first, 8)
    # Batch 0 holds the 2.0 that made the range; batch 1 holds another 2.0, and a 3.0 that doubles the range to 4.
    for batch, values in ((0, [2.0]), (1, [2.0]), (1, [3.0])):
        ledger.add(batch, tally.add(batch, [np.array(values, np.float32)]))
    ledger.end_batch()
    found = ledger.histogram(0, [tally])
    assert found is not None
    # Clamped into bin 7 of [0, 2], then bin 3 of [0, 4]; counted right in bin 4; and 3.0 in bin 6.
    assert found.counts.tolist() == [0, 0, 0, 1, 1, 0, 1, 0]
    assert (found.range, found.doublings, found.clamped, found.maximum) == (4, 1, 1, 3)


def test_a_tally_tells_of_nan_and_counts_infinities_whether_it_knows_the_range_or_not() -> None:
    values = np.array([1, np.inf, -np.inf, 3], np.float32)
    for first in (0.0, 2.0):
        record = Tally(np.array([first], np.float32), 8).add(0, [values])
        assert (record.infinite[0], record.sizes[0], record.nan) == (2, 2, ())
        assert np.uint32(record.bits[0]).view(np.float32) == 3
        assert Tally(np.array([first], np.float32), 8).add(0, [values * np.float32(np.nan)]).nan == (0,)


def test_tensors_that_were_not_produced_or_are_empty_leave_no_trace() -> None:
    record = Tally(np.array([1.0, 1.0], np.float32), 8).add(0, [None, np.zeros((0, 3), np.float32)])
    assert not record.sizes.any()
    assert not record.bits.any()


@pytest.mark.parametrize("policy", ["global", "square", "extend"])
def test_planned_policies_leave_out_infinities_and_take_tensors_of_zeros(policy: str) -> None:
    values = [np.array([0, 0], np.float32), np.array([1.5, np.inf], np.float32), np.zeros(0, np.float32)]
    zeros = plan_ranges(policy, np.zeros(3, np.float32), 8)
    plan = plan_ranges(policy, np.array([0, 1.5, 0], np.float32), 8)
    tally = PlannedTally([zeros, plan])
    infinite = [
        tally.add(batch, [array * 0 if batch == 0 else None, array]).infinite[1] for batch, array in enumerate(values)
    ]
    assert infinite == [0, 1, 0]
    assert planned_histogram(zeros, 0, [tally]).counts.tolist() == [2] + [0] * 7
    found = planned_histogram(plan, 1, [tally])
    assert found.counts.tolist() == [2, 0, 0, 0, 0, 0, 0, 1]
    assert (found.first_max, found.maximum, found.clamped) == (1.5, 1.5, 1)


def test_the_clipped_share_counts_the_bins_wholly_beyond_amax() -> None:
    histogram = collect_histogram([np.arange(1, 9, dtype=np.float32)], bins=8)
    assert histogram.counts.tolist() == [0, 1, 1, 1, 1, 1, 1, 2]
    assert clipped_share(histogram, 8.0) == 0
    assert clipped_share(histogram, 7.0) == 2 / 8
    assert clipped_share(histogram, 6.5) == 2 / 8
    assert clipped_share(histogram, 100.0) == 0
    assert clipped_share(collect_histogram([np.zeros(3)]), 0.0) == 0


def test_a_lone_surrogate_that_utf_8_cannot_hold_cannot_stand_in_a_cache() -> None:
    assert is_writable("conv\udcff")
    assert not is_writable("conv\ud800")
    with pytest.raises(ValueError, match="cannot stand on a line"):
        make_cache({"\ud800": np.float32(1)}, "8.6.1", "EntropyCalibration2")
