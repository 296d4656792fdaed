"""What TensorRT-RTX says of a model: the answers of the process that asks it, and the result that they make."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, computed_field

__all__ = [
    "ANSWER",
    "Answer",
    "BuildOutcome",
    "Built",
    "Conformance",
    "Failed",
    "LayerFacts",
    "Missing",
    "NodeVerdict",
    "Outcome",
    "Parsed",
    "Refused",
    "Request",
    "Started",
]

Outcome = Literal["accepted", "rejected", "crashed", "timeout"]

Name = Annotated[str, Field(description="as the model has it, or as the parser made it up")]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_serialization_defaults_required=True)


class Request(_Value):
    """What the process is asked."""

    model: str
    compute_capability: int
    every_capability: tuple[int, ...]
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}


class LayerFacts(_Value):
    """A weighted layer of the network that the parser made, judged."""

    layer: Name
    kind: Annotated[str, Field(description="TensorRT's layer type, such as CONVOLUTION")]
    node: Annotated[
        str, Field(description="where the parser says it comes from: the node's name, then what it lies in")
    ]
    reasons: tuple[str, ...] = ()


class Started(_Value):
    """TensorRT-RTX is there."""

    stage: Literal["started"] = "started"
    version: str


class Missing(_Value):
    """TensorRT-RTX is not there."""

    stage: Literal["missing"] = "missing"
    reason: str


class Refused(_Value):
    """What was asked for cannot be had; all faults at once."""

    stage: Literal["refused"] = "refused"
    argument: str
    faults: tuple[str, ...]


class Failed(_Value):
    """The process itself met an error."""

    stage: Literal["failed"] = "failed"
    reason: str


class Parsed(_Value):
    """What the parser said, and the weighted layers of the network that it made."""

    stage: Literal["parsed"] = "parsed"
    accepted: bool
    faults: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    layers: tuple[LayerFacts, ...] = ()


class Built(_Value):
    """What the builder said."""

    stage: Literal["built"] = "built"
    accepted: bool
    engine_bytes: int | None = None
    seconds: float
    faults: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    told: dict[str, bool] = {}


Answer = Annotated[Started | Missing | Refused | Failed | Parsed | Built, Field(discriminator="stage")]

ANSWER: TypeAdapter[Started | Missing | Refused | Failed | Parsed | Built] = TypeAdapter(Answer)


class NodeVerdict(_Value):
    """What became of one weighted operator."""

    node: Annotated[str | None, Field(description="the ONNX node; null where the parser does not say which it was")]
    operator: Annotated[str | None, Field(description="of the node, such as Conv")]
    layer: Annotated[str | None, Field(description="TensorRT-RTX's layer; null where the parser made none of it")]
    kind: Annotated[str | None, Field(description="of the layer, such as CONVOLUTION")]
    int8_inputs: Annotated[bool, Field(description="whether all its inputs are quantized as INT8 kernels need them")]
    reasons: Annotated[tuple[str, ...], Field(description="why not")] = ()


class BuildOutcome(_Value):
    """What the ahead-of-time builder made for one compute capability."""

    compute_capability: Annotated[int, Field(description="80 for SM 8.0")]
    outcome: Outcome
    engine_bytes: int | None = None
    seconds: Annotated[float | None, Field(description="of the build alone; another one each time")] = None
    reason: Annotated[str, Field(description="why it was not accepted")] = ""
    warnings: Annotated[tuple[str, ...], Field(description="of the builder; they fail nothing")] = ()
    told_int8: Annotated[
        int | None,
        Field(description="weighted nodes that take INT8 as the builder lists its layers; null where it tells nothing"),
    ] = None
    told_float: Annotated[tuple[str, ...], Field(description="those that take float, as it lists them")] = ()


class Conformance(_Value):
    """What ``trtcalib check-builder`` tells."""

    schema_version: Literal[1] = 1
    model: Annotated[str, Field(description="the file as it was given")]
    tensorrt_rtx_version: Annotated[str | None, Field(description="null where the process ended before it said so")]
    parser: Outcome
    parser_faults: Annotated[tuple[str, ...], Field(description="why the parser did not accept it")] = ()
    parser_warnings: Annotated[tuple[str, ...], Field(description="each counts as a failure")] = ()
    nodes: tuple[NodeVerdict, ...] = ()
    builds: Annotated[
        tuple[BuildOutcome, ...], Field(description="none where the parser did not accept the model")
    ] = ()

    @property
    def accepted(self) -> bool:
        """Whether the parser and every build accepted the model, without a warning of the parser."""
        everywhere = bool(self.builds) and all(build.outcome == "accepted" for build in self.builds)
        return self.parser == "accepted" and not self.parser_warnings and everywhere

    @property
    def in_float(self) -> tuple[NodeVerdict, ...]:
        """The weighted operators that would run in float."""
        return tuple(node for node in self.nodes if not node.int8_inputs)

    @computed_field(description="accepted everywhere, without a warning of the parser, and no weighted node in float")  # type: ignore[prop-decorator]  # mypy 1361
    @property
    def passed(self) -> bool:
        """Whether all was accepted and nothing would run in float, by the rules and in the builder's own words."""
        return self.accepted and not self.in_float and not any(build.told_float for build in self.builds)

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return self.model_dump(mode="json")
