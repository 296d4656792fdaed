"""The scale that known values imply: a constant has the same histogram in every batch, so that its range is known exactly."""

from __future__ import annotations

import numpy as np

from trtcalib.core.agreement import WHOLE
from trtcalib.core.entropy import LEVELS
from trtcalib.core.scale import INT8_MAX, bits_from_scale, scale_from_amax, scale_from_bits, ulp_distance

__all__ = ["BINS", "MOST_OF_RANGE", "SMALLEST", "bin_of", "full_range_bits", "is_minmax", "minmax_bits"]

BINS = 2048
"""Bins of TensorRT's histograms."""

MOST_OF_RANGE = (BINS + 0.5) / BINS
"""The largest entropy amax over the range: half a bin beyond it."""

MINMAX_ULP = 2
"""Float32 values that a MinMax scale may be off: a division by 127 and a product with 1/127 differ by one. Ours."""

SMALLEST = 1e-30
"""Below this the scale, or a bin's width, may be subnormal and tells no bin."""


def minmax_bits(maximum: float) -> int:
    """Return the bits of ``f32(maximum / 127)``."""
    return bits_from_scale(scale_from_amax(maximum))


def full_range_bits(maximum: float) -> int:
    """Return the bits of the entropy scale of bin 2048, the whole range."""
    with np.errstate(all="ignore"):
        width = np.float32(np.float32(maximum) / np.float32(BINS))
        return bits_from_scale(scale_from_amax(np.float32(np.float32(BINS + 0.5) * width)))


def is_minmax(bits: int, maximum: float) -> bool:
    """Whether a finite scale is that of MinMax."""
    return ulp_distance(scale_from_bits(bits), scale_from_amax(maximum)) <= MINMAX_ULP


def bin_of(bits: int, maximum: float) -> int | None:
    """Return the entropy search's bin of a scale over the range ``maximum``; ``None`` where it is that of no bin."""
    if not SMALLEST <= maximum < np.inf:
        return None
    position = float(scale_from_bits(bits)) * INT8_MAX * BINS / maximum - 0.5
    nearest = round(position)
    return nearest if LEVELS <= nearest <= BINS and abs(position - nearest) <= WHOLE else None
