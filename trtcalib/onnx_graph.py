"""Read an ONNX model: which tensors TensorRT lists in a calibration cache, and which of them inherit.

Only the graph is read; weights in external files stay on disk and are mapped when a constant's histogram is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from trtcalib.errors import ModelError
from trtcalib.onnx_tensors import (
    FLOATS,
    all_tensors,
    check_external_data,
    constant_tensors,
    element_count,
    external_data,
    node_subgraphs,
    subgraphs,
    tensor_values,
)
from trtcalib.onnx_types import inferred_types

__all__ = [
    "GraphTensor",
    "ModelGraph",
    "ModelInput",
    "constant_values",
    "expose",
    "external_files",
    "own_histograms",
    "read_model",
]

VIEWS = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity"})
"""Operators whose output holds the same values as their first input, so that it has the same histogram."""

POOLS = frozenset({"MaxPool", "AveragePool"})
"""Operators whose output carries its input's scale in TensorRT's caches (7.2.2 to 10.14.1), under MinMax too. ONNX
GlobalAveragePool is a Reduce layer there and has its own."""

PARAMETER_SLOTS = {
    "BatchNormalization": range(1, 5),
    "InstanceNormalization": range(1, 3),
    "Resize": range(1, 4),
    "Upsample": range(1, 2),
    "Clip": range(1, 3),
    "Pad": range(2, 3),
    "Dropout": range(1, 3),
    "LSTM": range(1, 8),
    "GRU": range(1, 6),
    "RNN": range(1, 6),
}
"""Inputs that TensorRT's parser reads as parameters of the layer; they never become tensors. Weights of Conv stay listed:
some versions list them and some do not, and TensorRT passes over names that it does not have."""

RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
)
"""Operators whose output is no constant even where all inputs are."""

QDQ_OPERATORS = frozenset({"QuantizeLinear", "DequantizeLinear"})
"""Explicit quantization: where a model holds these, TensorRT ignores calibrators."""

PROTOBUF_LIMIT = 2**31 - 1
"""Bytes that a serialised protobuf message can have."""

HOW_TO_SPLIT = "keep the weights in an external file (onnx.save_model with save_as_external_data=True)"

Kind = Literal["input", "constant", "folded", "activation"]


@dataclass(frozen=True, slots=True)
class ModelInput:
    """An input of the model.

    Attributes:
        name: Its tensor name.
        dtype: NumPy dtype.
        shape: Fixed sizes, or ``None`` per dynamic axis; ``None`` as a whole when the rank is not stated.
    """

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True, slots=True)
class GraphTensor:
    """A tensor that TensorRT would list in a cache.

    Attributes:
        name: ONNX tensor name.
        kind: ``input``; ``constant`` (an initializer or Constant node); ``folded`` (computed from constants alone);
            ``activation``.
        view_of: The tensor with the same values, hence the same histogram; ``None`` for a tensor of its own.
        scale_of: For a pool's output the tensor whose scale it carries; ``None`` otherwise.
    """

    name: str
    kind: Kind
    view_of: str | None = None
    scale_of: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelGraph:
    """What calibration needs to know of a model.

    Attributes:
        path: The model file.
        proto: The model without the contents of external data.
        inputs: Inputs that must be fed.
        tensors: Candidates in graph order. Whether an activation is float32 is certain only when ``typed`` holds it.
        typed: Activations whose type shape inference found to be floating point; the others may turn out integer.
        in_subgraphs: How many node outputs lie inside control flow, where they cannot be observed.
    """

    path: Path
    proto: onnx.ModelProto
    inputs: tuple[ModelInput, ...]
    tensors: tuple[GraphTensor, ...]
    typed: frozenset[str] = field(default_factory=frozenset)
    in_subgraphs: int = 0

    @property
    def fixed_batch(self) -> int | None:
        """The first axis of the inputs where all that have one fix it to the same size; ``None`` otherwise."""
        firsts = {i.shape[0] for i in self.inputs if i.shape}
        return firsts.pop() if len(firsts) == 1 else None


def read_model(path: Path | str) -> ModelGraph:
    """Read a model's graph.

    Raises:
        ModelError: If the file is missing, is no ONNX model, is truncated, or has external data that is missing, too
            short or outside the model's folder.
    """
    path = Path(path)
    proto = _load(path)
    check_external_data(proto, path)
    types = inferred_types(proto)
    return ModelGraph(
        path=path,
        proto=proto,
        inputs=_inputs(proto, path),
        tensors=tuple(_tensors(proto, types)),
        typed=frozenset(name for name, kind in types.items() if kind in FLOATS),
        in_subgraphs=sum(len(node.output) for graph in subgraphs(proto.graph) for node in graph.node),
    )


def expose(graph: ModelGraph, names: Iterable[str]) -> bytes:
    """Return the serialised model whose only outputs are the named tensors; external data is left external.

    Raises:
        ModelError: If the graph alone is over protobuf's 2 GB.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(graph.proto)
    del changed.graph.output[:]
    changed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    try:
        return bytes(changed.SerializeToString())
    except Exception as error:
        raise ModelError(graph.path, f"the graph is over protobuf's 2 GB: {HOW_TO_SPLIT}") from error


