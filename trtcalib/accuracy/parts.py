"""Parts of a model: some nodes and all that depends on them, as a model of its own that is fed what lies upstream."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx

from trtcalib.onnx_graph import RANDOM
from trtcalib.onnx_tensors import node_subgraphs

__all__ = ["Parts"]


class Parts:
    """Looks up which nodes of a model depend on which, and makes models of some of them.

    Args:
        proto: The model.
        types: Element type per tensor, as far as it is known.
    """

    def __init__(self, proto: onnx.ModelProto, types: Mapping[str, int]) -> None:
        self._proto = proto
        self._types = types
        self._nodes = list(proto.graph.node)
        self._takes = [_takes(node) for node in self._nodes]
        self._maker = {name: i for i, node in enumerate(self._nodes) for name in node.output if name}
        self._initializers = list(proto.graph.initializer)
        self._sparse = list(proto.graph.sparse_initializer)
        self._constants = {tensor.name for tensor in self._initializers} | {t.values.name for t in self._sparse}
        self._declared = {info.name: info for info in proto.graph.input}
        self._fixed = self._constants.copy()
        for node, takes in zip(self._nodes, self._takes, strict=True):
            if node.op_type not in RANDOM and takes <= self._fixed:
                self._fixed.update(node.output)

    def empty(self, feeds: Mapping[str, int] | None) -> onnx.ModelProto:
        """Return a model without nodes that takes these tensors of these element types; ``None``: what the model takes."""
        made = onnx.ModelProto()
        made.ir_version = self._proto.ir_version
        made.opset_import.extend(self._proto.opset_import)
        made.functions.extend(self._proto.functions)
        made.graph.name = self._proto.graph.name
        if feeds is None:
            # Old models declare their constants as inputs, too; what nothing takes any more must not be asked for.
            made.graph.input.extend(i for i in self._proto.graph.input if i.name not in self._constants)
            return made
        for name, kind in feeds.items():
            # Of a tensor inside the model the shape is left open: it may differ from sample to sample.
            info = self._declared.get(name) or onnx.helper.make_tensor_value_info(name, kind, None)
            made.graph.input.append(info)
        return made

    def finish(self, proto: onnx.ModelProto, *, whole: bool) -> None:
        """Add the constants that the nodes take, and the outputs that they make, in place."""
        made = {name for node in proto.graph.node for name in node.output}
        taken = {name for node in proto.graph.node for name in _takes(node)}
        outputs = [info for info in self._proto.graph.output if whole or info.name in made]
        taken |= {info.name for info in outputs}
        proto.graph.initializer.extend(tensor for tensor in self._initializers if tensor.name in taken)
        proto.graph.sparse_initializer.extend(tensor for tensor in self._sparse if tensor.values.name in taken)
        proto.graph.output.extend(outputs)

    def downstream(self, changed: Collection[str]) -> tuple[list[onnx.NodeProto], dict[str, int]]:
        """Return the nodes that depend on these first outputs, in graph order, and the element type of each tensor that they are fed.

        What is computed from constants alone, or has no known type, is computed again.
        """
        wanted: set[int] = set()
        touched: set[str] = set()
        for i, node in enumerate(self._nodes):
            if (node.output and node.output[0] in changed) or not touched.isdisjoint(self._takes[i]):
                wanted.add(i)
                touched.update(name for name in node.output if name)
        feeds: dict[str, int] = {}
        pending = sorted(wanted)
        while pending:
            for name in self._takes[pending.pop()] - self._constants:
                maker = self._maker.get(name)
                if maker in wanted:
                    continue
                if maker is None or (name not in self._fixed and self._types.get(name, 0) > 0):
                    feeds[name] = self._types.get(name, onnx.TensorProto.FLOAT)
                else:
                    wanted.add(maker)
                    pending.append(maker)
        return [self._nodes[i] for i in sorted(wanted)], dict(sorted(feeds.items()))


def _takes(node: onnx.NodeProto) -> set[str]:
    """Return the names that a node takes; the bodies of control flow take names of the graph around them."""
    names = set(node.input)
    for body in node_subgraphs(node):
        names |= _takes_from_outside(body)
    return names - {""}


def _takes_from_outside(body: onnx.GraphProto) -> set[str]:
    inside = {info.name for info in body.input} | {tensor.name for tensor in body.initializer}
    inside |= {tensor.values.name for tensor in body.sparse_initializer}
    names: set[str] = set()
    for node in body.node:
        names |= _takes(node) - inside
        inside.update(node.output)
    return names | ({output.name for output in body.output} - inside)
