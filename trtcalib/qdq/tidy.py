"""What a rewritten graph does not need any more: constants that nothing takes, and stated types of tensors that are gone."""

from __future__ import annotations

import onnx

from trtcalib.qdq.wiring import inner_graphs_take

__all__ = ["dangling", "tidy"]


def dangling(proto: onnx.ModelProto) -> frozenset[str]:
    """Return the constants that nothing takes."""
    taken = _taken(proto.graph)
    constants = {tensor.name for tensor in proto.graph.initializer}
    constants |= {node.output[0] for node in proto.graph.node if node.op_type == "Constant" and node.output}
    return frozenset(constants - taken)


def tidy(proto: onnx.ModelProto, keep: frozenset[str]) -> None:
    """Remove constants that nothing takes, except those to keep, and the stated types of tensors that no node makes; in place.

    An input that gave such a constant another value, as models before IR version 4 declare all of them, goes with it.

    Args:
        proto: The model.
        keep: Constants that nothing took before the rewriting, either.
    """
    graph = proto.graph
    gone = dangling(proto) - keep
    made = {name for node in graph.node for name in node.output}
    for field, items in (
        (graph.initializer, [tensor for tensor in graph.initializer if tensor.name not in gone]),
        (graph.input, [info for info in graph.input if info.name not in gone]),
        (graph.value_info, [info for info in graph.value_info if info.name in made]),
        (graph.node, [n for n in graph.node if n.op_type != "Constant" or not n.output or n.output[0] not in gone]),
    ):
        if len(items) < len(field):
            del field[:]
            field.extend(items)


def _taken(graph: onnx.GraphProto) -> set[str]:
    """Return the names that something takes."""
    taken = {name for node in graph.node for name in node.input}
    return taken | inner_graphs_take(graph) | {output.name for output in graph.output}
