"""Element types of a model's tensors, as far as ONNX shape inference knows them."""

from __future__ import annotations

import onnx

from trtcalib.onnx_tensors import constant_tensors, element_count

__all__ = ["inferred_types"]


def inferred_types(proto: onnx.ModelProto) -> dict[str, int]:
    """Return the element type per tensor name as far as shape inference knows it; unknown operators leave gaps."""
    try:
        inferred = onnx.shape_inference.infer_shapes(_without_weights(proto))
    except Exception:  # inference is a hint: ONNX Runtime decides when it loads the model
        inferred = proto
    infos = [*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output]
    types = {i.name: int(i.type.tensor_type.elem_type) if i.type.HasField("tensor_type") else -1 for i in infos}
    types.update((tensor.name, tensor.data_type) for tensor in constant_tensors(proto.graph))
    return {name: kind for name, kind in types.items() if kind != onnx.TensorProto.UNDEFINED}


_SMALL_CONSTANT = 1024
"""Elements up to which a constant may matter to shape inference (shapes, axes); larger ones are left out of the copy."""


def _without_weights(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Copy the model with its large initializers turned into inputs, so that inference does not copy gigabytes."""
    slim = onnx.ModelProto()
    slim.ir_version = proto.ir_version
    slim.opset_import.extend(proto.opset_import)
    slim.functions.extend(proto.functions)
    graph = proto.graph
    slim.graph.name = graph.name
    slim.graph.node.extend(graph.node)
    slim.graph.input.extend(graph.input)
    slim.graph.output.extend(graph.output)
    slim.graph.value_info.extend(graph.value_info)
    declared = {info.name for info in graph.input}
    for tensor in graph.initializer:
        if element_count(tensor) <= _SMALL_CONSTANT and tensor.data_location != onnx.TensorProto.EXTERNAL:
            slim.graph.initializer.append(tensor)
        elif tensor.name not in declared:
            slim.graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
    return slim
