"""MinMax: the largest magnitude seen is the amax."""

from __future__ import annotations

import numpy as np

from trtcalib.core.histogram import Histogram

__all__ = ["minmax_amax"]


def minmax_amax(histogram: Histogram) -> np.float32:
    """Return the maximum of |x| as float32: no half bin, no doubling; 0 for a tensor that was all zero.

    Source:
        TensorRT's ``MinMaxCalibration``: ``scale = f32(absmax / 127)``, seen on inputs (8.4.0, 10.0.1, 10.3.0) and on
        inner tensors of known range (10.0.1, 10.7.0, 10.13.2). That the maximum runs over all batches is assumed.
    """
    return histogram.maximum
