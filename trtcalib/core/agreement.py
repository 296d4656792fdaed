"""TensorRT's scale against ours, tensor by tensor: which bin did TensorRT choose, and over which range?

An entropy scale is ``(m + 0.5) * R / 2048 / 127``. With our range R the bin m can be read back from TensorRT's scale, and if R is
not TensorRT's range, what comes out is no whole number. So one cache tells, without its data's order, whether a range fits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from trtcalib.core.entropy import LEVELS
from trtcalib.core.histogram import Histogram
from trtcalib.core.scale import INT8_MAX, bits_from_scale, ulp_distance

__all__ = ["MOST_ULP", "Agreement", "Inversion", "Verdict", "compare", "invert", "is_edge", "is_whole"]

MOST_ULP = 8
"""Float32 values between two scales that still count as the same: sums on a GPU and on a CPU differ. Up to 6 were seen."""

WHOLE = 0.02
"""How far from a whole number a bin that was read back may lie. Ranges that differ by 1e-5, as GPU and CPU sums may, move bin
2048 by 0.02; the real caches stay below 0.001. By chance one number in 25 is that close, so one tensor proves nothing."""

Verdict = Literal["exact", "same bin", "same", "bins off", "inherited", "other range", "other scale", "unknown name"]


@dataclass(frozen=True, slots=True)
class Inversion:
    """The bin that a scale stands for.

    Attributes:
        bin_m: The nearest whole bin.
        residual: How far from it the scale lies, in bins, -0.5 to 0.5.
    """

    bin_m: int
    residual: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """One tensor.

    Attributes:
        name: As in TensorRT's cache.
        verdict: ``exact``: the same bits. ``same bin``: TensorRT chose our bin. ``same``: within 8 ULP, where no bin can be read
            back. ``bins off``: another bin of our range. ``inherited``: the scale of another tensor, as our rules say.
            ``other range``: no bin of our range, so TensorRT's range was another one. ``other scale``: another one, by a method
            without bins or of a tensor that was all zero. ``unknown name``: we have no such tensor.
        theirs: TensorRT's scale.
        ours: Our scale; ``None`` for an unknown name.
        ulp: Distance of the two in float32 values; ``None`` where there is none.
        their_bin: The bin that TensorRT chose; ``None`` where there is none.
        our_bin: The bin that our search chose.
        residual: How far TensorRT's scale lies from a whole bin of our range, in bins.
        origin: The tensor whose histogram or scale this one carries; ``None`` for its own.
        tensor: Our name for it, where that is another one.
        agrees: Whether both chose the same, up to the difference between GPU and CPU sums.
    """

    name: str
    verdict: Verdict
    theirs: float
    ours: float | None = None
    ulp: int | None = None
    their_bin: int | None = None
    our_bin: int | None = None
    residual: float | None = None
    origin: str | None = None
    tensor: str | None = None
    agrees: bool = False

    @property
    def bins_off(self) -> int | None:
        """TensorRT's bin less ours."""
        return None if self.their_bin is None or self.our_bin is None else self.their_bin - self.our_bin


def invert(scale: float | np.float32, histogram: Histogram, *, half_bin: bool = True) -> Inversion | None:
    """Read back the bin that an entropy scale stands for.

    Float32 rounds the amax and the scale, so that the residual of bin m of the same range is at most ``(m + 0.5) * 2**-23``, and
    ``2**-143 / width`` more where the scale is subnormal.

    Args:
        scale: amax / 127.
        histogram: Of the tensor; only its range and number of bins matter.
        half_bin: Whether the search's amax is in the middle of a bin, as TensorRT's, or at its edge.

    Returns:
        ``None`` where there is none: an all-zero tensor, a scale that is not finite or outside the candidates' reach, or a
        range so small that neighbouring bins have the same subnormal scale.
    """
    width = float(histogram.width)
    if not (width > 0 and np.isfinite(width) and np.isfinite(scale)):
        return None
    position = float(scale) * INT8_MAX / width - 0.5 * half_bin
    nearest = round(position)
    if not LEVELS <= nearest <= histogram.bins:
        return None
    if float(np.spacing(np.float32(scale))) * INT8_MAX / width > WHOLE:
        return None
    return Inversion(nearest, position - nearest)


def is_whole(inversion: Inversion | None) -> bool:
    """Whether a scale is that of a bin of the range."""
    return inversion is not None and abs(inversion.residual) <= WHOLE


def is_edge(residual: float | None) -> bool:
    """Whether a scale is that of a bin's edge, half a bin off: percentiles are, and bins of a range that doubled otherwise."""
    return residual is not None and abs(residual) >= 0.5 - WHOLE


def compare(
    name: str,
    theirs: np.float32,
    ours: np.float32,
    inversion: Inversion | None,
    our_bin: int | None,
    origin: str | None = None,
) -> Agreement:
    """Compare one tensor's scales.

    Args:
        name: As in TensorRT's cache.
        theirs: TensorRT's scale.
        ours: Ours.
        inversion: What TensorRT's scale stands for in our histogram; ``None`` where it has no bin.
        our_bin: The bin that our entropy search chose; ``None`` for other methods and all-zero tensors.
        origin: The tensor whose histogram ours is, where that is another one.
    """
    ulp = None if np.isnan(theirs) or np.isnan(ours) else ulp_distance(theirs, ours)
    near = ulp is not None and ulp <= MOST_ULP
    bin_m = inversion.bin_m if our_bin is not None and inversion is not None and is_whole(inversion) else None
    verdict: Verdict
    if bits_from_scale(theirs) == bits_from_scale(ours):
        verdict = "exact"
    elif bin_m is not None:
        verdict = "same bin" if bin_m == our_bin else "bins off"
    elif near:
        verdict = "same"
    else:
        verdict = "other scale" if our_bin is None else "other range"
    return Agreement(
        name=name,
        verdict=verdict,
        theirs=float(theirs),
        ours=float(ours),
        ulp=ulp,
        their_bin=bin_m,
        our_bin=our_bin,
        residual=None if inversion is None or our_bin is None else inversion.residual,
        origin=origin,
        agrees=near or verdict in ("exact", "same bin"),
    )
