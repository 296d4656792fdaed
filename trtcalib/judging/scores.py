"""What a metric is, and the metrics: scores of one sample's outputs. Higher is better in all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from trtcalib.errors import DataError, MetricError
from trtcalib.samples.feeds import shape_text
from trtcalib.spec_files import brief

__all__ = ["Agreement", "Cosine", "Metric", "Outputs", "Sqnr", "Top", "no_rows", "not_one_row"]

Outputs = Mapping[str, NDArray[Any]]
"""One sample's outputs by name; a batch axis is kept, as 1."""

_MAP_AXES = 4
"""Of ``[N, C, 1, 1]``, what global pooling leaves of a map of features."""


class Metric(Protocol):
    """Scores one sample at a time, by its label or against FP32's outputs.

    Attributes:
        name: What the command line calls it.
        needs_labels: Whether there is no score without a label.
        pooled: Whether the value comes from sums over all samples, and :meth:`score` is not called.
        is_share: Whether every score is 0 or 1, so that the mean is a share and Wilson's and McNemar's formulas hold.
    """

    @property
    def name(self) -> str: ...  # noqa: D102 - the class says it

    @property
    def needs_labels(self) -> bool: ...  # noqa: D102 - as name

    @property
    def pooled(self) -> bool: ...  # noqa: D102 - as name

    @property
    def is_share(self) -> bool: ...  # noqa: D102 - as name

    def score(self, outputs: Outputs, reference: Outputs, label: Any, sample: str) -> float:
        """Return one sample's score.

        Args:
            outputs: What is judged.
            reference: What FP32 gives; the same where FP32 itself is judged.
            label: The sample's label; ``None`` where there are none.
            sample: What an error calls it.

        Raises:
            MetricError: If the outputs are not what the metric judges, or a user's function fails.
            DataError: If the label does not fit the outputs.
        """


@dataclass(frozen=True, slots=True)
class Top:
    """1 where the label is among the ``k`` largest scores, else 0.

    Of equal scores the one before counts as larger, as in argmax. A row with a NaN is wrong.

    Attributes:
        k: How many classes may be named.
        output: One row of at least two scores per sample, whatever axes of 1 stand around it.
    """

    k: int
    output: str
    needs_labels: ClassVar[bool] = True
    pooled: ClassVar[bool] = False
    is_share: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """``top1``, ``top5``."""
        return f"top{self.k}"

    def score(self, outputs: Outputs, reference: Outputs, label: Any, sample: str) -> float:
        """Return 0.0 or 1.0; the reference is not looked at."""
        del reference
        found = outputs[self.output]
        row = found.squeeze()
        if row.ndim != 1 or row.size == 0:
            raise not_one_row(self.name, f"output {brief(self.output)} has shape {shape_text(found.shape)}", sample)
        if not 0 <= label < row.size:
            raise DataError(
                "labels",
                f"the label is {label} and output {brief(self.output)} has {row.size} classes: labels from 1? "
                f"expected 0 to {row.size - 1}",
                sample,
            )
        if np.isnan(row).any():
            return 0.0
        mine = row[label]
        rank = np.count_nonzero(row > mine) + np.count_nonzero(row[:label] == mine)
        return float(rank < self.k)


@dataclass(frozen=True, slots=True)
class Agreement:
    """Share of rows along the last axis (of ``[N, C, 1, 1]``: along C) whose largest element is where FP32's is.

    Of equal elements the first counts. A NaN agrees with a NaN at the same place only; outputs of another shape than
    FP32's, as detections after a cut have, agree in nothing; with no rows at all there is nothing to differ in: 1.

    Attributes:
        output: Rows of at least two elements.
        is_share: Whether there is one row per sample.
    """

    output: str
    is_share: bool = False
    name: ClassVar[str] = "agreement"
    needs_labels: ClassVar[bool] = False
    pooled: ClassVar[bool] = False

    def score(self, outputs: Outputs, reference: Outputs, label: Any, sample: str) -> float:
        """Return 0 to 1; the label is not looked at."""
        del label
        found, expected = outputs[self.output], reference[self.output]
        if found.shape != expected.shape:
            return 0.0
        if found.ndim == _MAP_AXES and found.shape[2:] == (1, 1):
            found, expected = found[:, :, 0, 0], expected[:, :, 0, 0]
        if found.ndim == 0 or found.shape[-1] in (0, 1):
            shape = shape_text(outputs[self.output].shape)
            raise no_rows(f"output {brief(self.output)} has shape {shape}", sample)
        places = expected.argmax(axis=-1)[..., np.newaxis]
        same = found.argmax(axis=-1)[..., np.newaxis] == places
        # argmax names the first NaN, where the other may have its largest number.
        same &= np.isnan(np.take_along_axis(found, places, -1)) == np.isnan(np.take_along_axis(expected, places, -1))
        return float(same.mean()) if same.size else 1.0


