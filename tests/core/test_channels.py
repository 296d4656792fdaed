"""Many channels at once give what each method gives for a channel's own histogram."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from trtcalib.core import channels
from trtcalib.core.channels import (
    MOST_VALUES,
    count_channels,
    entropy_of_channels,
    fits,
    mse_of_channels,
    percentile_of_channels,
)
from trtcalib.core.entropy import entropy_amax
from trtcalib.core.histogram import collect_histogram
from trtcalib.core.mse import mse_amax
from trtcalib.core.percentile import percentile_amax
from trtcalib.errors import HistogramError

BINS = 2048

PERCENTILES = (50.0, 99.0, 99.9, 99.9999, 100.0)


def check(rows: NDArray[np.float32], bins: int = BINS) -> None:
    """Hold every search against the one of a single histogram, bit for bit."""
    assert fits(rows, bins)
    before = rows.copy()
    counts, maxima = count_channels(rows, bins)
    kept = counts.copy()
    histograms = [collect_histogram([row], bins=bins) for row in rows]
    assert np.array_equal(counts, [h.counts for h in histograms])
    assert np.array_equal(maxima, [h.maximum for h in histograms])
    assert entropy_of_channels(counts, maxima).tolist() == [entropy_amax(h) for h in histograms]
    assert mse_of_channels(counts, maxima).tolist() == [mse_amax(h) for h in histograms]
    for percentile in PERCENTILES:
        found = percentile_of_channels(counts, maxima, percentile)
        assert found.dtype == np.float32
        assert found.tolist() == [percentile_amax(h, percentile) for h in histograms]
    assert np.array_equal(rows, before)
    assert np.array_equal(counts, kept)


@pytest.mark.parametrize("n", [1, 2, 3, 9, 27, 64, 144, 576, 2304])
@pytest.mark.parametrize("kind", ["normal", "heavy", "coarse", "sparse", "one outlier"])
def test_weights_of_real_sizes(n: int, kind: str) -> None:
    random = np.random.default_rng(n)
    rows = random.normal(size=(24, n)).astype(np.float32) * np.float32(0.05)
    if kind == "heavy":
        rows = random.standard_t(2, size=(24, n)).astype(np.float32)
    elif kind == "coarse":
        rows = np.rint(rows * 60).astype(np.float32)
    elif kind == "sparse":
        rows *= random.random(rows.shape) < 0.2
    elif kind == "one outlier":
        rows[:, 0] = 40
    rows[0] = 0
    rows[1] = -2.5
    check(rows)


@given(
    arrays(
        np.float32,
        array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40),
        elements=st.floats(-100, 100, width=32).map(lambda x: np.float32(x) if abs(x) > 1e-3 else np.float32(0)),
    )
)
def test_any_weights(rows: NDArray[np.float32]) -> None:
    check(rows)


@pytest.mark.parametrize("bins", [256, 512, 4096])
def test_other_numbers_of_bins(bins: int) -> None:
    check(np.random.default_rng(1).normal(size=(20, 300)).astype(np.float32), bins)


def test_a_row_by_hand() -> None:
    """Of 0.5, -1 and 0.25 the maximum is 1, and the counts stand in bins 1024, 2047 (the last) and 512."""
    counts, maxima = count_channels(np.array([[0.5, -1, 0.25]], np.float32), BINS)
    assert np.flatnonzero(counts[0]).tolist() == [512, 1024, 2047]
    assert maxima.tolist() == [1.0]
    # Two of three values are at or below bin 1024, whose upper edge is 1025 / 2048; for all three it is 1.
    assert percentile_of_channels(counts, maxima, 66.0).tolist() == [1025 / 2048]
    assert percentile_of_channels(counts, maxima, 67.0).tolist() == [1.0]


def test_a_constant_keeps_its_value() -> None:
    counts, maxima = count_channels(np.full((1, 9), -4.0, np.float32), BINS)
    assert counts[0, -1] == 9
    assert mse_of_channels(counts, maxima).tolist() == [4.0]
    assert percentile_of_channels(counts, maxima, 50.0).tolist() == [4.0]


def test_zeros_give_zero() -> None:
    counts, maxima = count_channels(np.zeros((2, 7), np.float32), BINS)
    assert counts[:, 0].tolist() == [7, 7]
    for amax in (
        entropy_of_channels(counts, maxima),
        mse_of_channels(counts, maxima),
        percentile_of_channels(counts, maxima, 99.0),
    ):
        assert amax.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("rows", "bins"),
    [
        (np.zeros((2, 0), np.float32), BINS),
        (np.zeros((1, MOST_VALUES + 1), np.float32), BINS),
        (np.ones((2, 3), np.float32), 1000),
        (np.ones((2, 3), np.float32), 128),
        (np.full((1, 3), 1e-38, np.float32), BINS),
        (np.full((1, 3), 1e38, np.float32), BINS),
    ],
    ids=["empty", "long", "odd bins", "few bins", "tiny", "huge"],
)
def test_what_does_not_fit_is_told(rows: NDArray[np.float32], bins: int) -> None:
    assert not fits(rows, bins)


@pytest.mark.parametrize("percentile", [0.0, -1.0, 100.1, np.nan])
def test_percentiles_outside(percentile: float) -> None:
    counts, maxima = count_channels(np.ones((1, 3), np.float32), BINS)
    with pytest.raises(HistogramError, match=r"must be in \(0, 100\]"):
        percentile_of_channels(counts, maxima, percentile)


def test_strided_rows_are_read_right() -> None:
    weights = np.random.default_rng(2).normal(size=(50, 20)).astype(np.float32)
    counts, maxima = count_channels(weights.T, BINS)
    assert maxima.tolist() == np.abs(weights).max(axis=0).tolist()
    assert np.array_equal(counts, [collect_histogram([row]).counts for row in weights.T])


def test_compiled_and_uncompiled_kernels_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(3).standard_t(3, size=(3, 60)).astype(np.float32)
    rows[0] = 0

    def everything() -> list[object]:
        counts, maxima = count_channels(rows, 256)
        searches = (entropy_of_channels, mse_of_channels)
        return [
            counts.tolist(),
            maxima.tolist(),
            percentile_of_channels(counts, maxima, 99.0).tolist(),
            *(search(counts, maxima).tolist() for search in searches),
        ]

    compiled = everything()
    for name in ("_count_kernel", "_percentile_kernel", "_entropy_kernel", "_mse_kernel"):
        monkeypatch.setattr(channels, name, getattr(channels, name).python)
    assert everything() == compiled
