"""What a report shows: the values of report.json, versioned, and the curves that are drawn and stand in no JSON.

Nothing in it changes from run to run: no time, and paths are relative to the report. Later kinds of results get a field
of their own, null or empty where nothing of that kind was given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from trtcalib.accuracy.result import Ablation, Advice, Evaluation, Sensitivity, Sweep
from trtcalib.batch_study.result import Study
from trtcalib.core.histogram import Histogram
from trtcalib.manifest import BatchingFacts, DataFacts, ModelFacts, Sha256

__all__ = [
    "SCHEMA_VERSION",
    "CacheComparison",
    "CacheRow",
    "CacheScale",
    "Curves",
    "Divergence",
    "Drawn",
    "HistogramFacts",
    "HistogramSet",
    "MethodAmax",
    "Report",
    "ReportedAblation",
    "ReportedAccuracy",
    "ReportedAdvice",
    "ReportedCache",
    "ReportedEvaluation",
    "ReportedSensitivity",
    "ReportedStudy",
    "ReportedSweep",
    "SetTensor",
    "Source",
    "Story",
]

SCHEMA_VERSION = 1
"""Raised when a field changes its meaning or goes; new fields alone do not raise it."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Source(_Value):
    """One file that the report was made from."""

    file: Annotated[str, Field(description="relative to the report where that is possible")]
    kind: Literal["advice", "evaluation", "ablation", "sweep", "sensitivity", "study", "histograms", "cache"]
    sha256: Sha256


class Story(_Value):
    """How one tensor's range came about in one configuration."""

    growth: Annotated[
        list[tuple[int, float]],
        Field(
            description="(samples seen, range from then on), first batch first; empty where the range did not grow by doubling"
        ),
    ]
    why: Annotated[str, Field(description="one sentence for people")]


class ReportedStudy(_Value):
    """A study of batch sizes and orders."""

    label: Annotated[str, Field(description="its folder's name")]
    file: str
    study: Annotated[Study, Field(description="study.json as it stands")]
    stories: Annotated[list[list[Story]], Field(description="per tensor and configuration, in the study's order")]


class MethodAmax(_Value):
    """Where one method clips a histogram. Numbers that JSON cannot hold are null."""

    method: Annotated[str, Field(description="for people: entropy, minmax, percentile 99.9")]
    amax: float | None
    scale: float | None
    bin_m: Annotated[int | None, Field(description="the candidate that the entropy search chose")]
    clipped: Annotated[float, Field(description="share of values in bins at or above amax", ge=0, le=1)]


class Divergence(_Value):
    """The entropy search over one histogram."""

    variant: str
    first: Annotated[int, Field(description="the first candidate: how many bins are kept")]
    candidates: int
    allowed: Annotated[int, Field(description="how many of them may win")]
    smallest: Annotated[float | None, Field(description="KL in nats; null where no candidate is allowed")]
    bin_m: Annotated[int, Field(description="the candidate chosen")]


class HistogramFacts(_Value):
    """One histogram of |x|."""

    tensor: str
    bins: int
    range: Annotated[float | None, Field(description="upper end of the last bin; null where it is past float32")]
    first_maximum: float
    maximum: Annotated[float, Field(description="true maximum of |x| over all finite values")]
    doublings: int
    values: int
    empty_bins: Annotated[int, Field(description="bins that lie wholly above the true maximum")]
    highest: Annotated[int, Field(description="values in the fullest bin")]
    methods: list[MethodAmax]
    divergence: Annotated[Divergence | None, Field(description="null where there is nothing to search")]


class SetTensor(_Value):
    """A tensor of a histogram file."""

    name: str
    kind: Literal["input", "constant", "folded", "activation"]
    inherited_from: Annotated[str | None, Field(description="the tensor whose histogram or scale this one carries")]
    histogram: Annotated[int | None, Field(description="position in the set's histograms")]


class HistogramSet(_Value):
    """One histogram file."""

    label: str
    file: str
    study: Annotated[int | None, Field(description="position of the study that it belongs to")]
    configuration: Annotated[str | None, Field(description="that study's configuration")]
    model: ModelFacts
    data: DataFacts
    batching: BatchingFacts
    versions: dict[str, str]
    histograms: list[HistogramFacts]
    tensors: list[SetTensor]


