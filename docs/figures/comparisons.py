"""The page's tables of what other rules and other tools choose from the same values."""

# ruff: noqa: INP001 - scripts of one page, not a package

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from histograms import BATCH_SIZES, Batches, Material, under_policy
from readings import SEARCHES, scale_of
from tables import markdown

from trtcalib.core.entropy import amax_of_bin, entropy_amax, entropy_bin
from trtcalib.core.histogram import collect_histogram
from trtcalib.core.planned import POLICIES
from trtcalib.core.scale import scale_from_amax

__all__ = ["comparison_tables", "runtime_table"]

ONE_CHANGE = (
    "bin 0 keeps its own count",
    "bin 0 is emptied",
    "levels of i // 128 bins, the rest in the last",
    "127 levels",
    "256 levels",
    "Q made from P, clipped counts included",
    "terms with Q = 0 left out",
    "Q = 0 replaced by 1e-4",
    "no half bin: m * R / 2048",
)
"""Of ``readings.SEARCHES``: those that the real caches reject and that are found in published code."""


RUNTIME_BINS = (128, 2048)
"""Signed bins that ONNX Runtime's collector is asked for: its default, and a number often given to it."""


def comparison_tables(material: Material) -> Iterator[str]:
    """Yield the tables that are made from the sample and the made-up values."""
    head: tuple[str, ...] = (
        "samples per batch",
        "first maximum",
        "doublings",
        "range",
        "bins in use",
        "clamped",
        "m",
        "amax",
        "to all",
    )
    yield markdown("batch-sizes", head, _batch_size_rows(material))
    head = ("tensor", "range", "m", "amax", *list(next(iter(material.amax.values())))[1:])
    yield markdown("methods", head, _method_rows(material))
    yield markdown("one-change", ("changed", *material.histograms), _change_rows(material))
    yield markdown("policies", ("tensor", *POLICIES), _policy_rows(material))


def _batch_size_rows(material: Material) -> Iterator[tuple[str, ...]]:
    reference = float(entropy_amax(collect_histogram(material.grouped(BATCH_SIZES[-1]))))
    for batch_size in BATCH_SIZES:
        h = collect_histogram(material.grouped(batch_size))
        m = entropy_bin(h)
        amax = float(amax_of_bin(m, h))
        yield (
            str(batch_size) if batch_size != BATCH_SIZES[-1] else f"all {batch_size}",
            f"{h.first_max:.4g}",
            str(h.doublings),
            f"{h.range:.4g}",
            str(int(np.flatnonzero(h.counts)[-1]) + 1),
            str(h.clamped),
            str(m),
            f"{amax:.4g}",
            f"{amax / reference:.3f}",
        )


def _method_rows(material: Material) -> Iterator[tuple[str, ...]]:
    for name, histogram in material.histograms.items():
        reference, *others = material.amax[name].values()
        ratios = (f"{amax / reference:.4f}" for amax in others)
        yield name, f"{histogram.range:.4g}", str(entropy_bin(histogram)), f"{reference:.4g}", *ratios


def _change_rows(material: Material) -> Iterator[tuple[str, ...]]:
    references = {name: float(scale_of(h.counts, h.range)) for name, h in material.histograms.items()}
    for name, histogram in material.histograms.items():
        assert references[name] == float(scale_from_amax(entropy_amax(histogram))), name
    for change in ONE_CHANGE:
        scales = {name: float(scale_of(h.counts, h.range, SEARCHES[change])) for name, h in material.histograms.items()}
        yield change, *(f"{scales[name] / references[name]:.4f}" for name in references)


def _policy_rows(material: Material) -> Iterator[tuple[str, ...]]:
    for name, batches in material.values.items():
        found = [under_policy(batches, policy) for policy in POLICIES]
        reference, *others = (float(entropy_amax(histogram)) for histogram in found)
        yield name, f"{reference:.4g}", *(f"{amax / reference:.4f}" for amax in others)


def runtime_table(values: Mapping[str, Batches]) -> str:
    """Return the table of ONNX Runtime's own entropy calibrator on the same values.

    Args:
        values: Per tensor its values, one array per batch.
    """
    from onnxruntime.quantization.calibrate import HistogramCollector

    amax: dict[str, list[float]] = {name: [] for name in values}
    for bins in RUNTIME_BINS:
        collector = HistogramCollector(
            method="entropy", symmetric=True, num_bins=bins, num_quantized_bins=128, percentile=99.999, scenario="same"
        )
        # As its calibrator does after it has read all batches: every value of a tensor at once.
        collector.collect_value({name: np.concatenate(batches) for name, batches in values.items()})
        for name, histogram in collector.get_histogram_dict().items():
            low, high = collector.get_entropy_threshold(histogram, collector.num_quantized_bins)
            amax[name].append(max(abs(float(low)), abs(float(high))))
    rows = []
    for name, batches in values.items():
        histogram = collect_histogram(batches)
        reference = float(entropy_amax(histogram))
        found = (float(histogram.maximum), *amax[name])
        rows.append((name, *(f"{value / reference:.4f}" for value in found)))
    head = ("tensor", "minmax", *(f"{bins} bins" for bins in RUNTIME_BINS))
    return markdown("onnxruntime", head, rows)
