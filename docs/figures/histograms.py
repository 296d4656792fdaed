"""The histograms that the page's figures are made from: four tensors of the embedded sample, and two made-up ones."""

# ruff: noqa: INP001 - scripts of one page, not a package

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from activations import SAMPLE_DATA, SAMPLE_MODEL, SAMPLE_TENSORS, activations, half_normal, normal
from numpy.typing import NDArray

from trtcalib.core.entropy import VARIANTS, entropy_amax
from trtcalib.core.histogram import Histogram, collect_histogram
from trtcalib.core.minmax import minmax_amax
from trtcalib.core.percentile import percentile_amax
from trtcalib.core.planned import PlannedTally, plan_ranges, planned_histogram
from trtcalib.core.tally import BINS

__all__ = ["BATCH_SIZES", "GROWING", "Batches", "Material", "load_material", "under_policy"]

BATCH_SIZE = 32
"""Of the sample tensors, as ``trtcalib calibrate`` takes without ``--batch-size``."""

GROWING = "residual_relu1"
"""A tensor of the embedded sample whose amax moves both ways when only the batch size changes."""

BATCH_SIZES = (1, 8, 32, 256, 1297)
"""For :data:`GROWING`; the last is all samples in one batch."""

Batches = Sequence[NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What figures and tables are drawn from.

    Attributes:
        values: Per tensor its values, one array per batch.
        histograms: Per tensor what TensorRT's rules collect from them.
        amax: Per tensor the amax that each method chooses from its histogram; TensorRT's rules first.
        growing: Values of :data:`GROWING`, one array per sample.
    """

    values: Mapping[str, Batches]
    histograms: Mapping[str, Histogram]
    amax: Mapping[str, Mapping[str, float]]
    growing: Batches

    def grouped(self, batch_size: int) -> Batches:
        """Return the values of :data:`GROWING` in batches."""
        return _grouped(self.growing, batch_size)


def load_material() -> Material:
    """Run the embedded sample once, one sample at a time, and make the made-up values."""
    samples = activations(SAMPLE_MODEL, SAMPLE_DATA, (*SAMPLE_TENSORS, GROWING), 1)
    values: dict[str, Batches] = {name: _grouped(samples[name], BATCH_SIZE) for name in SAMPLE_TENSORS}
    values["normal"] = normal()
    values["half-normal, outlier"] = half_normal()
    histograms = {name: collect_histogram(batches) for name, batches in values.items()}
    amax = {name: _amax_by_method(histogram) for name, histogram in histograms.items()}
    return Material(values=values, histograms=histograms, amax=amax, growing=samples[GROWING])


def _amax_by_method(histogram: Histogram) -> dict[str, float]:
    """Return the amax that each method chooses from one histogram; TensorRT's rules first."""
    amax = {f"`{variant}`": float(entropy_amax(histogram, variant)) for variant in VARIANTS}
    amax["percentile 99.99"] = float(percentile_amax(histogram, 99.99))
    amax["percentile 99.999"] = float(percentile_amax(histogram, 99.999))
    amax["minmax"] = float(minmax_amax(histogram))
    return amax


def under_policy(batches: Batches, policy: str) -> Histogram:
    """Return the histogram of a tensor under one of ``trtcalib.core.planned.POLICIES``."""
    if policy == "doubling":
        return collect_histogram(batches)
    maxima = np.array([np.abs(batch).max() for batch in batches], np.float32)
    plan = plan_ranges(policy, maxima, BINS)
    tally = PlannedTally([plan])
    for number, batch in enumerate(batches):
        tally.add(number, [batch])
    return planned_histogram(plan, 0, [tally])


def _grouped(samples: Batches, batch_size: int) -> Batches:
    return [np.concatenate(samples[i : i + batch_size]) for i in range(0, len(samples), batch_size)]
