"""A graph as it is being rewritten: who makes a tensor, who takes it, what is constant, which names are free."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from trtcalib.onnx_graph import ModelGraph
from trtcalib.onnx_tensors import FLOATS, constant_tensors, subgraphs, tensor_values

__all__ = ["Wiring", "attribute", "free_name", "inner_graphs_take", "is_standard", "opset_of"]


class Wiring:
    """Look-ups in the main graph of a model that is being rewritten; made anew after each step that rewires.

    Attributes:
        graph: The graph.
        producers: The node that makes each tensor.
        consumers: The (node, input slot) pairs that take each tensor.
        constants: Initializers and the values of Constant nodes, by name.
        held: Tensors that a subgraph takes or the model gives, so that they must stay.
        names: Of all tensors and nodes.
    """

    def __init__(self, model: ModelGraph, proto: onnx.ModelProto) -> None:
        self._model = model
        self.graph = proto.graph
        self.producers: dict[str, onnx.NodeProto] = {}
        self.consumers: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
        for node in self.graph.node:
            for name in node.output:
                if name:
                    self.producers[name] = node
            for slot, name in enumerate(node.input):
                if name:
                    self.consumers.setdefault(name, []).append((node, slot))
        self.constants = {tensor.name: tensor for tensor in constant_tensors(self.graph)}
        self.held = {output.name for output in self.graph.output} | inner_graphs_take(self.graph)
        self.names = set(_all_names(self.graph))

    def values(self, name: str) -> NDArray[np.float32] | None:
        """Return a constant's values as float32 in its shape; ``None`` where it is no floating-point constant."""
        tensor = self.constants.get(name)
        if tensor is None or tensor.data_type not in FLOATS:
            return None
        return tensor_values(tensor, self._model.path).reshape(tuple(tensor.dims))

    def is_float32(self, name: str) -> bool:
        """Whether a constant is float32."""
        tensor = self.constants.get(name)
        return tensor is not None and tensor.data_type == onnx.TensorProto.FLOAT

    def only_consumer(self, name: str) -> onnx.NodeProto | None:
        """Return the one node that takes a tensor, if nothing else does."""
        consumers = self.consumers.get(name, [])
        return consumers[0][0] if len(consumers) == 1 and name not in self.held else None

    def new_name(self, wanted: str) -> str:
        """Return a name that is not taken, the wanted one if possible, and take it."""
        name = free_name(wanted, self.names)
        self.names.add(name)
        return name

    def place(self, nodes: Sequence[onnx.NodeProto], after: Mapping[str, Sequence[onnx.NodeProto]]) -> None:
        """Make the graph of nodes, each followed by those that come after its outputs; those of inputs and initializers come first.

        Args:
            nodes: In order.
            after: New nodes, by the tensor that they take.
        """
        made = {name for node in nodes for name in node.output}
        ordered = [new for name, news in after.items() if name not in made for new in news]
        for node in nodes:
            ordered.append(node)
            for name in node.output:
                ordered += after.get(name, [])
        del self.graph.node[:]
        self.graph.node.extend(ordered)


def free_name(wanted: str, taken: Container[str]) -> str:
    """Return a name that is not taken, the wanted one if possible."""
    name, count = wanted, 1
    while name in taken:
        count += 1
        name = f"{wanted}_{count}"
    return name


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """Return an attribute's value, or the operator's default."""
    for found in node.attribute:
        if found.name == name:
            return onnx.helper.get_attribute_value(found)
    return default


def is_standard(node: onnx.NodeProto) -> bool:
    """Whether a node's operator is one of ONNX's own."""
    return node.domain in ("", "ai.onnx")


def opset_of(proto: onnx.ModelProto) -> int:
    """Return the version of ONNX's own operators that a model asks for; 0 where it states none."""
    return next((int(entry.version) for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 0)


def inner_graphs_take(graph: onnx.GraphProto) -> set[str]:
    """Return the names that the bodies of control flow take or give, of their own tensors too."""
    names: set[str] = set()
    for inner in subgraphs(graph):
        names.update(output.name for output in inner.output)
        names.update(name for node in inner.node for name in node.input)
    return names - {""}


def _all_names(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield every name that a tensor or a node has, in control flow too, since inner graphs see the names outside."""
    for each in (graph, *subgraphs(graph)):
        yield from (info.name for info in (*each.input, *each.output, *each.value_info))
        yield from (tensor.name for tensor in each.initializer)
        for node in each.node:
            yield from (node.name, *node.input, *node.output)
