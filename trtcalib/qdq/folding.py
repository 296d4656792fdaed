"""BatchNormalization folded into the convolution before it, so that the weights that are quantized are those that run.

TensorRT fuses the two after quantization has been decided, and would then scale weights that are INT8 already. Folding
first gives each output channel's scale the weights' true size.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from trtcalib.onnx_graph import ModelGraph
from trtcalib.qdq.wiring import Wiring, attribute, is_standard

__all__ = ["fold_batch_norms"]

_DEFAULT_EPSILON = 1e-5
"""ONNX's, where the node states none."""

_PARAMETERS = 4
"""Of a BatchNormalization: scale, bias, mean, variance."""


def fold_batch_norms(model: ModelGraph, proto: onnx.ModelProto) -> list[str]:
    """Fold what can be folded, in place, and return the names of the BatchNormalization nodes' outputs that were.

    Folded is a BatchNormalization with constant parameters whose input is made by a Conv, or an ungrouped ConvTranspose, with constant
    float32 weights, and taken by nothing else. The convolution then makes the normalised tensor itself.
    """
    wiring = Wiring(model, proto)
    folded = []
    for node in list(proto.graph.node):
        if node.op_type != "BatchNormalization" or not is_standard(node) or not node.input:
            continue
        convolution = wiring.producers.get(node.input[0])
        taken_by = wiring.only_consumer(node.input[0])
        if convolution is None or taken_by is None or taken_by != node:
            continue
        new = _folded(wiring, convolution, node)
        if new is not None:
            _replace(wiring, convolution, node, *new)
            folded.append(node.output[0])
    return folded


def _folded(
    wiring: Wiring, convolution: onnx.NodeProto, norm: onnx.NodeProto
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Return the weights and bias of both together; ``None`` where they cannot be told."""
    axis = _output_axis(convolution)
    if axis is None or not convolution.input[1:] or attribute(norm, "training_mode", 0) or any(norm.output[1:]):
        return None
    weights, *parameters = (_float32(wiring, name) for name in (convolution.input[1], *norm.input[1:5]))
    if weights is None or weights.ndim <= axis:
        return None
    channels = weights.shape[axis]
    bias = np.zeros(channels, np.float32)
    if convolution.input[2:] and convolution.input[2]:
        parameters.append(_float32(wiring, convolution.input[2]))
    known = [values for values in parameters if values is not None and values.shape == (channels,)]
    if len(known) < len(parameters) or len(known) < _PARAMETERS:
        return None
    # In float64, rounded once: the folded model differs from the other by roundings alone.
    gamma, beta, mean, variance, *rest = (np.asarray(values, np.float64) for values in known)
    with np.errstate(all="ignore"):
        factor = gamma / np.sqrt(variance + attribute(norm, "epsilon", _DEFAULT_EPSILON))
        shape = [-1 if a == axis else 1 for a in range(weights.ndim)]
        new_weights = (weights * factor.reshape(shape)).astype(np.float32)
        new_bias = ((sum(rest, bias.astype(np.float64)) - mean) * factor + beta).astype(np.float32)
    return (new_weights, new_bias) if np.isfinite(new_weights).all() and np.isfinite(new_bias).all() else None


def _float32(wiring: Wiring, name: str) -> NDArray[np.float32] | None:
    return wiring.values(name) if wiring.is_float32(name) else None


def _output_axis(node: onnx.NodeProto) -> int | None:
    if not is_standard(node):
        return None
    if node.op_type == "Conv":
        return 0
    return 1 if node.op_type == "ConvTranspose" and attribute(node, "group", 1) == 1 else None


def _replace(
    wiring: Wiring,
    convolution: onnx.NodeProto,
    norm: onnx.NodeProto,
    weights: NDArray[np.float32],
    bias: NDArray[np.float32],
) -> None:
    """Give the convolution new weights and the normalised output, and take the BatchNormalization away."""
    names = [wiring.new_name(f"{convolution.input[1]}_folded"), wiring.new_name(f"{norm.output[0]}_folded_bias")]
    for name, values in zip(names, (weights, bias), strict=True):
        wiring.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    inputs = [convolution.input[0], *names]
    del convolution.input[:]
    convolution.input.extend(inputs)
    del convolution.output[:]
    convolution.output.append(norm.output[0])
    wiring.producers[norm.output[0]] = convolution
    wiring.graph.node.remove(norm)
