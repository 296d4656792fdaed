"""Where Q/DQ nodes belong: which inputs of which nodes, with which scale, and why others stay float.

Rules, after TensorRT's documentation of explicit quantization: all inputs of Conv, ConvTranspose, MatMul and Gemm are quantized and their
outputs are not; activations have one scale each, weights one per output channel; biases stay float. Residuals stand in
:mod:`trtcalib.qdq.residuals`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from trtcalib.qdq.scales import Scales, flaw
from trtcalib.qdq.weights import floored
from trtcalib.qdq.wiring import Wiring, attribute, is_standard
from trtcalib.spec_files import brief

__all__ = ["WEIGHTED", "Decision", "Rules", "Slot", "Weight", "add_activation", "decide"]

WEIGHTED = ("Conv", "ConvTranspose", "MatMul", "Gemm")
"""The operators that TensorRT runs in INT8 when all their inputs come from DequantizeLinear."""

_MATRIX = 2
"""Axes of a matrix, and operands of a product."""


@dataclass(frozen=True, slots=True)
class Weight:
    """A constant input that gets INT8 weights.

    Attributes:
        slot: Which input.
        name: The constant.
        axis: Of the output channels; ``None``: one scale for all.
    """

    slot: int
    name: str
    axis: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """An activation input that gets Q/DQ nodes.

    Attributes:
        slot: Which input.
        name: The tensor.
        scale: float32, usable.
        source: The tensor of the cache that the scale is of.
        floored: Whether the cache's scale was raised to the smallest that TensorRT takes.
        rule: How the scale was derived; ``None`` where it is the cache's.
    """

    slot: int
    name: str
    scale: np.float32
    source: str
    floored: bool = False
    rule: str | None = None


@dataclass(slots=True)
class Decision:
    """What becomes of one node.

    Attributes:
        node: The node.
        activations: Inputs with a scale of the cache.
        weights: Constant inputs.
        reason: Why it stays float whatever the cache holds; ``None`` where it may be quantized.
        missing: Why, by tensor, an input has no usable scale.
    """

    node: onnx.NodeProto
    activations: list[Slot] = field(default_factory=list)
    weights: list[Weight] = field(default_factory=list)
    reason: str | None = None
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def quantized(self) -> bool:
        """Whether the node gets Q/DQ nodes."""
        return self.why_not is None

    @property
    def why_not(self) -> str | None:
        """Why the node stays float; ``None`` where it is quantized."""
        return self.reason or next((f"{brief(name)}: {why}" for name, why in self.missing.items()), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What may be quantized.

    Attributes:
        operators: Which of :data:`WEIGHTED`.
        exclude: Nodes stay float whose name, or whose output, one of these finds.
        float_outputs: Nodes stay float that have one of these outputs.
        not_float32: Tensors that are known to be no float32, which Q/DQ nodes of this opset cannot take.
        never: Operators that the target does not run in INT8, with what to say.
    """

    operators: Sequence[str] = WEIGHTED
    exclude: Sequence[re.Pattern[str]] = ()
    float_outputs: frozenset[str] = frozenset()
    not_float32: frozenset[str] = frozenset()
    never: Mapping[str, str] = field(default_factory=dict)

    def excluded(self, node: onnx.NodeProto) -> bool:
        """Whether the user named this node."""
        return not self.float_outputs.isdisjoint(node.output) or any(
            pattern.search(name) for pattern in self.exclude for name in (node.name, *node.output) if name
        )


def decide(wiring: Wiring, scales: Scales, rules: Rules) -> Iterator[Decision]:
    """Yield a decision per weighted node, in graph order."""
    for node in wiring.graph.node:
        if is_standard(node) and node.op_type in WEIGHTED:
            decision = _weighted(wiring, scales, node)
            decision.reason = _ruled_out(decision, rules) or decision.reason
            yield decision


def _ruled_out(decision: Decision, rules: Rules) -> str | None:
    operator = decision.node.op_type
    if operator not in rules.operators:
        return f"{operator} is not among --ops"
    if operator in rules.never:
        return rules.never[operator]
    if rules.excluded(decision.node):
        return "excluded by --exclude"
    wrong = next((name for name in decision.node.input[:2] if name in rules.not_float32), None)
    return None if wrong is None else f"{brief(wrong)} is not float32: convert the float32 model"


def _weighted(wiring: Wiring, scales: Scales, node: onnx.NodeProto) -> Decision:
    decision = Decision(node)
    names = list(node.input[:_MATRIX])
    if len(names) < _MATRIX or not all(names):
        decision.reason = "it lacks an input"
        return decision
    for slot, name in enumerate(names):
        values = wiring.values(name)
        if values is None:
            add_activation(decision, scales, slot, name)
        elif values.ndim == 0 or values.size == 0:
            decision.reason = (
                f"its constant input {brief(name)} is a single number or empty, which TensorRT does not take quantized"
            )
        elif not np.isfinite(values).all():
            decision.reason = f"its weights {brief(name)} hold NaN or infinities"
        else:
            decision.weights.append(Weight(slot, name, _channel_axis(node, slot, values.ndim)))
    constant = [weight.slot for weight in decision.weights]
    if len(constant) == _MATRIX:
        decision.reason = "both inputs are constants: it is computed once, when the engine is built"
    elif node.op_type.startswith("Conv") and decision.reason is None and constant != [1]:
        decision.reason = f"its weights {brief(names[1])} are no constant"
    return decision


def _channel_axis(node: onnx.NodeProto, slot: int, ndim: int) -> int | None:
    """Return the axis of a constant input that counts output channels; ``None``: one scale for all."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        # With groups, axis 1 counts the channels of one group alone.
        return 1 if attribute(node, "group", 1) == 1 else None
    if node.op_type == "Gemm":
        transposed = attribute(node, "transB" if slot else "transA", 0)
        return int(bool(transposed) != bool(slot))
    # ONNX Runtime (1.31.1) fails at run time on a stack of matrices with a scale per column; vectors have no columns.
    return slot if ndim == _MATRIX else None


def add_activation(decision: Decision, scales: Scales, slot: int, name: str) -> None:
    """Add an input with its scale to a decision, or why it has none."""
    found = scales.find(name)
    if found is None:
        decision.missing[name] = "the cache has no scale for it"
    elif (wrong := flaw(found.scale)) is not None:
        decision.missing[name] = f"the cache's scale for {brief(found.source)} is {wrong}"
    else:
        usable = floored(found.scale)
        decision.activations.append(
            Slot(
                slot=slot,
                name=name,
                scale=usable,
                source=found.source,
                floored=bool(usable != found.scale),
                rule=found.rule,
            )
        )
