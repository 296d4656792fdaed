"""The scale of each tensor: the cache's own, or, where the cache has none, one that follows from the graph for certain."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from trtcalib.core.scale import scale_from_amax
from trtcalib.onnx_graph import POOLS, VIEWS
from trtcalib.qdq.wiring import Wiring, attribute, is_standard

__all__ = ["KnownScale", "Scales", "flaw"]

_AT_MOST_ONE = frozenset({"Sigmoid", "Softmax", "HardSigmoid", "Tanh", "Sin", "Cos", "Erf", "Softsign"})
"""Operators whose results are at most 1 in magnitude, whatever they get."""

_NO_LARGER = frozenset(
    {
        "Abs",
        "DepthToSpace",
        "Dropout",
        "Expand",
        "Gather",
        "GatherElements",
        "GatherND",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "Neg",
        "Pad",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "Relu",
        "Resize",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Tile",
        "Trilu",
    }
)
"""Operators whose results are no larger in magnitude than what they get first; Pad and Resize only in the modes that
:func:`_keeps_size` lets pass."""

_LARGEST_OF_INPUTS = frozenset({"Concat", "Max", "Min"})
"""Operators whose results are no larger in magnitude than the largest of their inputs."""


@dataclass(frozen=True, slots=True)
class KnownScale:
    """A tensor's scale.

    Attributes:
        source: The tensor whose line in the cache it is, or that it was derived for.
        scale: float32, as in the cache.
        rule: How it was derived; ``None`` where it is the cache's.
    """

    source: str
    scale: np.float32
    rule: str | None = None


class Scales:
    """The cache's scales, and those of tensors that hold the same values as one that has a scale.

    A Reshape, Transpose or the like has its source's scale, and so has its source the view's: they are the same values. A pool's output
    has its input's, as in TensorRT's caches. With ``fill``, bounds that hold for any data serve where there is nothing else.
    """

    def __init__(self, wiring: Wiring, scales: Mapping[str, np.float32], *, fill: bool = False) -> None:
        self._wiring = wiring
        self._scales = scales
        self._derived: dict[str, KnownScale] = {}
        if fill:
            # In graph order, so that each derivation finds what it rests on.
            made = [name for node in wiring.graph.node for name in node.output if name]
            for name in (*(info.name for info in wiring.graph.input), *made):
                if self._listed(name) is None and (derived := self._derive(name)) is not None:
                    self._derived[name] = derived

    def find(self, name: str) -> KnownScale | None:
        """Return a tensor's scale; ``None`` where there is none. It may be unusable: see :func:`flaw`."""
        unusable = (KnownScale(same, self._scales[same]) for same in self._same_values(name) if same in self._scales)
        return self._listed(name) or self._derived.get(name) or next(unusable, None)

    def _listed(self, name: str) -> KnownScale | None:
        """Return the usable scale that the cache has for a tensor or for the same values."""
        for same in self._same_values(name):
            if same in self._scales and flaw(self._scales[same]) is None:
                return KnownScale(same, self._scales[same])
        return None

    def _same_values(self, name: str) -> Iterator[str]:
        """Yield the tensor, then its sources through views and pools, then the views of all of these, nearest first."""
        chain, seen = [name], {name}
        while (source := self._source(chain[-1])) is not None and source not in seen:
            chain.append(source)
            seen.add(source)
        yield from chain
        # Not the views of what a pool takes: they show that tensor's own range again.
        pending = deque(chain[: self._steps_to_a_pool(chain) + 1])
        while pending:
            for node, slot in self._wiring.consumers.get(pending.popleft(), ()):
                if slot == 0 and node.op_type in VIEWS and is_standard(node) and node.output[0] not in seen:
                    seen.add(node.output[0])
                    pending.append(node.output[0])
                    yield node.output[0]

    def _source(self, name: str) -> str | None:
        producer = self._wiring.producers.get(name)
        if producer is None or producer.op_type not in VIEWS | POOLS or not is_standard(producer) or not producer.input:
            return None
        return producer.input[0] if producer.output[0] == name else None

    def _steps_to_a_pool(self, chain: list[str]) -> int:
        for step, name in enumerate(chain[:-1]):
            if self._wiring.producers[name].op_type in POOLS:
                return step
        return len(chain) - 1

    def _derive(self, name: str) -> KnownScale | None:
        if (pooled := self._pooled(name)) is not None:
            return pooled
        node = self._wiring.producers.get(name)
        if node is None or not is_standard(node) or not node.input:
            return None
        if node.op_type in _AT_MOST_ONE:
            return KnownScale(name, scale_from_amax(1), f"{node.op_type}: at most 1 in magnitude")
        if node.op_type == "Clip":
            return self._clipped(name, node)
        if node.op_type in VIEWS or (node.op_type in _NO_LARGER and _keeps_size(self._wiring, node)):
            return self._largest(name, node, [node.input[0]])
        if node.op_type in _LARGEST_OF_INPUTS:
            return self._largest(name, node, [each for each in node.input if each])
        return None

    def _pooled(self, name: str) -> KnownScale | None:
        """Return the scale of a pool's output, which in TensorRT's caches is its input's, for that input."""
        for node, slot in self._wiring.consumers.get(name, ()):
            if slot == 0 and node.op_type in POOLS and is_standard(node) and node.output[0] in self._scales:
                scale = self._scales[node.output[0]]
                if flaw(scale) is None:
                    return KnownScale(
                        name, scale, f"{node.op_type}: its output {node.output[0]!r} carries its input's scale"
                    )
        return None

    def _largest(self, name: str, node: onnx.NodeProto, inputs: list[str]) -> KnownScale | None:
        known = [self._input(each) for each in inputs]
        if None in known:
            return None
        what = f"its input {inputs[0]!r}" if len(inputs) == 1 else "the largest of its inputs"
        return KnownScale(
            name, max(scale for scale in known if scale is not None), f"{node.op_type}: no larger than {what}"
        )

    def _input(self, name: str) -> np.float32 | None:
        values = self._wiring.values(name)
        if values is not None:
            return scale_from_amax(np.abs(values).max(initial=0))
        found = self._listed(name) or self._derived.get(name)
        return None if found is None else found.scale

    def _clipped(self, name: str, node: onnx.NodeProto) -> KnownScale | None:
        given = [self._wiring.values(each) for each in (*node.input[1:3],)]
        bounds = [float(np.abs(values).max(initial=0)) for values in given if values is not None]
        if len(bounds) == 2 and np.isfinite(bounds).all():  # noqa: PLR2004 - a lower and an upper one
            return KnownScale(name, scale_from_amax(max(bounds)), "Clip: no larger than its bounds")
        if len(node.input) > 1 and len(bounds) < len([each for each in node.input[1:3] if each]):
            return None
        before = self._input(node.input[0])
        if before is None:
            return None
        scales = [before, *(scale_from_amax(bound) for bound in bounds if np.isfinite(bound))]
        return KnownScale(name, max(scales), f"Clip: no larger than its input {node.input[0]!r} and its bound")


def flaw(scale: np.float32) -> str | None:
    """Return why a scale cannot be used; ``None`` where it can be, if need be after it was raised to the floor."""
    if np.isnan(scale):
        return "NaN"
    if np.isinf(scale):
        return "infinite"
    return "negative" if scale < 0 else None


def _keeps_size(wiring: Wiring, node: onnx.NodeProto) -> bool:
    """Whether a Pad adds nothing larger than what it gets, and a Resize does not overshoot."""
    if node.op_type == "Resize":
        mode = attribute(node, "mode", b"nearest")
        edges = attribute(node, "coordinate_transformation_mode", b"half_pixel")
        return mode in (b"nearest", b"linear") and edges != b"tf_crop_and_resize"
    if node.op_type == "Pad" and attribute(node, "mode", b"constant") == b"constant":
        value = wiring.values(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(1)  # noqa: PLR2004
        return value is not None and not np.any(value)
    return True
