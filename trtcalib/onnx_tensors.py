"""Tensors inside an ONNX file: all of them, their values, and external data that stays on disk until it is mapped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from trtcalib.errors import ActivationError, ModelError

__all__ = [
    "FLOATS",
    "all_tensors",
    "check_external_data",
    "constant_tensors",
    "element_count",
    "external_data",
    "node_subgraphs",
    "subgraphs",
    "tensor_values",
]

FLOATS: dict[int, np.dtype[Any]] = {
    onnx.TensorProto.FLOAT: np.dtype(np.float32),
    onnx.TensorProto.FLOAT16: np.dtype(np.float16),
    onnx.TensorProto.DOUBLE: np.dtype(np.float64),
}
"""Floating-point element types that NumPy knows, by their number in ONNX."""


def all_tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor of a model: initializers and attributes, in subgraphs and functions too."""
    for graph in [proto.graph, *subgraphs(proto.graph)]:
        yield from graph.initializer
        yield from _attribute_tensors(graph.node)
    for function in proto.functions:
        yield from _attribute_tensors(function.node)


def constant_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yield initializers, then Constant nodes that hold a tensor, under the name of their output."""
    yield from graph.initializer
    for node in graph.node:
        if node.op_type == "Constant" and node.output:
            for attribute in node.attribute:
                if attribute.name == "value":
                    named = onnx.TensorProto()
                    named.CopyFrom(attribute.t)
                    named.name = node.output[0]
                    yield named
                elif attribute.name in ("value_float", "value_floats"):
                    values = list(attribute.floats) if attribute.name == "value_floats" else [attribute.f]
                    shape = [len(values)] if attribute.name == "value_floats" else []
                    yield onnx.helper.make_tensor(node.output[0], onnx.TensorProto.FLOAT, shape, values)


def _attribute_tensors(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def subgraphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield every graph inside control flow, however deep."""
    pending = [inner for node in graph.node for inner in node_subgraphs(node)]
    while pending:
        inner = pending.pop()
        yield inner
        pending.extend(deeper for node in inner.node for deeper in node_subgraphs(node))


def node_subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the graphs that a control-flow node holds."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def check_external_data(proto: onnx.ModelProto, path: Path) -> None:
    """Refuse external data that is missing, short, or outside the model's folder, before anything opens it.

    Raises:
        ModelError: Naming the tensor.
    """
    for tensor in all_tensors(proto):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            file, offset, length = external_data(tensor, path)
            if not file.is_file():
                raise ModelError(path, f"tensor {tensor.name!r}: its external data file {file.name!r} is missing")
            size = file.stat().st_size
            if offset + length > size:
                raise ModelError(
                    path,
                    f"tensor {tensor.name!r}: external data file {file.name!r} has {size} bytes, "
                    f"but bytes {offset} to {offset + length} are needed: is it truncated?",
                )


def external_data(tensor: onnx.TensorProto, path: Path) -> tuple[Path, int, int]:
    """Return (file, offset, length) of a tensor's external data.

    Raises:
        ModelError: If the file lies outside the model's folder, or offset, length and shape do not fit together.
    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    file = _inside(entries.get("location", ""), path)
    if file is None:
        shown = entries.get("location", "")[:80]
        raise ModelError(
            path, f"tensor {tensor.name!r}: external data {shown!r} lies outside the model's folder: refused"
        )
    try:
        offset = int(entries.get("offset", "0"))
        length = int(entries.get("length", "-1"))
    except ValueError as error:
        raise ModelError(path, f"tensor {tensor.name!r}: offset or length of its external data is no number") from error
    if min(tensor.dims, default=0) < 0:
        raise ModelError(path, f"tensor {tensor.name!r}: its shape {list(tensor.dims)} has a negative size")
    needed = element_count(tensor) * FLOATS[tensor.data_type].itemsize if tensor.data_type in FLOATS else max(length, 0)
    if offset < 0 or 0 <= length < needed:
        raise ModelError(
            path, f"tensor {tensor.name!r}: its external data has {length} bytes, its shape needs {needed}"
        )
    return file, offset, needed


def _inside(location: str, path: Path) -> Path | None:
    """Return the file that a location names, if it is one in the model's folder or below; links are followed."""
    folder = path.parent.resolve()
    # A Windows path in a model is refused on every system: on Linux it would be an odd but harmless file name.
    if not location or location.startswith("/") or ":" in location or "\\" in location:
        return None
    try:
        file = (folder / location).resolve()
        file.is_file()
    except (OSError, RuntimeError, ValueError):  # too long, a loop of links, a NUL
        return None
    return file if folder in file.parents else None


def element_count(tensor: onnx.TensorProto) -> int:
    """Return how many elements a tensor has by its shape."""
    count = 1
    for size in tensor.dims:
        count *= size
    return count


def tensor_values(tensor: onnx.TensorProto, path: Path) -> NDArray[np.float32]:
    """Return a constant's values as flat float32; without a copy where they are float32 in an external file."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        file, offset, _ = external_data(tensor, path)
        count = element_count(tensor)
        if count == 0:
            return np.empty(0, np.float32)
        array: NDArray[np.generic] = np.memmap(file, FLOATS[tensor.data_type], "r", offset, (count,))
    else:
        try:
            array = onnx.numpy_helper.to_array(tensor).reshape(-1)
        except Exception as error:
            raise ActivationError(tensor.name, None, f"the constant cannot be decoded: {error}") from error
    with np.errstate(over="ignore"):
        return np.asarray(array, dtype=np.float32)
