"""Percentile: clip so that a stated share of the values stays inside."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import numpy as np

from trtcalib.core.histogram import Histogram
from trtcalib.errors import HistogramError

__all__ = ["percentile_amax"]


def percentile_amax(histogram: Histogram, percentile: float) -> np.float32:
    """Return the upper edge of the first bin at which at least ``percentile`` % of the values are at or below it.

    The share is compared exactly, in integers: ``percentile`` means the decimal number it is written as, so 99.99 is
    9999/10000. Zeros count as values. The edge is ``f32((i + 1) * width)``, never the true maximum, so 100 gives the
    upper edge of the last bin that holds a value. 0 for a tensor that was all zero.

    Args:
        histogram: Magnitudes of one tensor over all calibration batches.
        percentile: In (0, 100].

    Returns:
        float32 amax in the tensor's units.

    Raises:
        HistogramError: If the percentile is outside (0, 100] or the histogram is empty.

    Source:
        Same idea as pytorch-quantization's ``percentile`` calibrator, which returns the *lower* edge of that bin (so
        fewer than ``percentile`` % are inside) and compares in floating point.
    """
    if not 0 < percentile <= 100:  # noqa: PLR2004 - percent
        raise HistogramError(f"the percentile must be in (0, 100], got {percentile!r}")
    if histogram.total == 0:
        raise HistogramError("the histogram is empty: was any batch collected?")
    if histogram.range == 0:
        return np.float32(0)
    share = Fraction(Decimal(repr(float(percentile)))) / 100
    # The smallest integer count that is at least the share; exact for any int64 total.
    wanted = -((-histogram.total * share.numerator) // share.denominator)
    inside = np.cumsum(histogram.counts)
    bin_index = int(np.searchsorted(inside, wanted, side="left"))
    with np.errstate(over="ignore"):
        return np.float32(np.float32(bin_index + 1) * histogram.width)
