"""The story: model + scales -> a model with Q/DQ nodes, and the report of what was quantized and what was not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from trtcalib.errors import CacheMismatchError
from trtcalib.onnx_graph import ModelGraph
from trtcalib.qdq.coverage import (
    Coverage,
    FilledScale,
    MissingScale,
    macs_share,
    node_facts,
    nodes_out_of_reach,
)
from trtcalib.qdq.half import to_half
from trtcalib.qdq.insertion import insert
from trtcalib.qdq.placement import Decision
from trtcalib.qdq.prepared import QdqOptions, prepare
from trtcalib.qdq.tidy import tidy
from trtcalib.spec_files import brief

__all__ = ["Quantized", "convert"]

_SHOWN = 20
"""Tensors without a scale that an error names; the others are counted."""


@dataclass(frozen=True, slots=True)
class Quantized:
    """A model with Q/DQ nodes.

    Attributes:
        proto: The model; external data is where it was.
        coverage: What is quantized and what is not.
    """

    proto: onnx.ModelProto
    coverage: Coverage


def convert(model: ModelGraph, scales: Mapping[str, np.float32], options: QdqOptions) -> Quantized:
    """Insert Q/DQ nodes with a cache's scales where TensorRT wants them.

    The result may have nothing quantized: whoever calls this looks at the coverage.

    Args:
        model: A float model.
        scales: amax / 127 per tensor, as in the cache.
        options: What to quantize.

    Raises:
        ModelError: If the model is quantized already, or cannot be brought to the opset that is needed.
        CacheMismatchError: If tensors have no usable scale, and the options do not say to go on.
    """
    ready = prepare(model, half=options.half)
    proto, wiring = ready.proto, ready.wiring
    weighted, residuals = ready.decide(scales, options)
    decisions = [*weighted, *residuals]
    names = _names(model.proto) | _names(proto)
    missing = _missing(decisions)
    if missing and options.partial != "skip":
        raise CacheMismatchError(None, _without_scales(model, missing, scales, names))
    facts = [*node_facts(wiring, weighted, ready.shapes), *nodes_out_of_reach(proto)]
    skips = node_facts(wiring, residuals, ready.shapes)
    insert(wiring, decisions, int8_weights=options.int8_weights)
    tidy(proto, ready.unused)
    coverage = Coverage(
        weighted=len(facts),
        quantized=sum(fact.quantized for fact in facts),
        macs_share=macs_share(facts),
        residuals=sum(fact.quantized for fact in skips),
        nodes=[*facts, *skips],
        missing=[MissingScale(tensor=tensor, reason=reason) for tensor, reason in missing.items()],
        folded=ready.folded,
        float16_nodes=_halved(model, proto, scales, options),
        **_fate_of_names(decisions, scales, names),
    )
    return Quantized(proto, coverage)


def _halved(
    model: ModelGraph, proto: onnx.ModelProto, scales: Mapping[str, np.float32], options: QdqOptions
) -> int | None:
    if not options.half:
        return None
    return to_half(model, proto, scales, quantize_float32=options.target == "onnxruntime")


def _fate_of_names(
    decisions: Sequence[Decision], scales: Mapping[str, np.float32], names: set[str]
) -> dict[str, list[Any]]:
    """Return what became of the cache's names, and which scales are not the cache's."""
    slots = [slot for decision in decisions if decision.quantized for slot in decision.activations]
    used = {slot.source for slot in slots if slot.rule is None}
    filled = {s.name: FilledScale(tensor=s.name, scale=float(s.scale), rule=s.rule) for s in slots if s.rule}
    return {
        "matched": [name for name in scales if name in used],
        "unused": [name for name in scales if name in names and name not in used],
        # Bytes that are not UTF-8 stand in a cache's names as surrogates, which JSON cannot hold.
        "stale": [name.encode("utf-8", "backslashreplace").decode() for name in scales if name not in names],
        "filled": list(filled.values()),
        "floored": sorted({slot.name for slot in slots if slot.floored}),
    }


def _missing(decisions: Sequence[Decision]) -> dict[str, str]:
    """Return why, by tensor, a scale is missing that alone keeps a node float."""
    return {name: why for d in decisions if d.reason is None for name, why in d.missing.items()}


def _names(proto: onnx.ModelProto) -> set[str]:
    graph = proto.graph
    made = {name for node in graph.node for name in node.output}
    return made | {info.name for info in graph.input} | {tensor.name for tensor in graph.initializer}


def _without_scales(
    model: ModelGraph, missing: Mapping[str, str], scales: Mapping[str, np.float32], names: set[str]
) -> str:
    listed = "; ".join(f"{brief(name)}: {why}" for name, why in list(missing.items())[:_SHOWN])
    rest = f"; and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
    matched = sum(name in names for name in scales)
    return (
        f"{len(missing)} tensors of {model.path} that would be quantized have no usable scale ({matched} of the cache's {len(scales)} names "
        f"are tensors of this model): {listed}{rest}. --partial skip leaves their nodes float, --partial fill derives what is certain, "
        "--names maps names that TensorRT's parser made"
    )
