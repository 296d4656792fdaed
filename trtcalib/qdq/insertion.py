"""Put the Q/DQ nodes that were decided on into the graph: one pair per tensor and scale, shared by those who take it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from trtcalib.qdq.placement import Decision, Slot, Weight
from trtcalib.qdq.weights import channel_scales, quantized
from trtcalib.qdq.wiring import Wiring

__all__ = ["insert"]


def insert(wiring: Wiring, decisions: Sequence[Decision], *, int8_weights: bool) -> None:
    """Insert the nodes in place; decisions to stay float are passed over.

    Args:
        wiring: Of the graph.
        decisions: What to quantize.
        int8_weights: Store weights as int8 with a DequantizeLinear, instead of float with both nodes.
    """
    _Insertion(wiring, int8_weights=int8_weights).run(decisions)


class _Insertion:
    def __init__(self, wiring: Wiring, *, int8_weights: bool) -> None:
        self._wiring = wiring
        self._int8_weights = int8_weights
        self._activations: dict[str, str] = {}
        self._weights: dict[tuple[str, int | None], str] = {}
        self._first: list[onnx.NodeProto] = []
        self._after: dict[str, list[onnx.NodeProto]] = {}

    def run(self, decisions: Sequence[Decision]) -> None:
        for decision in decisions:
            if decision.quantized:
                for slot in decision.activations:
                    decision.node.input[slot.slot] = self._activation(slot)
                for weight in decision.weights:
                    decision.node.input[weight.slot] = self._weight(weight)
        self._wiring.place(list(self._wiring.graph.node), self._after)

    def _activation(self, slot: Slot) -> str:
        if slot.name not in self._activations:
            scale = self._constant(f"{slot.name}_scale", np.asarray(slot.scale, np.float32))
            zero = self._constant(f"{slot.name}_zero_point", np.zeros((), np.int8))
            nodes, output = self._pair(slot.name, scale, zero, axis=None)
            self._activations[slot.name] = output
            self._after.setdefault(slot.name, []).extend(nodes)
        return self._activations[slot.name]

    def _weight(self, weight: Weight) -> str:
        key = (weight.name, weight.axis)
        if key not in self._weights:
            values = self._wiring.values(weight.name)
            assert values is not None  # for the type checker: placement saw them
            scales = channel_scales(values, weight.axis)
            scale = self._constant(f"{weight.name}_scale", scales)
            zero = self._constant(f"{weight.name}_zero_point", np.zeros(scales.shape, np.int8))
            if self._int8_weights:
                stored = self._constant(f"{weight.name}_quantized", quantized(values, scales, weight.axis))
                nodes, output = self._dequantize(weight.name, stored, scale, zero, weight.axis)
            else:
                nodes, output = self._pair(weight.name, scale, zero, weight.axis)
            self._weights[key] = output
            self._after.setdefault(weight.name, []).extend(nodes)
        return self._weights[key]

    def _pair(self, name: str, scale: str, zero: str, axis: int | None) -> tuple[list[onnx.NodeProto], str]:
        integers = self._wiring.new_name(f"{name}_quantized")
        attributes = {} if axis is None else {"axis": axis}
        label = self._wiring.new_name(f"{name}_QuantizeLinear")
        quantize = onnx.helper.make_node("QuantizeLinear", [name, scale, zero], [integers], label, **attributes)
        nodes, output = self._dequantize(name, integers, scale, zero, axis)
        return [quantize, *nodes], output

    def _dequantize(
        self, name: str, integers: str, scale: str, zero: str, axis: int | None
    ) -> tuple[list[onnx.NodeProto], str]:
        output = self._wiring.new_name(f"{name}_dequantized")
        attributes = {} if axis is None else {"axis": axis}
        label = self._wiring.new_name(f"{name}_DequantizeLinear")
        return [
            onnx.helper.make_node("DequantizeLinear", [integers, scale, zero], [output], label, **attributes)
        ], output

    def _constant(self, name: str, values: NDArray[np.generic]) -> str:
        taken = self._wiring.new_name(name)
        self._wiring.graph.initializer.append(onnx.numpy_helper.from_array(values, taken))
        return taken
