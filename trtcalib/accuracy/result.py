"""What evaluate, ablate, sweep, sensitivity and advise found: the values of their JSON files, versioned.

Nothing in them changes from run to run: no time, no number of workers, and paths are relative to the file.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from trtcalib.judging.result import JudgedOutput, Judgement, MetricFacts, Range, Score
from trtcalib.manifest import BatchingFacts, DataFacts, Finding, ModelFacts

__all__ = [
    "SCHEMA_VERSION",
    "Ablation",
    "AblationCell",
    "AblationRow",
    "Advice",
    "AdviceItem",
    "Candidate",
    "ClassScore",
    "Evaluation",
    "Fallback",
    "JudgedOutput",
    "Judgement",
    "LayerSensitivity",
    "MetricFacts",
    "NetworkTensor",
    "Range",
    "Score",
    "Sensitivity",
    "Setting",
    "Sweep",
    "VariantFacts",
]

SCHEMA_VERSION = 1
"""Raised when a field changes its meaning or goes; new fields alone do not raise it."""

WeightColumn = Literal["float", "tensor", "channel"]


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", json_schema_serialization_defaults_required=True)


class VariantFacts(_Facts):
    """What a variant quantizes."""

    method: Annotated[
        str, Field(description="how the scales were chosen, for people: entropy, percentile 99.99, a cache")
    ]
    activations: bool
    weights: WeightColumn
    float_nodes: Annotated[list[str], Field(description="first outputs of the nodes that were left in float")] = []


class Setting(_Facts):
    """What every result starts with."""

    schema_version: Literal[1] = 1
    tool: Literal["trtcalib"] = "trtcalib"
    tool_version: str
    simulated: Annotated[
        bool, Field(description="whether INT8 was simulated by ONNX Runtime in float, not run by TensorRT")
    ] = True
    model: ModelFacts
    calibration: Annotated[
        DataFacts | None, Field(description="what the scales were made from; null: a cache was given")
    ]
    batching: Annotated[BatchingFacts | None, Field(description="how those samples were grouped")]
    evaluation: Annotated[DataFacts, Field(description="what was judged on")]
    held_out: Annotated[bool, Field(description="whether the scales were made without the judged samples")]
    labels: Annotated[str | None, Field(description="name of the labels' file; null without labels")]
    metric: MetricFacts
    reference: Annotated[Score, Field(description="FP32")]
    versions: dict[str, str]
    cpu: str
    findings: list[Finding]
    notes: Annotated[list[str], Field(description="what a reader should know, one sentence each")]


class ClassScore(_Facts):
    """Samples of one class."""

    label: int
    samples: int
    reference: Annotated[int, Field(description="how many FP32 gets right")]
    reference_interval: Range
    right: Annotated[int, Field(description="how many the variant gets right")]
    interval: Range


class Evaluation(Setting):
    """What stands in the JSON of ``trtcalib evaluate``."""

    kind: Literal["evaluation"] = "evaluation"
    variant: VariantFacts
    cache: Annotated[str | None, Field(description="the calibration cache that was given")]
    engine: Annotated[str | None, Field(description="the engine that was run; then nothing is simulated")]
    judgement: Judgement
    only_reference: Annotated[
        int | None, Field(description="samples that FP32 alone gets right; null for other metrics")
    ]
    only_variant: Annotated[int | None, Field(description="samples that the variant alone gets right")]
    classes: Annotated[list[ClassScore], Field(description="by label; empty where no class is known")]
    quantized: Annotated[int | None, Field(description="weighted nodes in INT8; null for an engine")]
    weighted: Annotated[int | None, Field(description="weighted nodes in all")]


class AblationCell(_Facts):
    """One method for one part of the model."""

    activations: bool
    weights: WeightColumn
    weight_method: Annotated[str | None, Field(description="how the weights' scales were chosen; null: float weights")]
    judgement: Judgement


class AblationRow(_Facts):
    """One method."""

    method: Annotated[str, Field(description="for people: minmax, entropy, percentile 99.99, mse")]
    recipe: dict[str, Any]
    cells: Annotated[
        list[AblationCell],
        Field(description="weights alone per tensor, weights alone per channel, activations alone, both"),
    ]


class Ablation(Setting):
    """What stands in ablation.json."""

    kind: Literal["ablation"] = "ablation"
    rows: list[AblationRow]
    best: Annotated[
        str,
        Field(
            description="the method whose 'both' loses least; of equals the one with the least noise at the judged output"
        ),
    ]
    indistinguishable: Annotated[
        list[str],
        Field(description="methods whose 'both' lies within the confidence interval of the best, the best excluded"),
    ]


class Candidate(_Facts):
    """One method that was tried, or looked at again, on the calibration data."""

    method: str
    recipe: dict[str, Any]
    judgement: Judgement


class Sweep(Setting):
    """What stands in sweep.json. The judged samples of the header are the held-out ones."""

    kind: Literal["sweep"] = "sweep"
    searched: Annotated[DataFacts, Field(description="the calibration samples that candidates were compared on")]
    search_metric: Annotated[
        MetricFacts | None, Field(description="what compared them, where those samples lack labels; null: the metric")
    ] = None
    candidates: Annotated[list[Candidate], Field(description="in the order in which they were tried")]
    evaluations: int
    baseline: Annotated[Candidate, Field(description="entropy, judged on the held-out samples")]
    winner: Annotated[Candidate, Field(description="judged on the held-out samples")]
    gain: Annotated[float, Field(description="the baseline's loss minus the winner's, on the held-out samples")]
    gain_interval: Range | None
    is_significant: Annotated[bool, Field(description="whether the interval of the gain lies above 0")]
    cache: Annotated[str | None, Field(description="the winner's calibration cache, beside this file")]


class LayerSensitivity(_Facts):
    """One weighted node."""

    rank: Annotated[int, Field(description="1: quantizing it alone costs most")]
    name: str
    operator: str
    output: Annotated[str, Field(description="its first output's name")]
    tensor: Annotated[str | None, Field(description="the activation that it takes")]
    macs: int | None
    only_sqnr_db: Annotated[
        float | None, Field(description="lowest of the outputs with this node alone in INT8; null: no noise")
    ]
    only_loss: Annotated[float, Field(description="the metric's loss with this node alone in INT8")]
    all_but_sqnr_db: Annotated[float | None, Field(description="with all but this node in INT8; null: no noise")]
    all_but_loss: float
    gain: Annotated[float, Field(description="the loss of full INT8 minus that with this node in float")]
    local_sqnr_db: Annotated[
        float | None, Field(description="at its own output, with this node alone in INT8; null: no noise")
    ]
    clipped_share: Annotated[
        float | None,
        Field(
            description="share of its input's noise that is clipping; the rest is rounding; null: no noise or no histogram"
        ),
    ]


class NetworkTensor(_Facts):
    """A weighted node's output in the fully quantized model, in graph order."""

    output: str
    sqnr_db: float | None


