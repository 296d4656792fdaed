"""amax <-> scale <-> the bits that a calibration cache holds. The one home of 127.

TensorRT's INT8 is symmetric: ``q = clip(rint(x / scale), -128, 127)`` with ``scale = amax / 127``. Everything here
is float32, because TensorRT's caches hold float32 bits; see each function for where it rounds.
"""

from __future__ import annotations

import numpy as np

__all__ = ["INT8_MAX", "amax_from_scale", "bits_from_scale", "scale_from_amax", "scale_from_bits", "ulp_distance"]

INT8_MAX = 127
"""The largest INT8 level; the dynamic range +-amax maps onto +-127."""

_SIGN_BIT = 0x80000000
_ALL_BITS = 0xFFFFFFFF


def scale_from_amax(amax: float | np.float32) -> np.float32:
    """Return ``f32(f32(amax) / 127)``, rounded once to nearest even; no clamp, so an infinite amax stays infinite.

    Args:
        amax: Clip point of |x|, in the tensor's units.
    """
    with np.errstate(all="ignore"):
        return np.float32(np.float32(amax) / np.float32(INT8_MAX))


def amax_from_scale(scale: float | np.float32) -> np.float32:
    """Return ``f32(f32(scale) * 127)``: the dynamic range that a cache's scale stands for.

    Not always the amax that the scale was made from: the division has rounded.
    """
    with np.errstate(all="ignore"):
        return np.float32(np.float32(scale) * np.float32(INT8_MAX))


def bits_from_scale(scale: float | np.float32) -> int:
    """Return the IEEE 754 binary32 bits of a scale as an unsigned integer (``f"{bits:x}"`` is what a cache holds)."""
    with np.errstate(over="ignore"):
        return int(np.float32(scale).view(np.uint32))


def scale_from_bits(bits: int) -> np.float32:
    """Return the float32 with the given bits, NaN and infinities included.

    Raises:
        ValueError: If ``bits`` does not fit 32 bits.
    """
    if not 0 <= bits <= _ALL_BITS:
        raise ValueError(f"{bits:#x} does not fit the 32 bits of a float32")
    return np.float32(np.uint32(bits).view(np.float32))


def ulp_distance(a: float | np.float32, b: float | np.float32) -> int:
    """Return how many float32 values lie between ``a`` and ``b``: 0 for equal bits, 1 for neighbours; +0 and -0 are equal.

    Raises:
        ValueError: If either is NaN.
    """
    if np.isnan(a) or np.isnan(b):
        raise ValueError("NaN has no distance to another number")
    return abs(_ordinal(a) - _ordinal(b))


def _ordinal(value: float | np.float32) -> int:
    """Map float32 to integers in the same order, so that neighbours differ by one."""
    bits = bits_from_scale(value)
    return -(bits - _SIGN_BIT) if bits & _SIGN_BIT else bits
