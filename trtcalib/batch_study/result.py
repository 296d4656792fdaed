"""What a study of batch sizes and orders found: the values of study.json, versioned.

Like a cache's manifest nothing in it changes from run to run on the same machine: no time, no absolute path, no number of workers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trtcalib.errors import SpecError
from trtcalib.manifest import DataFacts, Finding, ModelFacts, Sha256

__all__ = [
    "SCHEMA_VERSION",
    "Configuration",
    "Cost",
    "Doubling",
    "Outcome",
    "OutlierSample",
    "StudiedTensor",
    "Study",
    "StudySummary",
    "Without",
    "read_study",
]

SCHEMA_VERSION = 1
"""Raised when a field changes its meaning or goes; new fields alone do not raise it."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Configuration(_Value):
    """One batch size in one order."""

    name: Annotated[str, Field(description="b8, or b8-s3 for the order of --shuffle 3; all for one batch")]
    batch_size: int
    shuffle: Annotated[int | None, Field(description="seed of NumPy's PCG64 permutation; null: the source's order")]
    batches: int
    last_batch_samples: int
    cache: Annotated[str, Field(description="the calibration cache, beside study.json")]
    cache_sha256: Sha256
    moved: Annotated[
        float,
        Field(description="share of tensors whose scale differs from the reference's by more than 1 %", ge=0, le=1),
    ]


class Doubling(_Value):
    """One batch beyond the range, which made the range double."""

    batch: Annotated[int, Field(description="from 1, in this configuration's order")]
    times: Annotated[int, Field(description="how often the range doubled at it", ge=1)]
    sample: Annotated[str, Field(description="the sample with the batch's maximum")]
    maximum: Annotated[float, Field(description="the batch's maximum of |x|")]
    alone: Annotated[bool, Field(description="no other sample of all the data exceeds the range before it")]


class Without(_Value):
    """The same configuration without the one sample that holds the tensor's maximum; the other batches stay as they are."""

    sample: str
    range: Annotated[float | None, Field(description="null where it is past float32")]
    doublings: int
    bin_m: int | None
    scale: float | None
    change: Annotated[float | None, Field(description="scale without it / scale with it - 1")]


class Outcome(_Value):
    """One tensor in one configuration. Numbers that JSON cannot hold are null; ``scale_hex`` always tells."""

    first_maximum: Annotated[
        float, Field(description="maximum of the first batch that is not all zero: the first range")
    ]
    first_batch: Annotated[int, Field(description="that batch, from 1; 0 for a tensor that is all zero")]
    first_sample: Annotated[str | None, Field(description="the sample that holds it")]
    doublings: list[Doubling]
    range: Annotated[float | None, Field(description="final range, in the tensor's units")]
    wasted_bins: Annotated[int, Field(description="bins that lie wholly above the true maximum")]
    bin_m: Annotated[int | None, Field(description="the candidate that the entropy search chose")]
    amax: float | None
    scale: float | None
    scale_hex: Annotated[str, Field(description="float32 bits of the scale, as in the cache")]
    change: Annotated[float | None, Field(description="scale / the reference's scale - 1")]
    clipped: Annotated[float, Field(description="share of values in bins at or above amax", ge=0, le=1)]
    without: Without | None


class StudiedTensor(_Value):
    """One tensor in all configurations."""

    name: str
    kind: Literal["input", "constant", "folded", "activation"]
    inherited_from: Annotated[str | None, Field(description="the tensor whose histogram or scale this one carries")]
    maximum: Annotated[float | None, Field(description="true maximum of |x| over all finite values")]
    maximum_sample: Annotated[str | None, Field(description="the first sample that holds it; null for constants")]
    next_maximum: Annotated[float | None, Field(description="the largest maximum among the other samples")]
    values: Annotated[int | None, Field(description="how many values were counted")]
    instability: Annotated[
        float | None,
        Field(
            description="(largest - smallest scale over all configurations) / the reference's; null where that is 0 or infinite"
        ),
    ]
    outcomes: Annotated[
        list[Outcome],
        Field(
            description="one per configuration, in their order; empty for constants, and where the tensor that it inherits from tells them"
        ),
    ]
    scale_hex: Annotated[str, Field(description="float32 bits of the reference's scale")]
    scale: Annotated[float | None, Field(description="the reference's scale")]


class OutlierSample(_Value):
    """A sample that alone stretches ranges."""

    sample: str
    tensors: Annotated[
        int, Field(description="of how many tensors it alone holds a maximum at least 1.25 x the next sample's")
    ]
    stretch: Annotated[
        float | None, Field(description="the largest of these factors; null where it is zero in all other samples")
    ]
    examples: Annotated[list[str], Field(description="the tensors that it stretches most, at most five")]


class StudySummary(_Value):
    """The model as a whole."""

    score: Annotated[
        float,
        Field(
            description="share of (tensor, configuration) pairs that moved by at most 1 % from the reference",
            ge=0,
            le=1,
        ),
    ]
    stable_batch_size: Annotated[
        int | None,
        Field(
            description="smallest batch size from which on at least 95 % of tensors move by less than 1 %, in every order"
        ),
    ]
    recommendation: Annotated[str, Field(description="one sentence with its reason")]
    outliers: Annotated[list[OutlierSample], Field(description="ranked, at most 100")]


class Cost(_Value):
    """What the study took, in units that do not depend on the machine."""

    inferences: Annotated[int, Field(description="runs of the model: the samples of both passes")]
    naive_inferences: Annotated[int, Field(description="what a calibration run per configuration would take")]
    tensors: Annotated[int, Field(description="tensors with a histogram of their own that depend on the data")]
    distinct_ranges: Annotated[int, Field(description="histograms that were counted, summed over the tensors")]
    searches: Annotated[int, Field(description="distinct histograms that the method was applied to")]


class Study(_Value):
    """What stands in study.json."""

    schema_version: Literal[1] = 1
    tool: Literal["trtcalib"] = "trtcalib"
    kind: Literal["study"] = "study"
    model: ModelFacts
    data: DataFacts
    recipe: dict[str, Any]
    method: Annotated[str, Field(description="the recipe's name for people, such as entropy")]
    algorithm: Annotated[str, Field(description="in the caches' headers")]
    tensorrt_version: str
    bins: int
    max_samples: int | None
    skip_bad_images: bool
    seed: Annotated[int, Field(description="of the first shuffled order")]
    orders: Annotated[int, Field(description="shuffled orders per batch size, beside the source's")]
    session_options: dict[str, str | int]
    versions: dict[str, str]
    cpu: str
    reference: Annotated[
        str, Field(description="the configuration that changes are told against: all samples in one batch")
    ]
    configurations: list[Configuration]
    histograms: Annotated[
        dict[str, str],
        Field(
            description="histogram files beside study.json, by configuration: the reference, and the one that moved most"
        ),
    ]
    cost: Cost
    summary: StudySummary
    notes: Annotated[list[str], Field(description="batch sizes that were left out or replaced, and why")]
    findings: list[Finding]
    tensors: Annotated[list[StudiedTensor], Field(description="in graph order")]


def read_study(path: Path | str) -> Study:
    """Read study.json.

    Raises:
        SpecError: If it is missing, is no study, or is of a newer version.
    """
    path = Path(path)
    try:
        return Study.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise SpecError(path, ("no such file: trtcalib study writes it",)) from error
    except OSError as error:
        raise SpecError(path, (f"cannot be read: {error.strerror}",)) from error
    except ValidationError as error:
        faults = tuple(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()[:10])
        raise SpecError(path, faults) from error
