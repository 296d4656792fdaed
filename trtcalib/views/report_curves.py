"""Histograms and KL curves as few bytes, for drawing only: what a report prints as a number stands in its JSON.

Counts and divergences are rounded to steps of a log axis that are finer than what a screen shows, and far from the chosen
candidate only every fourth divergence is kept. Both are written as from one value to the next, which compress well, in groups of histograms, so that a page unpacks only the group of the
tensor that is looked at.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trtcalib.reports.result import Curves

__all__ = ["COUNT_STEPS", "GROUP", "KL_NEAR", "KL_STEPS", "KL_STRIDE", "kept_candidates", "packed", "packed_group"]

GROUP = 16
"""Histograms that are packed together: few enough to unpack at once, enough for the compressor to learn from."""

COUNT_STEPS = 254
"""Steps of the log axis from 1 to the fullest bin that counts are rounded to: off by at most 0.2 % of the axis."""

KL_STEPS = 1022
"""Steps of the log axis from the smallest to the largest divergence."""

KL_STRIDE = 4
"""Of so many candidates one is drawn: 2048 bins have 1921 candidates, three to four per pixel of a plot."""

KL_NEAR = 64
"""Candidates on either side of the chosen one that are all drawn, for who zooms in there."""

_HEADER = struct.Struct("<IIIIddd")
"""Per histogram: bins, candidates, the chosen one from 0, divergences kept, ln of the fullest bin, ln of the smallest and
of the largest divergence above 0."""


def packed(content: bytes) -> str:
    """Return bytes compressed and as text that can stand anywhere in a page (base64)."""
    return base64.b64encode(zlib.compress(content, 9)).decode("ascii")


def packed_group(curves: Sequence[Curves]) -> str:
    """Return the curves of some histograms for ``unpackCurves`` in ``report/data.js``.

    The headers of all, then all codes of counts (uint8: 0 for an empty bin, else 1 + the step), then the low and the high
    bytes of all codes of divergences (uint16: 0 where the candidate is not allowed, 1 for no divergence, else 2 + the step),
    each as differences modulo its width.
    """
    headers, counts, divergences = [], [], []
    for curve in curves:
        top = float(np.log(max(int(curve.histogram.counts.max()), 1)))
        size = 0 if curve.divergences is None else curve.divergences.size
        codes, low, high = _kl_codes(curve.divergences)
        codes = codes[kept_candidates(size, curve.chosen)]
        headers.append(_HEADER.pack(curve.histogram.bins, size, curve.chosen, codes.size, top, low, high))
        counts.append(_differences(_count_codes(curve.histogram.counts, top)))
        divergences.append(_differences(codes))
    kl = np.concatenate(divergences).astype("<u2").view(np.uint8)  # low and high bytes in turn
    planes = [kl[0::2].tobytes(), kl[1::2].tobytes()]
    return packed(b"".join([struct.pack("<I", len(curves)), *headers, *(c.tobytes() for c in counts), *planes]))


def kept_candidates(candidates: int, chosen: int) -> NDArray[np.intp]:
    """Return which divergences are drawn, from 0: every fourth, and all near the chosen one."""
    index = np.arange(candidates)
    return np.flatnonzero((index % KL_STRIDE == 0) | (np.abs(index - chosen) <= KL_NEAR))


def _count_codes(counts: NDArray[np.int64], top: float) -> NDArray[np.uint8]:
    steps = np.log(np.maximum(counts, 1)) / top * COUNT_STEPS if top > 0 else np.zeros(counts.size)
    return np.where(counts > 0, 1 + np.rint(steps), 0).astype(np.uint8)


def _kl_codes(curve: NDArray[np.float64] | None) -> tuple[NDArray[np.uint16], float, float]:
    """Return the codes, and ln of the smallest and the largest finite divergence above 0."""
    if curve is None:
        return np.zeros(0, np.uint16), 0.0, 0.0
    allowed = np.isfinite(curve)
    above = allowed & (curve > 0)
    logs = np.log(curve, where=above, out=np.zeros(curve.size))
    low, high = (float(logs[above].min()), float(logs[above].max())) if above.any() else (0.0, 0.0)
    steps = (logs - low) / (high - low) * KL_STEPS if high > low else np.zeros(curve.size)
    codes = np.where(above, 2 + np.rint(steps), np.where(allowed, 1, 0))
    return codes.astype(np.uint16), low, high


def _differences(codes: NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.uint8] | NDArray[np.uint16]:
    return np.diff(codes, prepend=codes.dtype.type(0))
