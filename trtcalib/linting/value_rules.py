"""Rules over scales of tensors that an operator ties together, or bounds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from trtcalib.core.agreement import MOST_ULP
from trtcalib.core.cache_scan import CacheScan
from trtcalib.core.scale import amax_from_scale, scale_from_bits, ulp_distance
from trtcalib.linting.implied import MOST_OF_RANGE
from trtcalib.linting.model_view import ModelView, small_constant
from trtcalib.linting.rules import LintFinding, finding
from trtcalib.linting.statement import Statement

__all__ = ["value_findings"]

RELU_FACTOR = 2.0
"""How far a Relu's output may lie above its input where a search chose the two: each has a histogram and a bin of its own, and ranges
double. Up to 1.08 was seen in caches of four real models (digits, YOLOv8n, PP-OCRv4 det and rec). Ours."""

MINMAX_SLACK = 1.01
"""The same under MinMax, where an output of Relu cannot lie above its input, nor one of Sigmoid above 1, but for the arithmetic of a
GPU. Ours."""

BOUND_FACTOR = 2 * MOST_OF_RANGE * MINMAX_SLACK
"""How far above an operator's bound an amax may lie: a histogram's range is less than twice the largest value once it has
doubled. Up to 1.11 was seen. MINMAX_SLACK for the arithmetic."""

RESIDUAL_FACTOR = 10.0
"""From which factor the two inputs of an Add are told of: one INT8 step of the larger is a tenth of the smaller's range. Up to 5 was
seen in caches of four real models. Ours."""

CONCAT_VERSIONS = range(8000, 8100)
"""Headers of TensorRT 8.0.x, which gives a Concat's inputs and output one scale; from 8.5.1 on each has its own."""

BOUNDED = ("Sigmoid", "HardSigmoid", "Softmax", "Tanh", "Erf", "Sin", "Cos", "Softsign")
"""Operators with magnitudes up to 1."""

_INFINITY = 0x7F800000
_ALL_NEAREST = {
    (b"half_pixel", b"round_prefer_floor"),
    (b"half_pixel", b"round_prefer_ceil"),
    (b"pytorch_half_pixel", b"round_prefer_floor"),
    (b"asymmetric", b"floor"),
}
"""Modes of Resize that repeat every value equally often where the scales are whole numbers."""


@dataclass(frozen=True, slots=True)
class _Entry:
    bits: int
    line: int

    @property
    def amax(self) -> float:
        return float(amax_from_scale(scale_from_bits(self.bits)))


def value_findings(scan: CacheScan, view: ModelView, stated: Statement) -> Iterator[LintFinding]:
    """Yield scales that do not fit those around them. Scales that are not finite, or negative, have rules of their own."""
    entries = {entry.name: _Entry(entry.bits, entry.line) for entry in scan.entries if entry.bits < _INFINITY}
    if not stated.raised:
        yield from _siblings(scan, view, entries)
    minmax = stated.method == "minmax"
    for node in view.nodes:
        if node.output[0] not in entries:
            continue
        if node.op_type == "Relu" and node.input[0] in entries:
            yield from _relu(node, entries, MINMAX_SLACK if minmax else RELU_FACTOR)
        bound = _bound(node, view)
        if bound is not None:
            yield from _bounded(node, entries, bound, MINMAX_SLACK if minmax else BOUND_FACTOR)
    yield from _residuals(view, entries)


def _siblings(scan: CacheScan, view: ModelView, entries: Mapping[str, _Entry]) -> Iterator[LintFinding]:
    for tensor in view.tensors.values():
        source = tensor.view_of or tensor.scale_of
        if source is None or (tensor.view_of is not None and _is_of_pool(source, view)):
            continue
        kind = "holds the same values as" if tensor.view_of is not None else "is the pool of"
        yield from _differ(tensor.name, source, kind, entries)
    for node in view.nodes:
        if node.op_type in ("Resize", "Upsample") and _repeats(node, view):
            yield from _differ(node.output[0], node.input[0], "repeats the values of", entries)
        if node.op_type == "Concat" and scan.version in CONCAT_VERSIONS:
            for source in node.input:
                yield from _differ(
                    node.output[0], source, "is a Concat, to which TensorRT 8.0 gives one scale, of", entries
                )


def _is_of_pool(name: str, view: ModelView) -> bool:
    """Whether a tensor is a pool's output, or a view of one: its view shows the range of the values again."""
    tensor = view.tensors.get(name)
    seen: set[str] = set()  # a name that stands twice in a broken model may lead back to itself
    while tensor is not None and tensor.view_of is not None and tensor.name not in seen:
        seen.add(tensor.name)
        tensor = view.tensors.get(tensor.view_of)
    return tensor is not None and tensor.scale_of is not None


