"""Weights as INT8: scales, levels, floors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from trtcalib.qdq import weights as module
from trtcalib.qdq.weights import SMALLEST_SCALE, channel_scales, floored, quantized

tensors = arrays.arrays(
    np.float32,
    arrays.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=5),
    elements=st.floats(-1e6, 1e6, width=32),
)


def test_two_channels_worked_out_by_hand() -> None:
    """127/32 gives the scale 1/32; ties go to the even level; -128/32 is beyond what the scale of the largest magnitude reaches."""
    weights = np.array([[127 / 32, -127 / 32, 1 / 64, 3 / 64], [0, -254, 1, 3]], np.float32)
    scales = channel_scales(weights, 0)
    assert scales.dtype == np.float32
    assert scales.tolist() == [1 / 32, 2]
    assert quantized(weights, scales, 0).tolist() == [[127, -127, 0, 2], [0, -127, 0, 2]]


def test_a_dead_channel_is_floored_and_stays_zero() -> None:
    weights = np.array([[0, 1], [0, -2]], np.float32)
    scales = channel_scales(weights, 1)
    assert scales[0] == SMALLEST_SCALE
    assert quantized(weights, scales, 1)[:, 0].tolist() == [0, 0]


def test_saturation_is_at_minus_128_and_127() -> None:
    assert quantized(np.array([-1000, 1000], np.float32), np.float32(1).reshape(()), None).tolist() == [-128, 127]


def test_a_scale_is_floored_and_never_lowered() -> None:
    assert floored(np.float32(0)) == np.float32(1e-8)
    assert floored(np.float32(1e-40)) == np.float32(1e-8)
    assert floored(np.float32(0.5)) == np.float32(0.5)


@given(tensors, st.data())
def test_no_weight_moves_by_more_than_half_a_scale(weights: np.ndarray, data: st.DataObject) -> None:
    axis = data.draw(st.none() | st.integers(0, weights.ndim - 1))
    before = weights.copy()
    scales = channel_scales(weights, axis)
    levels = quantized(weights, scales, axis)
    np.testing.assert_array_equal(weights, before)
    assert levels.dtype == np.int8
    assert levels.min() >= -127
    shaped = scales if axis is None else np.moveaxis(scales.reshape(-1, *[1] * (weights.ndim - 1)), 0, axis)
    error = np.abs(levels * shaped.astype(np.float64) - weights)
    assert (error <= shaped * 0.5 * (1 + 1e-5)).all()


@given(tensors, st.data())
def test_the_largest_of_a_channel_is_level_127(weights: np.ndarray, data: st.DataObject) -> None:
    axis = data.draw(st.integers(0, weights.ndim - 1))
    levels = np.abs(quantized(weights, channel_scales(weights, axis), axis))
    magnitudes = np.abs(weights)
    for channel in range(weights.shape[axis]):
        if magnitudes.take(channel, axis).max() > 1:
            assert levels.take(channel, axis).max() == 127


@given(tensors, st.data(), st.integers(1, 20))
def test_blocks_do_not_show(weights: np.ndarray, data: st.DataObject, block: int) -> None:
    axis = data.draw(st.none() | st.integers(0, weights.ndim - 1))
    scales = channel_scales(weights, axis)
    whole = quantized(weights, scales, axis)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK", block)
        np.testing.assert_array_equal(quantized(weights, scales, axis), whole)


def test_weights_without_elements_have_no_levels() -> None:
    assert quantized(np.empty((0, 3), np.float32), np.ones(3, np.float32), 1).shape == (0, 3)
