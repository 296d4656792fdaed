"""A float model made ready for Q/DQ nodes, and what is decided on it; deciding changes nothing, so it may be asked often."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx

from trtcalib.onnx_graph import ModelGraph
from trtcalib.onnx_types import inferred_types
from trtcalib.qdq.folding import fold_batch_norms
from trtcalib.qdq.lean import known_shapes
from trtcalib.qdq.placement import WEIGHTED, Decision, Rules, decide
from trtcalib.qdq.rearranged import fold_rearranged_weights
from trtcalib.qdq.residuals import decide_residuals
from trtcalib.qdq.scales import Scales
from trtcalib.qdq.tidy import dangling
from trtcalib.qdq.upgrade import FIRST_HALF_OPSET, FIRST_OPSET, rewritable
from trtcalib.qdq.wiring import Wiring

__all__ = ["PARTIAL_CHOICES", "TARGETS", "Partial", "Prepared", "QdqOptions", "Target", "prepare"]

Target = Literal["tensorrt", "tensorrt-rtx", "onnxruntime"]

TARGETS: tuple[Target, ...] = ("tensorrt", "tensorrt-rtx", "onnxruntime")

Partial = Literal["error", "skip", "fill"]

PARTIAL_CHOICES: tuple[Partial, ...] = ("error", "skip", "fill")

_NEVER: dict[Target, dict[str, str]] = {
    "tensorrt-rtx": {"ConvTranspose": "TensorRT-RTX runs every ConvTranspose in float (seen with 1.7.1)"},
}
"""Operators that a target does not run in INT8, so that Q/DQ nodes would cost accuracy and gain nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QdqOptions:
    """What to quantize, and how.

    Attributes:
        operators: Which of Conv, ConvTranspose, MatMul, Gemm.
        exclude: Nodes whose name or output one of these finds stay float.
        float_outputs: Nodes with one of these outputs stay float too.
        partial: What to do where a scale is missing or unusable: ``error``; ``skip`` the node; ``fill`` in what is certain, and
            refuse what is not.
        target: Who is to run the model.
        int8_weights: Store weights as int8 with a DequantizeLinear, instead of as float with both nodes.
        half: Run what is not quantized in float16.
    """

    operators: Sequence[str] = WEIGHTED
    exclude: Sequence[re.Pattern[str]] = ()
    float_outputs: frozenset[str] = frozenset()
    partial: Partial = "error"
    target: Target = "tensorrt"
    int8_weights: bool = False
    half: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A float model that is ready for Q/DQ nodes.

    Attributes:
        model: The model as it was read.
        proto: The copy: at an opset that has the nodes, batch normalizations folded into the convolutions before them.
        wiring: Of the copy.
        shapes: Where they are known, free axes as 1.
        types: Element type per tensor, as far as it is known.
        folded: Outputs of the batch normalizations that were folded.
        unused: Constants that nothing took in the model, either.
    """

    model: ModelGraph
    proto: onnx.ModelProto
    wiring: Wiring
    shapes: Mapping[str, tuple[int, ...]]
    types: Mapping[str, int]
    folded: list[str]
    unused: frozenset[str]

    def decide(self, scales: Mapping[str, np.float32], options: QdqOptions) -> tuple[list[Decision], list[Decision]]:
        """Return what becomes of the weighted nodes, and of the skip Adds behind them.

        Args:
            scales: amax / 127 per tensor, as in the cache.
            options: What to quantize.
        """
        rules = Rules(
            operators=options.operators,
            exclude=options.exclude,
            float_outputs=options.float_outputs,
            not_float32=frozenset(name for name, kind in self.types.items() if kind != onnx.TensorProto.FLOAT),
            never=_NEVER.get(options.target, {}),
        )
        known = Scales(self.wiring, scales, fill=options.partial == "fill")
        weighted = list(decide(self.wiring, known, rules))
        return weighted, list(decide_residuals(self.wiring, known, weighted, self.shapes, rules))


def prepare(model: ModelGraph, *, half: bool = False) -> Prepared:
    """Make a float model ready.

    Args:
        model: A float model.
        half: For what is not quantized to run in float16, which needs a later opset.

    Raises:
        ModelError: If the model is quantized already, or cannot be brought to the opset that is needed.
    """
    proto = rewritable(model, FIRST_HALF_OPSET if half else FIRST_OPSET)
    unused = dangling(proto)
    fold_rearranged_weights(model, proto)
    folded = fold_batch_norms(model, proto)
    return Prepared(
        model=model,
        proto=proto,
        wiring=Wiring(model, proto),
        shapes=known_shapes(proto),
        types=inferred_types(proto),
        folded=folded,
        unused=unused,
    )
