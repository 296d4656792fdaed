"""What judging gives, as it stands in JSON: values, intervals, and how far each output is from FP32's."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["JudgedOutput", "Judgement", "MetricFacts", "Range", "Score"]


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", json_schema_serialization_defaults_required=True)


class Range(_Facts):
    """An interval with 95 % confidence."""

    low: Annotated[float | None, Field(description="null: no lower end")]
    high: Annotated[float | None, Field(description="null: no upper end")]


class MetricFacts(_Facts):
    """What is scored; more is better."""

    name: Annotated[str, Field(description="top1, top5, agreement, cosine, sqnr, or module:function")]
    output: Annotated[str | None, Field(description="the output that is scored; null: all of them")]
    is_share: Annotated[bool, Field(description="whether each sample is right or wrong, so that the value is a share")]


class Score(_Facts):
    """A metric's value over all judged samples."""

    value: Annotated[float | None, Field(description="a share, a mean, or dB for sqnr; null where it is infinite")]
    interval: Range | None


class JudgedOutput(_Facts):
    """One output of the model, beside FP32's."""

    name: str
    sqnr_db: Annotated[
        float | None,
        Field(
            description="10 log10(sum of squares / sum of squared differences) over all samples; null: no difference"
        ),
    ]
    cosine: Annotated[float | None, Field(description="mean over the samples; null where nothing is finite")]
    agreement: Annotated[
        float | None,
        Field(description="share of rows along the last axis whose largest element is FP32's; null for rows of one"),
    ]
    largest_difference: Annotated[float | None, Field(description="in the output's units")]


class Judgement(Score):
    """How one variant does on the judged samples, beside FP32 on the same samples."""

    loss: Annotated[
        float,
        Field(
            description="FP32's value minus this one, both of the metric; for sqnr noise / signal of the worst output"
        ),
    ]
    loss_interval: Range | None
    p_value: Annotated[
        float | None, Field(description="exact McNemar test of right and wrong samples; null for other metrics")
    ]
    outputs: list[JudgedOutput]
