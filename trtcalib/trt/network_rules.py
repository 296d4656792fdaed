"""Rules on the network that a parser made of a Q/DQ model: which weighted layers get INT8 inputs, and why others do not.

Only the documented API is read: layers, their inputs, and the values of constants. That a layer which breaks a rule takes float was seen with
TensorRT-RTX 1.7.1 for each rule, in the builder's own list of the engine's layers (tests/rtx).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trtcalib.trt.conformance_values import LayerFacts

__all__ = ["COMPUTED", "judge_network"]

COMPUTED = "is computed while the engine runs"
"""In the reason for a scale that is no constant: such a model crashes TensorRT-RTX 1.7.1."""

_CONVOLUTIONS = ("CONVOLUTION", "DECONVOLUTION")

_WEIGHTED = (*_CONVOLUTIONS, "MATRIX_MULTIPLY", "EINSUM")

_PASSED = frozenset({"IDENTITY", "CAST", "SHUFFLE", "SQUEEZE", "UNSQUEEZE", "SLICE", "GATHER", "CONCATENATION"})
"""Layers, besides maximum pools, between a DequantizeLinear and a convolution that TensorRT-RTX 1.7.1 moves across the
DequantizeLinear, so that the convolution takes INT8. Behind an average pool, a Resize and an activation it took float."""

_MOST_STEPS = 1000
"""Layers that are walked through from one input; real graphs have a handful."""

_LABEL = "[ONNX Layer: "
"""What the parser's documented metadata of a layer begins with."""


def judge_network(trt: Any, network: Any) -> list[LayerFacts]:
    """Return the weighted layers of a network in its order, each with the reasons why it would run in float.

    Args:
        trt: The bindings that the network is of.
        network: As the parser made it.
    """
    rules = _Rules(trt, network)
    return [rules.judged(layer) for layer in rules.layers if layer.type.name in _WEIGHTED]


@dataclass(frozen=True, slots=True)
class _Source:
    """Where an input comes from: a DequantizeLinear, and which of its axes is the one that was asked for; or a fault."""

    dequantize: Any = None
    axis: int | None = None
    fault: str = ""