def own_histograms(graph: ModelGraph) -> list[GraphTensor]:
    """Return the tensors that need a histogram of their own; the others derive from these.

    A pool's output needs one only where a view of it does: the view shows the range of the values again.
    """
    viewed = {tensor.view_of for tensor in graph.tensors if tensor.view_of is not None}
    return [t for t in graph.tensors if t.view_of is None and (t.scale_of is None or t.name in viewed)]


def constant_values(graph: ModelGraph) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield (name, values as float32) of every constant tensor, one at a time; external data is mapped, not loaded."""
    wanted = {tensor.name for tensor in graph.tensors if tensor.kind == "constant"}
    for tensor in constant_tensors(graph.proto.graph):
        if tensor.name in wanted:
            yield tensor.name, tensor_values(tensor, graph.path)


def external_files(graph: ModelGraph) -> list[Path]:
    """Return the files of a model's external data, sorted, each once."""
    tensors = [t for t in all_tensors(graph.proto) if t.data_location == onnx.TensorProto.EXTERNAL]
    return sorted({external_data(tensor, graph.path)[0] for tensor in tensors})


def _load(path: Path) -> onnx.ModelProto:
    try:
        if path.exists() and not path.is_file():
            raise ModelError(path, "is no regular file; expected an .onnx file")
        if path.stat().st_size > PROTOBUF_LIMIT:
            raise ModelError(path, f"the file is over protobuf's 2 GB: {HOW_TO_SPLIT}")
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise ModelError(path, "no such file") from error
    except OSError as error:
        raise ModelError(path, f"cannot be read: {error.strerror}") from error
    try:
        proto = onnx.load_model_from_string(content)
    except Exception as error:
        raise ModelError(path, "not an ONNX model, or truncated: its bytes are no complete protobuf message") from error
    if not proto.graph.node or proto.ir_version <= 0 or not proto.opset_import:
        raise ModelError(path, "not an ONNX model: it has no nodes, no IR version or no opset")
    return proto


def _inputs(proto: onnx.ModelProto, path: Path) -> tuple[ModelInput, ...]:
    """Return the inputs to feed: those without an initializer of the same name."""
    defaults = {tensor.name for tensor in proto.graph.initializer}
    inputs = []
    for info in proto.graph.input:
        if info.name in defaults:
            continue
        if not info.type.HasField("tensor_type"):
            raise ModelError(path, f"input {info.name!r} is no tensor: only tensors can be fed")
        kind = info.type.tensor_type
        if kind.elem_type in (onnx.TensorProto.BFLOAT16, onnx.TensorProto.UNDEFINED):
            raise ModelError(path, f"input {info.name!r} has a type that NumPy does not know")
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
        shape = None
        if kind.HasField("shape"):
            shape = tuple(d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in kind.shape.dim)
        inputs.append(ModelInput(info.name, dtype, shape))
    if not inputs:
        raise ModelError(path, "the model has no inputs: there is nothing to calibrate")
    return tuple(inputs)


def _tensors(proto: onnx.ModelProto, types: dict[str, int]) -> list[GraphTensor]:
    """Return the tensors that TensorRT lists, in graph order: inputs, constants that are used as tensors, outputs."""
    graph = proto.graph
    constants = {tensor.name: tensor for tensor in constant_tensors(graph)}
    used = _used_as_tensors(graph)
    inputs = [i.name for i in graph.input if i.name not in constants and types.get(i.name) in FLOATS]
    tensors = [GraphTensor(name, "input") for name in inputs]
    for name, tensor in constants.items():
        if name in used and tensor.data_type in FLOATS and element_count(tensor):
            tensors.append(GraphTensor(name, "constant"))
    listed = {tensor.name for tensor in tensors}
    folded = set(constants)
    for node in graph.node:
        kind: Kind = "folded" if _is_folded(node, folded) else "activation"
        if kind == "folded":
            folded.update(node.output)
        if node.op_type == "Constant":
            continue
        for position, name in enumerate(node.output):
            if name and types.get(name, onnx.TensorProto.FLOAT) in FLOATS:
                source = node.input[0] if node.input and node.input[0] in listed and position == 0 else None
                tensors.append(_output(node, name, kind, source, types))
                listed.add(name)
    return tensors


def _is_folded(node: onnx.NodeProto, folded: set[str]) -> bool:
    """Whether a node's outputs are the same for every sample."""
    if node.op_type == "Constant":
        return True
    inputs = [name for name in node.input if name]
    return (
        bool(inputs)
        and all(name in folded for name in inputs)
        and node.op_type not in RANDOM
        and next(node_subgraphs(node), None) is None
    )


def _output(node: onnx.NodeProto, name: str, kind: Kind, source: str | None, types: dict[str, int]) -> GraphTensor:
    """Describe a node's output; views and pools point at their first input where that is a listed float tensor."""
    if source is not None and node.domain in ("", "ai.onnx") and types.get(source) == types.get(name):
        if node.op_type in VIEWS:
            return GraphTensor(name, kind, view_of=source)
        if node.op_type in POOLS:
            return GraphTensor(name, kind, scale_of=source)
    return GraphTensor(name, kind)


def _used_as_tensors(graph: onnx.GraphProto) -> set[str]:
    """Return the names that some node takes as a tensor rather than as a parameter."""
    return {
        name
        for node in graph.node
        for slot, name in enumerate(node.input)
        if name and slot not in PARAMETER_SLOTS.get(node.op_type, ())
    }
