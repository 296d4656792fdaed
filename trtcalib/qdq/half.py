"""What is not quantized, in float16, for strongly typed networks: the types in the file are those that TensorRT 10 and 11 run.

Inputs, outputs and what control flow takes keep float32, with a Cast. Q/DQ nodes keep the cache's float32 scales; DequantizeLinear gives
float16 through ``output_dtype``. That the parser of TensorRT-RTX 1.7.1 takes; of TensorRT 10 and 11 it is not known here.

Which nodes keep float32 is ours: those whose operator has no float16 form or squares, exponentiates or sums; those with a tensor whose
calibrated range, or a constant, that float16 cannot hold, an epsilon among them; and what is computed from integers, shapes and positions, which
float16 counts exactly to 2048 only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from trtcalib.core.scale import INT8_MAX
from trtcalib.onnx_graph import QDQ_OPERATORS, ModelGraph
from trtcalib.onnx_tensors import node_subgraphs
from trtcalib.onnx_types import inferred_types
from trtcalib.qdq.tidy import dangling, tidy
from trtcalib.qdq.wiring import Wiring, is_standard, opset_of

__all__ = ["to_half"]

_FLOAT = onnx.TensorProto.FLOAT
_HALF = onnx.TensorProto.FLOAT16

_LARGEST = float(np.finfo(np.float16).max)
_SMALLEST = float(np.finfo(np.float16).tiny)

_WIDE = frozenset(
    {
        "CumSum",
        "Exp",
        "Log",
        "Pow",
        "Range",
        "Reciprocal",
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceMean",
        "ReduceProd",
        "ReduceSum",
        "ReduceSumSquare",
        "Sqrt",
    }
)
"""Operators whose results, or what they pass on the way, leave float16's range for inputs well inside it. Ours."""


def to_half(
    model: ModelGraph, proto: onnx.ModelProto, scales: Mapping[str, np.float32], *, quantize_float32: bool = False
) -> int:
    """Make what can run in float16 do so, in place, and return how many nodes that are.

    Args:
        model: Where its external data is.
        proto: A model with Q/DQ nodes, of opset 23 or later.
        scales: amax / 127 per tensor, which tell what leaves float16's range.
        quantize_float32: Put a Cast before the QuantizeLinear of a float16 tensor: ONNX Runtime (1.31.1) loads one that takes float16 with
            a float32 scale, and fails when it runs.
    """
    unused = dangling(proto)
    halving = _Halving(model, proto, scales, quantize_float32=quantize_float32)
    count = halving.run()
    tidy(proto, unused)
    return count


