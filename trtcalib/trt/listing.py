"""Which tensors of a TensorRT network have a scale, and how each can be observed: as an output, from a constant, or through a pool's input."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trtcalib.onnx_graph import GraphTensor
from trtcalib.trt.require import numpy_dtype

__all__ = ["Listing", "Output", "list_tensors"]

_OPENING = ("RECURRENCE", "ITERATOR", "CONDITIONAL_INPUT")
_CLOSING = ("LOOP_OUTPUT", "CONDITIONAL_OUTPUT")
"""Layers that lead into and out of control flow; what lies between cannot be an output of the network."""


@dataclass(frozen=True, slots=True)
class Output:
    """A tensor that a layer computes.

    Attributes:
        name: Its name.
        handle: TensorRT's tensor.
        nbytes: Its size in a batch, as far as the network tells: free axes other than the batch count as 1.
    """

    name: str
    handle: Any
    nbytes: int


@dataclass(frozen=True, slots=True)
class Listing:
    """The floating-point tensors of a network.

    Attributes:
        tensors: What TensorRT lists, in network order.
        outputs: Those that must be computed to be known.
        constants: The values of the constants.
        hidden: Those inside control flow, which are not listed.
    """

    tensors: list[GraphTensor] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)


def list_tensors(trt: Any, network: Any, batch_size: int) -> Listing:
    """Return the tensors of a network; of several with one name the first.

    A pool's output carries its input's scale. A shuffle has the values of its input and so the same histogram, and gets one of its own:
    behind a pool it shows the range of the values again.
    """
    found, listed = Listing(), set[str]()

    def new(tensors: Iterable[Any]) -> list[Any]:
        floats = [t for t in tensors if t.dtype in (trt.float32, trt.float16) and not t.is_shape_tensor]
        fresh = [t for t in floats if t.name not in listed]
        listed.update(t.name for t in fresh)
        return fresh

    for tensor in new(network.get_input(i) for i in range(network.num_inputs)):
        found.tensors.append(GraphTensor(tensor.name, "input"))
    for layer in (network.get_layer(i) for i in range(network.num_layers)):
        computed = [tensor for j in range(layer.num_outputs) if (tensor := layer.get_output(j)) is not None]
        if _is_inside(layer, found.hidden):
            found.hidden.update(tensor.name for tensor in computed)
            continue
        source = layer.get_input(0) if layer.type == trt.LayerType.POOLING else None
        for tensor in new(computed):
            if layer.type == trt.LayerType.CONSTANT:
                found.constants[tensor.name] = _weights(trt, layer)
                found.tensors.append(GraphTensor(tensor.name, "constant"))
            elif source is not None and source.name in listed:
                found.tensors.append(GraphTensor(tensor.name, "activation", scale_of=source.name))
            else:
                found.outputs.append(Output(tensor.name, tensor, _bytes_of(tensor, batch_size)))
                found.tensors.append(GraphTensor(tensor.name, "activation"))
    return found


def _is_inside(layer: Any, hidden: set[str]) -> bool:
    """Whether a layer's outputs lie inside control flow."""
    kind = layer.type.name
    inputs = (layer.get_input(j) for j in range(layer.num_inputs))
    follows = any(tensor is not None and tensor.name in hidden for tensor in inputs)
    return kind in _OPENING or (kind not in _CLOSING and follows)


def _weights(trt: Any, layer: Any) -> NDArray[Any]:
    """Return the values of a constant layer, as a copy."""
    layer.__class__ = trt.IConstantLayer  # the bindings hand out the base class
    weights = layer.weights
    array = weights.numpy() if hasattr(weights, "numpy") else weights
    # The bindings of 8.6 and 10.0 were built for NumPy 1. Under NumPy 2 they give a stride of 0: the first value, again and again.
    return np.lib.stride_tricks.as_strided(array, (array.size,), (array.itemsize,)).copy()


def _bytes_of(tensor: Any, batch_size: int) -> int:
    try:
        shape = tuple(tensor.shape)
    except ValueError:  # a rank that is not known is a length below 0
        shape = ()
    sizes = [size if size >= 0 else batch_size if axis == 0 else 1 for axis, size in enumerate(shape)]
    return int(np.prod(sizes, dtype=np.int64)) * numpy_dtype(tensor.name, tensor.dtype).itemsize