class Fallback(_Facts):
    """The nodes to leave in float."""

    max_loss: float
    reached: Annotated[bool, Field(description="whether the loss with this set is within max_loss")]
    nodes: Annotated[list[str], Field(description="names of the nodes to leave in float, most sensitive first")]
    outputs: Annotated[list[str], Field(description="their first outputs")]
    loss: float
    loss_interval: Range | None
    macs_int8: Annotated[
        float | None, Field(description="share of the known multiply-accumulates that stays in INT8; null: none known")
    ]
    evaluations: int
    dialects: Annotated[dict[str, str], Field(description="how each tool is told, ready to be pasted, by tool")]


class Sensitivity(Setting):
    """What stands in sensitivity.json."""

    kind: Literal["sensitivity"] = "sensitivity"
    variant: VariantFacts
    full: Annotated[Judgement, Field(description="everything in INT8")]
    layers: Annotated[list[LayerSensitivity], Field(description="most sensitive first")]
    network: Annotated[list[NetworkTensor], Field(description="along the network")]
    fallback: Annotated[Fallback | None, Field(description="null where no loss was set, or full INT8 is within it")]


class AdviceItem(_Facts):
    """One thing to do, or to know."""

    code: Annotated[
        str, Field(description="stable name of the kind: inputs, method, batch-size, fallback, samples, open, fine")
    ]
    title: Annotated[str, Field(description="what to do, in one sentence")]
    evidence: Annotated[list[str], Field(description="what was measured, one sentence each")]
    command: Annotated[str | None, Field(description="what to run to do it")]
    reproduce: Annotated[str | None, Field(description="what to run to see the evidence again")]
    checked: Annotated[Judgement | None, Field(description="the advice followed, judged; null where it was not tried")]


class Advice(Setting):
    """What stands in advice.json."""

    kind: Literal["advice"] = "advice"
    before: Annotated[Judgement, Field(description="entropy, everything in INT8: what one gets without advice")]
    after: Annotated[Judgement | None, Field(description="all advice followed; null where there is nothing to follow")]
    items: Annotated[list[AdviceItem], Field(description="most important first")]
    sources: Annotated[dict[str, str], Field(description="files that it rests on, by kind")]