class _Rules:
    def __init__(self, trt: Any, network: Any) -> None:
        self._trt = trt
        self.layers = [network.get_layer(i) for i in range(network.num_layers)]
        self._made = {
            tensor.name: layer
            for layer in self.layers
            for i in range(layer.num_outputs)
            if (tensor := layer.get_output(i)) is not None
        }

    def judged(self, layer: Any) -> LayerFacts:
        kind = layer.type.name
        reasons = list(dict.fromkeys(self._reasons(layer, kind)))
        text = str(layer.metadata)
        node = text[len(_LABEL) : -1] if text.startswith(_LABEL) else ""
        return LayerFacts(layer=str(layer.name), kind=kind, node=node, reasons=tuple(reasons))

    def _reasons(self, layer: Any, kind: str) -> Iterator[str]:
        if kind == "DECONVOLUTION":
            yield "TensorRT-RTX runs every ConvTranspose in float (seen with 1.7.1)"
        axes = self._output_axes(layer, kind)
        is_convolution = kind in _CONVOLUTIONS
        if is_convolution and (layer.num_inputs < len(axes) or layer.get_input(1) is None):
            yield "its weights are float constants: no DequantizeLinear before them"
        for slot, axis in enumerate(axes):
            tensor = layer.get_input(slot) if slot < layer.num_inputs else None
            if tensor is not None:
                yield from self._input_reasons(tensor, axis, is_kernel=slot == 1 and is_convolution)

    def _output_axes(self, layer: Any, kind: str) -> list[tuple[int, ...] | None]:
        """Return for each input which of its axes count output channels; ``None`` where none of them matters."""
        if kind == "CONVOLUTION":
            return [(), (0,)]
        if kind == "DECONVOLUTION":
            return [(), None]
        if kind == "EINSUM":
            layer.__class__ = self._trt.IEinsumLayer
            labels, _, kept = str(layer.equation).replace(" ", "").partition("->")
            axes = [tuple(i for i, label in enumerate(term) if label in kept) for term in labels.split(",")]
            return [places if len(places) == 1 else None for places in axes]  # of several, each counts channels
        layer.__class__ = self._trt.IMatrixMultiplyLayer
        transposed = self._trt.MatrixOperation.TRANSPOSE
        ranks = [len(_shape(layer.get_input(i))) for i in range(2)]
        left = ranks[0] - (1 if layer.op0 == transposed else 2)
        right = ranks[1] - (2 if layer.op1 == transposed else 1)
        return [(axis,) if rank > 1 else () for axis, rank in zip((left, right), ranks, strict=True)]

    def _input_reasons(self, tensor: Any, axes: tuple[int, ...] | None, *, is_kernel: bool) -> Iterator[str]:
        role = "weights" if is_kernel else "input"
        for source in self._sources(tensor, axes):
            if source.fault:
                yield f"its {role} {self._name(tensor)!r}: {source.fault}"
                continue
            stored = source.dequantize.get_input(0)
            constant = self._is_constant(stored)
            role = "weights" if constant or is_kernel else "input"
            if stored.dtype.name != "INT8":
                yield f"its {role} {self._name(stored)!r}: {stored.dtype.name}, not INT8"
            yield from self._scale_reasons(source, axes, role, constant=constant)

    def _scale_reasons(
        self, source: _Source, axes: tuple[int, ...] | None, role: str, *, constant: bool
    ) -> Iterator[str]:
        scale = source.dequantize.get_input(1)
        shape = _shape(scale)
        name = f"the scale {self._name(scale)!r} of its {role}"
        if not self._is_constant(scale):
            yield f"{name} {COMPUTED}"
        values = self._values(scale)
        if values is not None and np.isinf(values).any():
            yield f"{name} is infinite"
        if not constant:
            if shape != ():
                yield f"{name} has shape {list(shape)}, expected a single number of shape [] (per tensor)"
        elif math.prod(shape) > 1 and axes is not None:
            source.dequantize.__class__ = self._trt.IDequantizeLayer
            found = source.dequantize.axis
            if source.axis is None or found != source.axis:
                expected = f"axis {source.axis}" if source.axis is not None else "one scale for all"
                yield f"{name} goes along axis {found}, expected {expected}, the output channels"

    def _sources(self, tensor: Any, axes: tuple[int, ...] | None) -> Iterator[_Source]:
        """Yield the DequantizeLinears that a tensor comes from, through layers that TensorRT moves across them."""
        axis = axes[0] if axes else None
        pending, seen, found = [(tensor, axis)], set[tuple[str, int | None]](), list[_Source]()
        while pending and len(seen) < _MOST_STEPS:
            tensor, axis = pending.pop()
            if (tensor.name, axis) in seen:
                continue
            seen.add((tensor.name, axis))
            layer = self._made.get(tensor.name)
            if layer is not None and layer.type.name == "DEQUANTIZE":
                found.append(_Source(layer, axis))
            elif layer is None or not self._is_passed(layer):
                found.append(_Source(fault=self._origin(layer)))
            else:
                back = self._axis_before(layer, axis)
                last = layer.num_inputs if layer.type.name == "CONCATENATION" else 1
                pending += [(layer.get_input(i), back) for i in reversed(range(last))]
        yield from found
        if pending:
            yield _Source(fault=f"behind more than {_MOST_STEPS} layers, which are not followed")
        yield from self._unequal(found)

    def _unequal(self, found: Sequence[_Source]) -> Iterator[_Source]:
        """Yield a fault where tensors with different scales are joined."""
        scales = [self._values(source.dequantize.get_input(1)) for source in found if not source.fault]
        if any(one is None or scales[0] is None or not np.array_equal(one, scales[0]) for one in scales[1:]):
            yield _Source(fault="joined of tensors with different scales")

    def _is_passed(self, layer: Any) -> bool:
        kind = layer.type.name
        if kind == "POOLING":
            layer.__class__ = self._trt.IPoolingLayer
            # Of the class, `type` is the kind of pool: the layer's own is only of ILayer.
            pooling = layer.type
            layer.__class__ = self._trt.ILayer
            return bool(pooling == self._trt.PoolingType.MAX)
        return kind in _PASSED

    def _origin(self, layer: Any) -> str:
        if layer is None:
            return "a float input of the network, no DequantizeLinear before it"
        kind, name = layer.type.name, str(layer.name)
        if kind == "CONSTANT":
            return "a float constant, no DequantizeLinear before it"
        if kind == "QUANTIZE":
            return f"from the QuantizeLinear {name!r} without a DequantizeLinear"
        return f"from {kind} {name!r}, not from a DequantizeLinear"

    def _axis_before(self, layer: Any, axis: int | None) -> int | None:
        """Return where an axis of a layer's output lies in its input; ``None`` where it is split, merged or new."""
        kind = layer.type.name
        if axis is None or kind not in ("SHUFFLE", "SQUEEZE", "UNSQUEEZE"):
            return axis
        before, after = _shape(layer.get_input(0)), _shape(layer.get_output(0))
        first, second = list(range(len(before))), list(range(len(after)))
        if kind == "SHUFFLE":
            layer.__class__ = self._trt.IShuffleLayer
            first = list(layer.first_transpose)[: len(before)]
            second = list(layer.second_transpose)[: len(after)]
        if (
            not axis < len(after)
            or sorted(first) != list(range(len(before)))
            or sorted(second) != list(range(len(after)))
        ):
            return None
        unturned = [0] * len(after)
        for place, came_from in enumerate(second):
            unturned[came_from] = after[place]
        turned = [before[i] for i in first]
        found = _reshaped_axis(unturned, second[axis], turned)
        return None if found is None else first[found]

    def _is_constant(self, tensor: Any) -> bool:
        """Whether a tensor is computed from constants alone, so that the builder knows it."""
        pending, seen = [tensor], set[str]()
        while pending and len(seen) < _MOST_STEPS:
            tensor = pending.pop()
            if tensor is None or tensor.name in seen:
                continue
            seen.add(tensor.name)
            layer = self._made.get(tensor.name)
            if layer is None:
                return False
            if layer.type.name != "CONSTANT":
                pending += [layer.get_input(i) for i in range(layer.num_inputs)]
        return not pending

    def _name(self, tensor: Any) -> str:
        """Return the model's name of a tensor; the parser gives a constant's to the layer and another one to its output."""
        layer = self._made.get(tensor.name)
        return str(layer.name if layer is not None and layer.type.name == "CONSTANT" else tensor.name)

    def _values(self, tensor: Any) -> np.ndarray[Any, np.dtype[Any]] | None:
        """Return the values of a constant; ``None`` where it is computed."""
        layer = self._made.get(tensor.name)
        if layer is None or layer.type.name != "CONSTANT":
            return None
        layer.__class__ = self._trt.IConstantLayer
        return np.array(layer.weights, np.float32)


def _shape(tensor: Any) -> tuple[int, ...]:
    """Return a tensor's sizes, -1 where they are free; of a rank that is not known, none."""
    try:
        return tuple(tensor.shape)
    except ValueError:  # the bindings' length is below 0 then
        return ()


def _reshaped_axis(after: Sequence[int], axis: int, before: Sequence[int]) -> int | None:
    """Return which axis before a reshape has the size of one after it and as many values in the axes on its left."""
    outer = math.prod(after[:axis])
    same = (i for i, size in enumerate(before) if size == after[axis] and math.prod(before[:i]) == outer)
    return next(same, None)
