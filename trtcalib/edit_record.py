"""What a manifest says beside calibration: the study that chose the recipe, and what ``trtcalib cache`` made of which files."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["ChosenBy", "Edit", "EditRecord", "EditedFile"]

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Facts(BaseModel):
    # Its names may begin with model_, which older versions of pydantic keep for themselves.
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class ChosenBy(_Facts):
    """The study that chose the recipe; the scales are those that calibrating with it gives."""

    study: Literal["sweep"]
    file: Annotated[str, Field(description="its result, beside the cache")]
    file_sha256: Sha256
    metric: str
    candidates: Annotated[int, Field(description="recipes that were compared, on the samples of the provenance")]
    baseline: Annotated[str, Field(description="what the gain is over")]
    gain: Annotated[
        float, Field(description="the baseline's loss minus this recipe's, in the metric's units, on held-out samples")
    ]
    is_significant: Annotated[bool, Field(description="whether the gain's 95 % interval lies above 0")]
    samples: Annotated[int, Field(description="how many were held out")]


class EditedFile(_Facts):
    """A cache that an edit read."""

    cache: Annotated[str, Field(description="relative to the manifest where that is possible")]
    sha256: Sha256
    header: Annotated[str, Field(description="first line, such as TRT-101601-EntropyCalibration2")]
    model_sha256: Annotated[
        Sha256 | None, Field(description="the model that its manifest stated; null where it had none of its bytes")
    ] = None
    data_sha256: Annotated[Sha256 | None, Field(description="the data that its manifest stated; null likewise")] = None


class Edit(_Facts):
    """One command."""

    command: Literal["merge", "convert", "rename", "set"]
    files: Annotated[list[EditedFile], Field(description="what it read, in the order given", min_length=1)]
    result_sha256: Annotated[Sha256, Field(description="of the cache that it wrote")]
    detail: Annotated[dict[str, Any], Field(description="what was asked for, by command")]
    notes: Annotated[list[str], Field(description="what it said beside its result, one sentence each")]
    trtcalib: Annotated[str, Field(description="the version that did it")]


class EditRecord(_Facts):
    """What stands in OUT.cache.edits.json: of a cache that was edited, where nothing is known of model and data."""

    schema_version: Literal[1] = 1
    tool: Literal["trtcalib"] = "trtcalib"
    cache: str
    cache_sha256: Sha256
    tensorrt_version: str
    algorithm: str
    edits: Annotated[list[Edit], Field(description="the oldest first", min_length=1)]