class ReportedCache(_Value):
    """One calibration cache."""

    label: str
    file: Annotated[str | None, Field(description="null for the reference of a study")]
    header: str
    tensorrt_version: str
    algorithm: str
    tensors: int
    method: Annotated[str | None, Field(description="of the manifest; null without one")]
    batch_size: int | None
    shuffle: int | None
    samples: int | None
    model_sha256: str | None
    common: Annotated[int, Field(description="names that the first cache has too")]
    equal: Annotated[int, Field(description="of them, with the same bits")]
    moved: Annotated[int, Field(description="of them, with a scale more than 1 % from the first's")]
    closest: Annotated[str | None, Field(description="the study's configuration with most scales in common, if any")]
    closest_equal: Annotated[
        int | None, Field(description="how many scales that configuration has in common, to the bit")
    ]
    oddities: list[str]


class CacheScale(_Value):
    """One tensor in one cache."""

    scale: Annotated[float | None, Field(description="null where JSON cannot hold it")]
    scale_hex: str
    ratio: Annotated[float | None, Field(description="to the first cache's; null where that has none, or 0")]


class CacheRow(_Value):
    """One tensor in all caches."""

    name: str
    scales: Annotated[list[CacheScale | None], Field(description="per cache; null where it lacks the name")]
    apart: Annotated[float | None, Field(description="the largest |ratio - 1|")]


class CacheComparison(_Value):
    """Caches side by side; where a study was given too, its reference stands first."""

    caches: list[ReportedCache]
    rows: list[CacheRow]


class _Reported(_Value):
    label: Annotated[str, Field(description="the file's name, or its folder's where the file is called as its kind")]
    file: str


class ReportedAdvice(_Reported):
    """What to do about the accuracy."""

    result: Annotated[Advice, Field(description="advice.json as it stands")]


class ReportedEvaluation(_Reported):
    """FP32 against INT8."""

    result: Annotated[Evaluation, Field(description="evaluation.json as it stands")]


class ReportedAblation(_Reported):
    """Methods, each for parts of the model."""

    result: Annotated[Ablation, Field(description="ablation.json as it stands")]


class ReportedSweep(_Reported):
    """A search among methods."""

    result: Annotated[Sweep, Field(description="sweep.json as it stands")]


class ReportedSensitivity(_Reported):
    """What each weighted node costs."""

    result: Annotated[Sensitivity, Field(description="sensitivity.json as it stands")]


class ReportedAccuracy(_Value):
    """The accuracy studies, each kind in the order given."""

    advice: list[ReportedAdvice]
    evaluations: list[ReportedEvaluation]
    ablations: list[ReportedAblation]
    sweeps: list[ReportedSweep]
    sensitivities: list[ReportedSensitivity]


class Report(_Value):
    """What stands in report.json."""

    schema_version: Literal[1] = 1
    tool: Literal["trtcalib"] = "trtcalib"
    kind: Literal["report"] = "report"
    title: str
    sources: list[Source]
    notes: Annotated[list[str], Field(description="what was odd about the files")]
    studies: list[ReportedStudy]
    histograms: list[HistogramSet]
    caches: CacheComparison | None
    accuracy: Annotated[
        ReportedAccuracy | None, Field(description="null where no result of an accuracy study was given")
    ] = None


@dataclass(frozen=True, slots=True)
class Curves:
    """What is drawn of one histogram.

    Attributes:
        histogram: The counts and their range.
        divergences: float64, KL in nats per candidate, infinite where it is not allowed; ``None`` without a search.
        chosen: Position of the chosen candidate in them; 0 without a search.
    """

    histogram: Histogram
    divergences: NDArray[np.float64] | None = None
    chosen: int = 0


@dataclass(frozen=True, slots=True)
class Drawn:
    """A report with its curves.

    Attributes:
        report: What stands in report.json.
        curves: Per set of histograms, one per histogram, in their order.
    """

    report: Report
    curves: Mapping[int, tuple[Curves, ...]]
