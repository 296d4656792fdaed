"""How much one huge value costs all the others, by how huge it is."""

# ruff: noqa: INP001 - scripts of one page, not a package

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from cases import sqnr
from numpy.typing import NDArray

from trtcalib.core.entropy import entropy_amax
from trtcalib.core.histogram import collect_histogram
from trtcalib.core.percentile import percentile_amax
from trtcalib.core.scale import scale_from_amax

__all__ = ["SWEEP_PERCENTILE", "Sweep", "sweep"]

FACTORS = 2.0 ** np.arange(0.25, 8.01, 0.25)
"""The planted value, over the largest other one."""

SWEEP_PERCENTILE = 99.99


@dataclass(frozen=True, slots=True)
class Sweep:
    """What was measured, per planted value.

    Attributes:
        factors: Over the largest other value.
        others: SQNR of the samples without it in dB, by how it was calibrated.
    """

    factors: NDArray[np.float64]
    others: dict[str, list[float]]


def sweep(samples: NDArray[np.float32]) -> Sweep:
    """Plant values in the last sample, and calibrate with all samples at batch size 1 and in one batch."""
    largest = float(np.abs(samples).max())
    others: dict[str, list[float]] = {}
    for factor in FACTORS:
        planted = samples.copy()
        planted[-1, 0] = largest * factor
        one_by_one, at_once = collect_histogram(planted), collect_histogram([planted])
        amax = {
            "entropy, batch size 1": entropy_amax(one_by_one),
            "entropy, all in one batch": entropy_amax(at_once),
            f"percentile {SWEEP_PERCENTILE}, batch size 1": percentile_amax(one_by_one, SWEEP_PERCENTILE),
        }
        for name, value in amax.items():
            others.setdefault(name, []).append(sqnr(list(samples[:-1]), scale_from_amax(value)))
    return Sweep(FACTORS, others)