def _differ(name: str, source: str, kind: str, entries: Mapping[str, _Entry]) -> Iterator[LintFinding]:
    ours, theirs = entries.get(name), entries.get(source)
    if ours is None or theirs is None or _distance(ours, theirs) <= MOST_ULP:
        return
    message = (
        f"tensor {name!r} {kind} {source!r} and has scale {ours.bits:x}, there {theirs.bits:x}: was one of them edited, or was the "
        "name given to another tensor?"
    )
    yield finding("TC046", message, line=ours.line, tensor=name)


def _distance(a: _Entry, b: _Entry) -> int:
    return ulp_distance(scale_from_bits(a.bits), scale_from_bits(b.bits))


def _repeats(node: onnx.NodeProto, view: ModelView) -> bool:
    """Whether a Resize repeats each value equally often: nearest neighbours at whole scales."""
    texts = {attribute.name: attribute.s for attribute in node.attribute}
    floats = {attribute.name: attribute.floats for attribute in node.attribute}
    if texts.get("mode", b"nearest") != b"nearest":
        return False
    old = len(node.input) < 3  # noqa: PLR2004 - Upsample and Resize of opset 10 take (x, scales), Resize (x, roi, scales, sizes)
    modes = (
        texts.get("coordinate_transformation_mode", b"asymmetric" if old else b"half_pixel"),
        texts.get("nearest_mode", b"floor" if old else b"round_prefer_floor"),
    )
    scales = floats["scales"] if "scales" in floats else small_constant(view, node, 1 if old else 2)
    if modes not in _ALL_NEAREST or scales is None or not len(scales):
        return False
    factors = np.asarray(scales, np.float32)
    return bool(np.all((factors >= 1) & (factors == np.floor(factors))))


def _relu(node: onnx.NodeProto, entries: Mapping[str, _Entry], factor: float) -> Iterator[LintFinding]:
    ours, before = entries[node.output[0]], entries[node.input[0]]
    if ours.amax > factor * before.amax and before.bits:
        message = (
            f"tensor {node.output[0]!r} is the Relu of {node.input[0]!r} and has amax {ours.amax:.6g}, {ours.amax / before.amax:.3g} times "
            f"its input's {before.amax:.6g}: a Relu makes nothing larger, so one of them is wrong"
        )
        yield finding("TC047", message, line=ours.line, tensor=node.output[0])


def _bound(node: onnx.NodeProto, view: ModelView) -> float | None:
    """Return the largest magnitude that a node's output can have."""
    if node.op_type in BOUNDED:
        return 1.0
    if node.op_type != "Clip":
        return None
    attributes = {a.name: a.f for a in node.attribute}
    lowest, highest = (
        attributes.get(name) if name in attributes else _single(small_constant(view, node, slot))
        for name, slot in (("min", 1), ("max", 2))
    )
    return None if lowest is None or highest is None else max(abs(lowest), abs(highest))


def _single(values: np.ndarray | None) -> float | None:
    return float(values[0]) if values is not None and values.size == 1 else None


def _bounded(node: onnx.NodeProto, entries: Mapping[str, _Entry], bound: float, factor: float) -> Iterator[LintFinding]:
    ours = entries[node.output[0]]
    if ours.amax > factor * bound:
        message = (
            f"tensor {node.output[0]!r} is the output of {node.op_type}, whose magnitudes end at {bound:g}, and has amax {ours.amax:.6g}: is "
            "it the scale of another tensor?"
        )
        yield finding("TC048", message, line=ours.line, tensor=node.output[0])


def _residuals(view: ModelView, entries: Mapping[str, _Entry]) -> Iterator[LintFinding]:
    for node in view.nodes:
        if node.op_type != "Add" or any(view.is_constant(name) or name not in entries for name in node.input):
            continue
        amax = {entries[name].amax: name for name in node.input}
        if min(amax) <= 0 or max(amax) <= RESIDUAL_FACTOR * min(amax):
            continue
        small, large = amax[min(amax)], amax[max(amax)]
        message = (
            f"the inputs of Add {node.output[0]!r} are {max(amax) / min(amax):.3g} apart: {large!r} has amax {max(amax):.6g}, {small!r} "
            f"{min(amax):.6g}, of which a common INT8 scale would keep little"
        )
        yield finding("TC050", message, line=entries[large].line, tensor=large)
