"""A model without its weights: what ONNX's own passes get, so that they do not copy gigabytes."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from trtcalib.onnx_tensors import element_count

__all__ = ["known_shapes", "with_weights", "without_weights"]

_SMALL = 1024
"""Elements up to which a constant may matter to a pass (shapes, axes, scales of a Resize) and is kept."""

_FIRST_IR_WITH_CONSTANTS = 4
"""Before it, each initializer had to be an input as well; those that are made here are none."""


def without_weights(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, onnx.TensorProto]]:
    """Return a copy in which large initializers are inputs of their type and shape, and those initializers by name."""
    slim = onnx.ModelProto()
    for field, value in proto.ListFields():
        if field.name != "graph":
            _copy(slim, field.name, value)
    for field, value in proto.graph.ListFields():
        if field.name != "initializer":
            _copy(slim.graph, field.name, value)
    declared = {info.name for info in proto.graph.input}
    weights = {}
    for tensor in proto.graph.initializer:
        if element_count(tensor) <= _SMALL and tensor.data_location != onnx.TensorProto.EXTERNAL:
            slim.graph.initializer.append(tensor)
            continue
        weights[tensor.name] = tensor
        if tensor.name not in declared:
            info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            slim.graph.input.append(info)
    return slim, weights


def with_weights(slim: onnx.ModelProto, weights: Mapping[str, onnx.TensorProto], inputs: set[str]) -> onnx.ModelProto:
    """Put the weights back, in place, and return the model.

    Args:
        slim: What a pass made of :func:`without_weights`' result.
        weights: As returned there.
        inputs: Names that the model declared as inputs itself.
    """
    kept = [info for info in slim.graph.input if info.name in inputs or info.name not in weights]
    del slim.graph.input[:]
    slim.graph.input.extend(kept)
    slim.graph.initializer.extend(weights.values())
    slim.ir_version = max(slim.ir_version, _FIRST_IR_WITH_CONSTANTS)
    return slim


def known_shapes(proto: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Return the shapes that are stated or inferred, free axes as 1; a model whose shapes contradict each other has none."""
    slim, _ = without_weights(proto)
    try:
        inferred = onnx.shape_inference.infer_shapes(slim, data_prop=True)
    except Exception:
        inferred = slim  # the shapes that the file states are better than none
    shapes = {tensor.name: tuple(tensor.dims) for tensor in proto.graph.initializer}
    for info in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output):
        kind = info.type.tensor_type
        if kind.HasField("shape"):
            shapes[info.name] = tuple(dim.dim_value or 1 for dim in kind.shape.dim)
    return shapes


def _copy(target: onnx.ModelProto | onnx.GraphProto, name: str, value: object) -> None:
    """Copy one field of a message, whatever its kind."""
    held = getattr(target, name)
    if hasattr(held, "extend"):
        held.extend(value)
    elif hasattr(held, "CopyFrom"):
        held.CopyFrom(value)
    else:
        setattr(target, name, value)
