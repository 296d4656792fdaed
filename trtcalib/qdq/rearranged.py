"""Weights that a Transpose, Reshape or the like stands before: computed, so that they can be quantized along their true axis."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from trtcalib.onnx_graph import ModelGraph
from trtcalib.qdq.wiring import Wiring, attribute, is_standard, opset_of

__all__ = ["fold_rearranged_weights"]

_REARRANGING = frozenset({"Transpose", "Reshape", "Identity", "Squeeze", "Unsqueeze", "Flatten", "Cast"})
"""Operators that only rearrange values, so that folding them changes no bit; of Cast the one to float32."""

_WEIGHT_SLOTS = {"Conv": (1,), "ConvTranspose": (1,), "MatMul": (0, 1), "Gemm": (0, 1)}


def fold_rearranged_weights(model: ModelGraph, proto: onnx.ModelProto) -> None:
    """Make initializers of the weights that are rearranged constants, in place, under the names that the nodes gave them."""
    wiring = Wiring(model, proto)
    wanted = _made_for_weights(wiring)
    opset = opset_of(proto)
    for node in list(proto.graph.node):
        if not node.output or node.output[0] not in wanted or wiring.values(node.input[0]) is None:
            continue
        if any(name and name not in wiring.constants for name in node.input):
            continue
        values = _run(wiring, node, opset)
        if values is None:
            continue
        tensor = onnx.numpy_helper.from_array(values, node.output[0])
        proto.graph.initializer.append(tensor)
        wiring.constants[tensor.name] = tensor
        proto.graph.node.remove(node)


def _made_for_weights(wiring: Wiring) -> set[str]:
    """Return the outputs of rearranging nodes that end, through nothing but such nodes, in a slot for weights."""
    wanted: set[str] = set()
    pending = [
        node.input[slot]
        for node in wiring.graph.node
        if is_standard(node)
        for slot in _WEIGHT_SLOTS.get(node.op_type, ())
        if slot < len(node.input)
    ]
    while pending:
        name = pending.pop()
        node = wiring.producers.get(name)
        if name not in wanted and node is not None and node.input and _rearranges(node):
            wanted.add(name)
            pending.append(node.input[0])
    return wanted


def _rearranges(node: onnx.NodeProto) -> bool:
    if node.op_type not in _REARRANGING or not is_standard(node) or len(node.output) != 1:
        return False
    return node.op_type != "Cast" or bool(attribute(node, "to", 0) == onnx.TensorProto.FLOAT)


def _run(wiring: Wiring, node: onnx.NodeProto, opset: int) -> NDArray[np.float32] | None:
    """Compute a node whose inputs are constants; ``None`` where the reference implementation cannot, or it is no float32."""
    if node.op_type != "Cast" and not wiring.is_float32(node.input[0]):
        return None
    names = [name for name in node.input if name]
    graph = onnx.helper.make_graph(
        [node],
        "one",
        [onnx.ValueInfoProto(name=name) for name in names],
        [onnx.ValueInfoProto(name=node.output[0])],
    )
    single = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    try:
        feeds = {name: _values(wiring, name) for name in names}
        found = ReferenceEvaluator(single).run(None, feeds)[0]
    except Exception:
        return None
    return np.ascontiguousarray(found, dtype=np.float32)


def _values(wiring: Wiring, name: str) -> NDArray[np.generic]:
    values = wiring.values(name)
    return onnx.numpy_helper.to_array(wiring.constants[name]) if values is None else values
