"""Which layouts fit: against the plain loop over batches, and small cases by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtcalib.core.agreement import invert, is_whole
from trtcalib.core.entropy import amax_of_bin
from trtcalib.core.histogram import Histogram, doublings_needed
from trtcalib.core.layouts import Layout, first_maxima, fitting_layouts
from trtcalib.core.scale import scale_from_amax
from trtcalib.core.tally import BINS


def histogram(range_):
    return Histogram(counts=np.ones(BINS, np.int64), range=np.float32(range_))


def scale(m, range_):
    return scale_from_amax(amax_of_bin(m, histogram(range_)))


def plain_range(batches):
    """TensorRT's rule, batch by batch: the first maximum that is not zero, doubled until the batch is held."""
    first, doublings = np.float32(0), 0
    for batch in batches:
        if first == 0:
            first = batch.max()
        doublings = max(doublings, doublings_needed(first, batch.max()))
    return np.float32(first * 2.0**doublings)


def plain_layouts(maxima, scales, sizes):
    found = []
    for size in sizes:
        for offset in range(0, len(maxima), size):
            for end in range(offset + size, len(maxima) + 1, size):
                fed = maxima[offset:end]
                ranges = [plain_range(np.split(fed[:, t], len(fed) // size)) for t in range(maxima.shape[1])]
                if all(is_whole(invert(s, histogram(r))) for s, r in zip(scales, ranges, strict=True)):
                    found.append(Layout(size, offset, end - offset))
    return found


def fitting(maxima, scales, sizes):
    return list(fitting_layouts(np.asarray(maxima, np.float32), np.asarray(scales, np.float32), BINS, sizes))


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 14),
    st.integers(1, 3),
    st.lists(st.integers(1, 16), min_size=1, max_size=4, unique=True),
    st.sampled_from(["spread", "few values", "zeros"]),
)
def test_the_plain_loop_finds_the_same(seed, samples, tensors, sizes, kind):
    random = np.random.default_rng(seed)
    maxima = np.exp2(random.uniform(-4, 4, (samples, tensors)))
    if kind == "few values":  # ties, exact powers of two between maxima, and layouts that share a range
        maxima = random.choice([1, 2, 3, 4, 5, 6, 8], (samples, tensors))
    if kind == "zeros":
        maxima = maxima * (random.random((samples, tensors)) < 0.4)
    maxima = maxima.astype(np.float32)
    size = sizes[0]
    offset = int(random.integers(0, max(samples // size, 1))) * size
    fed = maxima[offset : offset + max(size, (samples - offset) // size * size)]
    ranges = [fed[:size, t].max() * 2.0 ** int(random.integers(0, 3)) for t in range(tensors)]
    scales = [scale(int(random.integers(128, 2049)), r) if r else np.float32(random.random()) for r in ranges]
    assert fitting(maxima, scales, sizes) == plain_layouts(maxima, scales, sizes)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(0, 3), st.integers(1, 5), st.booleans())
def test_the_layout_that_scales_were_made_with_is_always_found(seed, size, skipped, batches, with_zeros):
    random = np.random.default_rng(seed)
    offset, samples = skipped * size, batches * size
    maxima = np.exp2(random.uniform(-20, 20, (offset + samples + 3, 3))).astype(np.float32)
    if with_zeros:
        maxima[offset : offset + samples - 1, 0] = 0  # non-zero in the last sample alone
    fed = maxima[offset : offset + samples]
    scales = [scale(int(random.integers(128, 2049)), plain_range(np.split(fed[:, t], batches))) for t in range(3)]
    layout = Layout(size, offset, samples)
    assert layout in fitting(maxima, scales, range(1, len(maxima) + 1))
    expected = [next((m for m in np.split(fed[:, t], batches) if m.any()), np.zeros(1)).max() for t in range(3)]
    assert first_maxima(maxima, layout).tolist() == expected


# Literal: samples with maxima 1, 3, 2, 5


MAXIMA = np.array([[1], [3], [2], [5]], np.float32)


@pytest.mark.parametrize(
    ("range_", "expected"),
    [
        (1, [(1, 0, 1)]),
        (4, [(1, 0, 2), (1, 0, 3), (1, 2, 1)][:2]),  # 1 doubles twice for 3; 2 alone is a range of 2
        (8, [(1, 0, 4), (1, 2, 2)]),  # 1 doubled three times for 5, and 2 twice... to 8
        (3, [(1, 1, 1), (1, 1, 2), (2, 0, 2), (3, 0, 3)]),
        (6, [(1, 1, 3), (2, 0, 4)]),  # 3 doubles once for 5
        (5, [(1, 3, 1), (2, 2, 2), (4, 0, 4)]),
        (2, [(1, 2, 1)]),
    ],
)
def test_literal_ranges(range_, expected):
    """Bin 2048: half of it would be bin 1023.75, and twice it is out of reach."""
    assert fitting(MAXIMA, [scale(2048, range_)], [1, 2, 3, 4]) == [Layout(*layout) for layout in expected]


def test_a_maximum_that_equals_the_range_does_not_double_it():
    assert fitting([[1], [2], [2]], [scale(2048, 2)], [1]) == [
        Layout(1, 0, 2),
        Layout(1, 0, 3),
        Layout(1, 1, 1),
        Layout(1, 1, 2),
        Layout(1, 2, 1),
    ]


def test_zeros_in_the_first_batch_leave_the_range_to_a_later_one():
    """The second tensor is zero in the first two samples: its range starts with the third's 3."""
    maxima = [[1, 0], [1, 0], [1, 3], [1, 4]]
    assert fitting(maxima, [scale(300, 1), scale(300, 3)], [1]) == [
        Layout(1, 0, 3),
        Layout(1, 1, 2),
        Layout(1, 2, 1),
    ]
    assert Layout(1, 0, 4) in fitting(maxima, [scale(300, 1), scale(300, 6)], [1])


def test_a_tensor_that_is_zero_in_all_fed_samples_fits_no_scale():
    assert fitting([[1, 0], [1, 0]], [scale(300, 1), scale(300, 1)], [1, 2]) == []


def test_one_tensor_that_does_not_fit_refuses_the_layout():
    assert fitting([[1, 1]], [scale(300, 1), scale(300, 1.001)], [1]) == []


def test_batch_sizes_beyond_the_data_have_no_layout():
    assert fitting([[1], [1]], [scale(300, 1)], [3, 100]) == []
    assert fitting(np.zeros((0, 1)), [scale(300, 1)], [1]) == []


def test_a_rest_that_fills_no_batch_is_left_out():
    assert fitting([[1], [1], [9]], [scale(300, 1)], [2]) == [Layout(2, 0, 2)]


def test_many_samples_take_no_time_for_pairs_that_cannot_fit():
    """20000 samples have 2e8 pairs of batches at batch size 1; only the first batches that can fit are looked at."""
    maxima = np.exp2(np.random.default_rng(1).uniform(-1, 1, (20000, 5))).astype(np.float32)
    first = maxima[12000:12050].max(axis=0)
    scales = [scale(1000 + t, first[t]) for t in range(5)]
    found = fitting(maxima, scales, [1, 25, 50, 100])
    assert Layout(50, 12000, 50) in found
    assert len(found) < 1000
