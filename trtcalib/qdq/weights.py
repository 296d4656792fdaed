"""Weights as INT8: symmetric, one scale per output channel, zero point 0."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trtcalib.core.scale import INT8_MAX

__all__ = ["SMALLEST_SCALE", "channel_scales", "floored", "quantized"]

SMALLEST_SCALE = np.float32(1e-8)
"""What the scale of a dead channel, or of a tensor that was all zero, is raised to: TensorRT refuses a scale of 0."""

_BLOCK = 1 << 22
"""Weights that are quantized at a time, so that what is on the way is small beside weights of gigabytes. Ours."""


def channel_scales(weights: NDArray[np.float32], axis: int | None) -> NDArray[np.float32]:
    """Return ``f32(max|w| / 127)`` per channel of an axis, float32 ``[channels]``, or one 0-d scale; never below the floor.

    Args:
        weights: float32, all finite.
        axis: The output channels' axis; ``None``: one scale for all.
    """
    others = None if axis is None else tuple(a for a in range(weights.ndim) if a != axis)
    # Twice over the weights instead of once over a copy of their magnitudes, which may be gigabytes.
    largest = np.maximum(weights.max(axis=others, initial=0), -weights.min(axis=others, initial=0))
    scales: NDArray[np.float32] = np.maximum(np.asarray(largest, np.float32) / np.float32(INT8_MAX), SMALLEST_SCALE)
    return scales


def floored(scale: np.float32) -> np.float32:
    """Return a finite, non-negative scale raised to :data:`SMALLEST_SCALE` where it is below."""
    return max(scale, SMALLEST_SCALE)


def quantized(weights: NDArray[np.float32], scales: NDArray[np.float32], axis: int | None) -> NDArray[np.int8]:
    """Return ``clip(rint(w / scale), -128, 127)`` as int8, as QuantizeLinear does: rounded half to even.

    Args:
        weights: float32.
        scales: From :func:`channel_scales` with the same axis.
        axis: As there.
    """
    levels = np.empty(weights.shape, np.int8)
    if weights.size == 0:
        return levels
    shaped = scales if axis is None else scales.reshape([-1 if a == axis else 1 for a in range(weights.ndim)])
    rows = max(1, _BLOCK // max(1, weights[:1].size))
    for start in range(0, len(weights), rows):
        block = slice(start, start + rows)
        exact = np.divide(weights[block], shaped[block] if axis == 0 else shaped)
        np.rint(exact, out=exact)
        levels[block] = np.clip(exact, -INT8_MAX - 1, INT8_MAX, out=exact)
    return levels
