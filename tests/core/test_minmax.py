"""MinMax: the running maximum of |x|, whatever the histogram's range."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from trtcalib.core.histogram import collect_histogram
from trtcalib.core.minmax import minmax_amax
from trtcalib.core.scale import bits_from_scale, scale_from_amax

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
batches = st.lists(arrays(np.float32, array_shapes(max_dims=3, max_side=4, min_side=0), elements=finite), max_size=4)


@given(batches)
def test_amax_is_the_largest_magnitude_of_all_batches(data: list[np.ndarray]) -> None:
    copies = [batch.copy() for batch in data]
    amax = minmax_amax(collect_histogram(data))
    assert amax.dtype == np.float32
    assert amax == max((abs(float(value)) for batch in data for value in batch.ravel()), default=0.0)
    assert all(np.array_equal(batch, copy) for batch, copy in zip(data, copies, strict=True))


@given(batches.filter(lambda data: any(batch.any() for batch in data)), st.randoms())
def test_the_order_of_the_batches_does_not_matter(data: list[np.ndarray], random: Random) -> None:
    shuffled = list(data)
    random.shuffle(shuffled)
    assert minmax_amax(collect_histogram(shuffled)) == minmax_amax(collect_histogram(data))


@pytest.mark.parametrize(
    ("data", "bits"),
    [
        ([[1.0, -127.0, 3.0]], 0x3F800000),  # |min| counts; 127 / 127
        ([[1.0], [3.0]], 0x3CC18306),  # 3 / 127, though the range of the histogram is 4
        ([[0.0, -0.0]], 0),
        ([], 0),
    ],
)
def test_literal_scales_have_no_half_bin_and_no_doubling(data: list[list[float]], bits: int) -> None:
    assert bits_from_scale(scale_from_amax(minmax_amax(collect_histogram(data)))) == bits
