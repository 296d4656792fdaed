"""What a Q/DQ model covers: per weighted node whether it is quantized and why not, and its share of the multiplications."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated

import onnx
from pydantic import BaseModel, ConfigDict, Field

from trtcalib.onnx_tensors import subgraphs
from trtcalib.qdq.placement import WEIGHTED, Decision
from trtcalib.qdq.wiring import Wiring, attribute, is_standard

__all__ = ["Coverage", "FilledScale", "MissingScale", "NodeFacts", "macs_share", "node_facts", "nodes_out_of_reach"]


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", json_schema_serialization_defaults_required=True)


class NodeFacts(_Facts):
    """One weighted node, or a skip Add."""

    name: str
    operator: str
    output: Annotated[str, Field(description="its first output's name")]
    quantized: bool
    reason: Annotated[str | None, Field(description="why it stays float")]
    macs: Annotated[
        int | None,
        Field(
            description="multiply-accumulates of one sample, free axes taken as 1; null where the shapes are unknown"
        ),
    ]


class MissingScale(_Facts):
    """A tensor that would be quantized if it had a usable scale."""

    tensor: str
    reason: str


class FilledScale(_Facts):
    """A scale that the cache does not have and that was derived."""

    tensor: str
    scale: float
    rule: str


class Coverage(_Facts):
    """What a conversion quantized, and what became of the cache's names."""

    weighted: Annotated[int, Field(description="Conv, ConvTranspose, MatMul and Gemm nodes")]
    quantized: Annotated[int, Field(description="how many of them are quantized")]
    macs_share: Annotated[
        float | None, Field(description="their share of the multiply-accumulates that are known; null where none are")
    ]
    residuals: Annotated[int, Field(description="skip Adds with a quantized residual")]
    nodes: Annotated[list[NodeFacts], Field(description="weighted nodes, then skip Adds, in graph order")]
    matched: Annotated[list[str], Field(description="names of the cache whose scale is in the Q/DQ model")]
    unused: Annotated[list[str], Field(description="names of the cache that the model has and that were not needed")]
    stale: Annotated[list[str], Field(description="names of the cache that the model does not have")]
    missing: Annotated[list[MissingScale], Field(description="tensors that would need a scale and have none")]
    filled: Annotated[list[FilledScale], Field(description="scales that were derived")]
    floored: Annotated[
        list[str], Field(description="tensors whose scale was raised to the smallest that TensorRT takes")
    ]
    folded: Annotated[
        list[str], Field(description="outputs of BatchNormalizations that were folded into the convolution before")
    ]
    float16_nodes: Annotated[int | None, Field(description="nodes that run in float16; null without --fp16")] = None

    @property
    def share(self) -> float:
        """The share of weighted nodes that are quantized, 0 where there are none."""
        return self.quantized / self.weighted if self.weighted else 0.0


def node_facts(wiring: Wiring, decisions: Sequence[Decision], shapes: Mapping[str, tuple[int, ...]]) -> list[NodeFacts]:
    """Return what became of each node; to be called before nodes are inserted.

    Args:
        wiring: Of the graph.
        decisions: All of them.
        shapes: Where they are known, free axes as 1.
    """
    return [
        NodeFacts(
            name=decision.node.name,
            operator=decision.node.op_type,
            output=decision.node.output[0] if decision.node.output else "",
            quantized=decision.quantized,
            reason=decision.why_not,
            macs=_macs(wiring, decision.node, shapes) if decision.node.op_type in WEIGHTED else None,
        )
        for decision in decisions
    ]


def nodes_out_of_reach(proto: onnx.ModelProto) -> Iterator[NodeFacts]:
    """Yield the weighted nodes in the bodies of control flow and of functions, which stay float."""
    places = [("inside a body of If, Loop or Scan", graph.node) for graph in subgraphs(proto.graph)]
    places += [(f"inside the function {function.name!r}", function.node) for function in proto.functions]
    for place, nodes in places:
        for node in nodes:
            if is_standard(node) and node.op_type in WEIGHTED:
                yield NodeFacts(
                    name=node.name,
                    operator=node.op_type,
                    output=node.output[0] if node.output else "",
                    quantized=False,
                    reason=f"{place}, of whose tensors a cache holds no scales",
                    macs=None,
                )


def macs_share(facts: Sequence[NodeFacts]) -> float | None:
    """Return the quantized share of the multiply-accumulates that are known; ``None`` where none are."""
    total = sum(fact.macs or 0 for fact in facts)
    return sum(fact.macs or 0 for fact in facts if fact.quantized) / total if total else None


def _macs(wiring: Wiring, node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    names = [*node.input[:2], *node.output[:1]]
    known = [tuple(wiring.constants[n].dims) if n in wiring.constants else shapes.get(n) for n in names]
    if len(known) < 3 or not all(known):  # noqa: PLR2004 - two inputs, an output
        return None
    first, second, output = (shape for shape in known if shape is not None)
    if node.op_type == "Conv":
        return math.prod(output) * math.prod(second[1:])
    if node.op_type == "ConvTranspose":
        return math.prod(first) * math.prod(second[1:])
    inner = first[0] if node.op_type == "Gemm" and attribute(node, "transA", 0) else first[-1]
    return math.prod(output) * inner
