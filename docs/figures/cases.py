"""One model on one data set at several batch sizes: what a study says, and what quantizing the tensors really loses."""

# ruff: noqa: INP001 - scripts of one page, not a package

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from activations import activations
from numpy.typing import NDArray

from trtcalib import study
from trtcalib.batch_study.result import Configuration, Outcome, StudiedTensor, Study
from trtcalib.core.histogram import Histogram, collect_histogram
from trtcalib.core.scale import scale_from_bits

__all__ = ["Case", "Subject", "bins_for_share", "describe", "sqnr", "study_of"]

MOST = 0.999
"""The share of the values whose bins are told beside those that hold any."""

Values = Sequence[NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Subject:
    """A study, and the values of some of its tensors.

    Attributes:
        study: At all batch sizes that are asked for.
        values: Per tensor its values, one flat float32 array per sample.
    """

    study: Study
    values: dict[str, Values]

    def position(self, configuration: str) -> int:
        """Return where a configuration stands among the outcomes."""
        return [found.name for found in self.study.configurations].index(configuration)

    def tensor(self, name: str) -> StudiedTensor:
        """Return what became of a tensor."""
        (found,) = (tensor for tensor in self.study.tensors if tensor.name == name)
        return found

    def scales(self, configuration: str) -> dict[str, np.float32]:
        """Return the scales of all tensors that depend on the data."""
        position = self.position(configuration)
        return {
            tensor.name: scale_from_bits(int(tensor.outcomes[position].scale_hex, 16))
            for tensor in self.study.tensors
            if tensor.outcomes
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One tensor at one batch size.

    Attributes:
        outcome: As the study tells it.
        histogram: Collected again from the values, batch by batch.
        sqnr: Of all values, in dB.
        others: The same without the last sample, in which the huge value is, where there is one.
    """

    outcome: Outcome
    histogram: Histogram
    sqnr: float
    others: float

    def cells(self) -> tuple[str, ...]:
        """Return the cells under :data:`HEAD`."""
        found = self.outcome
        return (
            f"{found.first_maximum:.4g}",
            str(sum(doubling.times for doubling in found.doublings)),
            f"{found.range:.4g}",
            str(np.count_nonzero(self.histogram.counts)),
            str(bins_for_share(self.histogram.counts, MOST)),
            str(found.bin_m),
            f"{found.amax:.4g}",
            f"{found.scale:.4g}",
            f"{found.clipped:.4%}" if found.clipped else "0",
            f"{self.sqnr:.1f}",
            f"{self.others:.1f}",
        )


HEAD = (
    "R0",
    "doubled",
    "R",
    "bins with data",
    "bins to 99.9 %",
    "m",
    "amax",
    "scale",
    "clipped",
    "SQNR",
    "SQNR of the others",
)
"""Of :meth:`Case.cells`."""


def study_of(
    model: Path,
    data: str,
    output: Path,
    tensors: Sequence[str],
    *,
    sizes: Sequence[int | Literal["all"]],
    orders: int = 0,
) -> Subject:
    """Run ``trtcalib study``, and the model once more for the values of the named tensors."""
    found = study(model, data, output, batch_sizes=sizes, orders=orders)
    return Subject(found, dict(activations(model, data, tensors, 1)) if tensors else {})


def describe(subject: Subject, tensor: str, configuration: str) -> Case:
    """Measure one tensor in one configuration, in the source's order.

    Raises:
        AssertionError: If the histogram of the values is not the one that the study's range is of.
    """
    position = subject.position(configuration)
    how, outcome = subject.study.configurations[position], subject.tensor(tensor).outcomes[position]
    values = subject.values[tensor]
    histogram = collect_histogram(_batches(values, how))
    assert float(histogram.range) == outcome.range
    scale = scale_from_bits(int(outcome.scale_hex, 16))
    return Case(outcome=outcome, histogram=histogram, sqnr=sqnr(values, scale), others=sqnr(values[:-1], scale))


def sqnr(values: Values, scale: np.float32) -> float:
    """Return the signal-to-quantization-noise ratio of INT8 with that scale, in dB.

    ``10 log10(sum x**2 / sum (x - s * clip(rint(x / s), -128, 127))**2)`` over all values; sums in float64.
    """
    signal = noise = 0.0
    step = np.float64(scale)
    for start in range(0, len(values), _AT_A_TIME):
        x = np.concatenate(values[start : start + _AT_A_TIME]).astype(np.float64)
        error = x - step * np.clip(np.rint(x / step), -128, 127)
        signal += float(x @ x)
        noise += float(error @ error)
    return float(10 * np.log10(signal / noise))


_AT_A_TIME = 128
"""Samples whose float64 copies are held at once."""


def bins_for_share(counts: NDArray[np.int64], share: float) -> int:
    """Return how many bins, from bin 0 on, hold that share of the values."""
    return int(np.searchsorted(np.cumsum(counts), share * counts.sum())) + 1


def _batches(values: Values, how: Configuration) -> list[NDArray[np.float32]]:
    size = how.batch_size
    return [np.concatenate(values[start : start + size]) for start in range(0, len(values), size)]
