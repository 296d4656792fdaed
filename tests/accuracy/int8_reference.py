"""INT8 as NumPy counts it, in plain loops: what a simulated variant must give, exactly, where float32 sums have no rounding."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def rounded(value: float, scale: float) -> float:
    """One number as INT8 and back: half to even, saturated at -128 and 127."""
    levels = round(value / scale)  # Python rounds half to even
    return max(-128, min(127, levels)) * scale


def activations(values: Array, scale: float | None) -> Array:
    """A tensor as INT8 and back; ``None``: as it is."""
    if scale is None:
        return values
    return np.array([rounded(float(v), scale) for v in values.ravel()]).reshape(values.shape)


def weights(values: Array, parts: str, axis: int) -> Array:
    """Weights as INT8 and back, ``parts`` as in a choice, with the largest magnitude over 127 as scale."""
    found = values.copy()
    if parts == "float":
        return found
    groups = [found] if parts == "tensor" else [np.moveaxis(found, axis, 0)[i] for i in range(values.shape[axis])]
    for group in groups:  # views, written in place
        scale = max(abs(float(v)) for v in group.ravel()) / 127
        for place in np.ndindex(group.shape):
            group[place] = rounded(float(group[place]), scale)
    return found


def matmul(a: Array, b: Array) -> Array:
    """The product of two matrices."""
    return np.array([[math.fsum(a[i] * b[:, j]) for j in range(b.shape[1])] for i in range(a.shape[0])])


def conv(x: Array, w: Array, pad: int = 0, stride: int = 1, group: int = 1) -> Array:
    """Conv of two axes with the same pad on all sides."""
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    n, _, height, width = x.shape
    out, inside, kh, kw = w.shape
    found = np.empty((n, out, (height - kh) // stride + 1, (width - kw) // stride + 1))
    for b, c, i, j in np.ndindex(found.shape):
        first = c // (out // group) * inside
        window = x[b, first : first + inside, i * stride : i * stride + kh, j * stride : j * stride + kw]
        found[b, c, i, j] = math.fsum((window * w[c]).ravel())
    return found


def conv_transpose(x: Array, w: Array, stride: int = 1) -> Array:
    """ConvTranspose of two axes: each element adds its multiple of the kernel."""
    n, _, height, width = x.shape
    _, out, kh, kw = w.shape
    found = np.zeros((n, out, (height - 1) * stride + kh, (width - 1) * stride + kw))
    for b, c, i, j in np.ndindex(x.shape):
        found[b, :, i * stride : i * stride + kh, j * stride : j * stride + kw] += x[b, c, i, j] * w[c]
    return found


def exact_weights(shape: Sequence[int], axis: int, seed: int) -> NDArray[np.float32]:
    """Weights whose scales are powers of two, per channel and as a whole, and which need rounding at both.

    Channel c of the axis has 127 * 2^(-5 - c) as its largest magnitude; the others are in steps of a quarter of its own scale.
    """
    random = np.random.default_rng(seed)
    channels = np.moveaxis(np.empty(shape, np.float32), axis, 0)
    for c, channel in enumerate(channels):
        steps = random.integers(-4 * 127, 4 * 127, channel.shape, endpoint=True)
        steps.flat[0] = 4 * 127 * (-1) ** c
        channel[...] = steps * 2.0 ** (-7 - c)
    return np.moveaxis(channels, 0, axis)


def exact_samples(shape: Sequence[int], seed: int) -> NDArray[np.float32]:
    """Inputs in steps of 1/32 from -12 to 12: at a scale of 1/16 there are ties, and values that saturate at both ends."""
    return (np.random.default_rng(seed).integers(-384, 384, shape, endpoint=True) / 32).astype(np.float32)