class _Halving:
    """One rewriting: first which nodes run in float16, then their wires."""

    def __init__(
        self, model: ModelGraph, proto: onnx.ModelProto, scales: Mapping[str, np.float32], *, quantize_float32: bool
    ) -> None:
        self._takes_both = () if quantize_float32 else ("QuantizeLinear",)
        self._wiring = Wiring(model, proto)
        self._opset = opset_of(proto)
        self._types = inferred_types(proto)
        self._wide = {name for name, scale in scales.items() if not float(scale) * INT8_MAX <= _LARGEST}
        self._exact: set[str] = set()
        self._slots: dict[str, list[int]] = {}
        self._made_half: set[str] = set()
        self._casts: dict[str, list[onnx.NodeProto]] = {}
        self._converted: dict[tuple[str, int], str] = {}

    def run(self) -> int:
        nodes = list(self._wiring.graph.node)
        for node in nodes:
            if node.op_type not in QDQ_OPERATORS:
                self._choose(node)
        for node in nodes:
            if node.op_type == "DequantizeLinear" and self._feeds_half(node):
                node.attribute.append(onnx.helper.make_attribute("output_dtype", _HALF))
                self._made_half.update(node.output)
        for name in sorted(self._made_half & self._wiring.held):
            # The name is given to others, who expect float32.
            self._converted[name, _HALF] = self._wiring.new_name(f"{name}_float16")
        for node in nodes:
            self._rewire(node)
        self._wiring.place(nodes, self._casts)
        for info in self._wiring.graph.value_info:
            if info.name in self._made_half - self._wiring.held:
                info.type.tensor_type.elem_type = _HALF
        return len(self._slots)

    def _choose(self, node: onnx.NodeProto) -> None:
        """Decide whether a node runs in float16, and with which inputs and outputs."""
        if node.op_type == "Cast" and node.input and self._types.get(node.input[0]) != _FLOAT:
            self._exact.update(node.output)
        floats = [name for name in node.input if self._types.get(name) == _FLOAT and name not in self._wiring.constants]
        if floats and all(name in self._exact for name in floats):
            self._exact.update(node.output)
        if not self._exact.isdisjoint(node.output) or self._stays_float(node):
            return
        slots, outputs = self._forms(node)
        if slots and outputs and not any(self._out_of_range(node.input[slot]) for slot in slots):
            self._slots[node.output[0]] = slots
            self._made_half.update(outputs)

    def _stays_float(self, node: onnx.NodeProto) -> bool:
        names = [name for name in (*node.input, *node.output) if name]
        return (
            not is_standard(node)
            or node.op_type in _WIDE
            or next(node_subgraphs(node), None) is not None
            or any(name not in self._types or name in self._wide for name in names)
        )

    def _forms(self, node: onnx.NodeProto) -> tuple[list[int], list[str]]:
        """Return the input slots and the outputs that are float32 and have a float16 form."""
        try:
            schema = onnx.defs.get_schema(node.op_type, self._opset)
        except onnx.defs.SchemaError:  # a plugin's
            return [], []
        takes_half = {c.type_param_str for c in schema.type_constraints if "tensor(float16)" in c.allowed_type_strs}
        slots = [
            slot
            for slot, name in enumerate(node.input)
            if self._types.get(name) == _FLOAT and _formal_type(schema.inputs, slot) in takes_half
        ]
        kinds = {_formal_type(schema.inputs, slot) for slot in slots}
        outputs = [
            name
            for position, name in enumerate(node.output)
            if self._types.get(name) == _FLOAT and _formal_type(schema.outputs, position) in kinds
        ]
        return slots, outputs

    def _out_of_range(self, name: str) -> bool:
        """Whether float16 cannot hold a constant: too large, or a single number that would lose its digits."""
        values = self._wiring.values(name)
        if values is None or values.size == 0:
            return False
        magnitudes = np.abs(values[np.isfinite(values)])
        if magnitudes.size and float(magnitudes.max()) > _LARGEST:
            return True
        return values.size == 1 and bool(np.any((magnitudes > 0) & (magnitudes < _SMALLEST)))

    def _feeds_half(self, node: onnx.NodeProto) -> bool:
        takers = self._wiring.consumers.get(node.output[0], ())
        return any(taker.output and taker.output[0] in self._slots for taker, _ in takers)

    def _rewire(self, node: onnx.NodeProto) -> None:
        wanted = self._slots.get(node.output[0], ()) if node.output else ()
        for slot, name in enumerate(node.input):
            if slot in wanted:
                node.input[slot] = self._as_half(name)
            elif name in self._made_half - self._wiring.held and node.op_type not in self._takes_both:
                node.input[slot] = self._cast(name, _FLOAT)
        for position, name in enumerate(node.output):
            if name in self._made_half & self._wiring.held:
                node.output[position] = self._converted[name, _HALF]
                label = self._wiring.new_name(f"{name}_Cast")
                cast = onnx.helper.make_node("Cast", [node.output[position]], [name], label, to=_FLOAT)
                self._casts.setdefault(node.output[position], []).append(cast)

    def _as_half(self, name: str) -> str:
        if (name, _HALF) in self._converted:
            return self._converted[name, _HALF]
        values = self._wiring.values(name)
        if values is not None:
            new = self._wiring.new_name(f"{name}_float16")
            self._wiring.graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float16), new))
            self._converted[name, _HALF] = new
            return new
        return name if name in self._made_half else self._cast(name, _HALF)

    def _cast(self, name: str, kind: int) -> str:
        """Return a tensor in the other type, through a Cast behind the node that makes it."""
        if (name, kind) not in self._converted:
            new = self._wiring.new_name(f"{name}_{'float16' if kind == _HALF else 'float32'}")
            cast = onnx.helper.make_node("Cast", [name], [new], self._wiring.new_name(f"{new}_Cast"), to=kind)
            self._casts.setdefault(name, []).append(cast)
            self._converted[name, kind] = new
        return self._converted[name, kind]


def _formal_type(formal: Sequence[onnx.defs.OpSchema.FormalParameter], position: int) -> str:
    """Return the type variable of an input or output; the last one may stand for many."""
    return str(formal[min(position, len(formal) - 1)].type_str) if formal else ""
