"""What the rules ask of a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from trtcalib.onnx_graph import QDQ_OPERATORS, VIEWS, GraphTensor, ModelGraph, constant_values
from trtcalib.onnx_tensors import FLOATS, constant_tensors, element_count, subgraphs, tensor_values

__all__ = ["ModelView", "small_constant", "view_of_model"]

QUANTIZED_INPUTS = {"Conv": 2, "ConvTranspose": 2, "MatMul": 2, "Gemm": 2, "Add": 2}
"""Operators whose first inputs TensorRT takes as INT8, and how many; the third of Conv and Gemm is a bias."""

_KEEPS_ZEROS = VIEWS | {"Expand", "Cast"}

_SMALL = 64
"""Elements of a constant that is a parameter: scales of a Resize, bounds of a Clip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelView:
    """A model as the rules see it.

    Attributes:
        graph: The model.
        names: Every name of a value, in subgraphs too.
        tensors: What TensorRT would list, by name, in graph order.
        maxima: The largest magnitude per constant; infinite or NaN where its values are.
        from_shapes: Tensors that follow from shapes and constants alone.
        zeros: Tensors that are zero whatever the data are.
        users: Of the tensors that matter, one operator that quantizes them.
        parameters: Small floating-point constants.
        quantized: Whether the model holds Q/DQ nodes.
    """

    graph: ModelGraph
    names: frozenset[str]
    tensors: Mapping[str, GraphTensor]
    maxima: Mapping[str, float]
    from_shapes: frozenset[str]
    zeros: frozenset[str]
    users: Mapping[str, onnx.NodeProto]
    parameters: Mapping[str, NDArray[np.float32]]
    quantized: bool

    def is_constant(self, name: str) -> bool:
        """Whether a tensor is the same for every sample."""
        tensor = self.tensors.get(name)
        return name in self.from_shapes or (tensor is not None and tensor.kind in ("constant", "folded"))

    def is_float(self, tensor: GraphTensor) -> bool:
        """Whether a tensor is certainly floating point."""
        return tensor.kind in ("input", "constant") or tensor.name in self.graph.typed

    @property
    def nodes(self) -> Iterator[onnx.NodeProto]:
        """The nodes of ONNX's own operators that take and give something, outside control flow, in graph order."""
        return _nodes(self.graph)


def view_of_model(graph: ModelGraph) -> ModelView:
    """Gather what the rules ask of a model; every constant is read once."""
    maxima = {name: _maximum(values) for name, values in constant_values(graph)}
    return ModelView(
        graph=graph,
        names=frozenset(_names(graph.proto.graph)),
        tensors={tensor.name: tensor for tensor in graph.tensors},
        maxima=maxima,
        from_shapes=frozenset(_from_shapes(graph)),
        zeros=frozenset(_zeros(graph, {name for name, maximum in maxima.items() if maximum == 0})),
        users=_users(graph),
        parameters={
            tensor.name: tensor_values(tensor, graph.path)
            for tensor in constant_tensors(graph.proto.graph)
            if tensor.data_type in FLOATS and element_count(tensor) <= _SMALL
        },
        quantized=any(node.op_type in QDQ_OPERATORS for node in graph.proto.graph.node),
    )


def small_constant(view: ModelView, node: onnx.NodeProto, slot: int) -> NDArray[np.float32] | None:
    """Return the values of a small constant that a node takes; ``None`` where it takes none there."""
    return view.parameters.get(node.input[slot]) if slot < len(node.input) else None


def _maximum(values: NDArray[np.float32]) -> float:
    # Not np.abs, which would copy a mapped weight.
    return float(np.maximum(np.max(values), -np.min(values)))


def _names(graph: onnx.GraphProto) -> Iterator[str]:
    for each in [graph, *subgraphs(graph)]:
        yield from (info.name for info in each.input)
        yield from (tensor.name for tensor in each.initializer)
        for node in each.node:
            yield from (name for name in node.output if name)


def _from_shapes(graph: ModelGraph) -> set[str]:
    constants = {tensor.name for tensor in graph.tensors if tensor.kind in ("constant", "folded")}
    constants.update(tensor.name for tensor in constant_tensors(graph.proto.graph))
    found: set[str] = set()
    for node in graph.proto.graph.node:
        taken = [name for name in node.input if name]
        follows = any(name in found for name in taken) and all(name in found or name in constants for name in taken)
        if node.op_type in ("Shape", "Size") or follows:
            found.update(node.output)
        elif taken and all(name in constants for name in taken):
            constants.update(node.output)
    return found


def _zeros(graph: ModelGraph, constants: set[str]) -> set[str]:
    found = set(constants)
    for node in _nodes(graph):
        if node.op_type == "ConstantOfShape":
            values = [attribute.t for attribute in node.attribute if attribute.name == "value"]
            # Without a value it is a float 0.
            if not any(value.data_type not in FLOATS or np.any(tensor_values(value, graph.path)) for value in values):
                found.add(node.output[0])
        elif node.op_type in _KEEPS_ZEROS and node.input[0] in found:
            found.add(node.output[0])
    return found


def _users(graph: ModelGraph) -> dict[str, onnx.NodeProto]:
    users: dict[str, onnx.NodeProto] = {}
    for node in _nodes(graph):
        for name in node.input[: QUANTIZED_INPUTS.get(node.op_type, 0)]:
            users.setdefault(name, node)
    return users


def _nodes(graph: ModelGraph) -> Iterator[onnx.NodeProto]:
    return (n for n in graph.proto.graph.node if n.domain in ("", "ai.onnx") and n.input and n.output)