@dataclass(frozen=True, slots=True)
class Cosine:
    """Cosine between the flattened output and FP32's, in float64; of several outputs the lowest.

    Two outputs of zeros have 1, one of them 0. Infinities that both have at the same place, as in attention masks, are
    left out; with any other infinity or NaN, and with another shape than FP32's, it is 0 (ours: there is no angle).

    Attributes:
        output: ``None``: all that are floating point.
    """

    output: str | None = None
    name: ClassVar[str] = "cosine"
    needs_labels: ClassVar[bool] = False
    pooled: ClassVar[bool] = False
    is_share: ClassVar[bool] = False

    def score(self, outputs: Outputs, reference: Outputs, label: Any, sample: str) -> float:
        """Return -1 to 1; the label is not looked at."""
        del label
        names = [name for name in reference if reference[name].dtype.kind == "f" and self.output in (None, name)]
        if not names:
            raise MetricError(self.name, "needs a floating-point output and got none; use module:function", sample)
        return min(_cosine(outputs[name], reference[name]) for name in names)


@dataclass(frozen=True, slots=True)
class Sqnr:
    """``10 log10(sum signal / sum noise)`` in dB over all samples; a pooled metric, whose sums its caller keeps.

    Attributes:
        output: ``None``: all that are floating point, of which the lowest counts.
    """

    output: str | None = None
    name: ClassVar[str] = "sqnr"
    needs_labels: ClassVar[bool] = False
    pooled: ClassVar[bool] = True
    is_share: ClassVar[bool] = False

    def score(self, outputs: Outputs, reference: Outputs, label: Any, sample: str) -> float:
        """Not for a pooled metric."""
        raise NotImplementedError


def not_one_row(metric: str, found: str, sample: str | None = None) -> MetricError:
    """Return the error of outputs that are not class scores; ``found`` says their shapes."""
    return MetricError(
        metric,
        f"needs one row of class scores per sample: {found}; use --metric sqnr or agreement/cosine, a metric of your own "
        "(module:function), or name another output with --output-name",
        sample,
    )


def no_rows(found: str, sample: str | None = None) -> MetricError:
    """Return the error of outputs in which nothing can be the largest; ``found`` says their shapes."""
    return MetricError(
        Agreement.name,
        f"needs rows of at least two scores along the last axis: {found}; use --metric sqnr or cosine, or name another "
        "output with --output-name",
        sample,
    )


def _cosine(found: NDArray[Any], expected: NDArray[Any]) -> float:
    if found.shape != expected.shape:
        return 0.0
    a, b = found.astype(np.float64).ravel(), expected.astype(np.float64).ravel()
    shared = np.isinf(b) & (a == b)
    a, b = a[~shared], b[~shared]
    largest = [float(np.abs(values).max(initial=0)) for values in (a, b)]
    if not np.isfinite(largest).all():
        return 0.0
    if 0 in largest:
        return float(largest[0] == largest[1])
    a, b = a / largest[0], b / largest[1]  # so that no square overflows or vanishes
    # One root of the product, which is exact for equal outputs.
    cosine = float((a * b).sum()) / float(np.sqrt((a * a).sum() * (b * b).sum()))
    return min(1.0, max(-1.0, cosine))
