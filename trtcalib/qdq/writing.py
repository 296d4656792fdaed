"""Write a model whose weights may lie in other files: they stay there where they can, and never go through memory as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import onnx

from trtcalib.errors import ModelError
from trtcalib.onnx_graph import ModelGraph
from trtcalib.onnx_tensors import all_tensors, element_count, external_data
from trtcalib.spec_files import brief

__all__ = ["MOST_INLINE", "data_path", "move_weights", "outside_tensors", "serialised"]

MOST_INLINE = 1 << 30
"""Bytes of weights that stand in the .onnx file itself; protobuf's own limit is 2 GB. Ours."""

_SMALLEST_OUTSIDE = 1024
"""Bytes from which on a tensor may go to the data file; shapes and scales stay in the model. As ONNX's own default."""

_ALIGNMENT = 4096
"""Of tensors in the data file, in bytes, so that they can be mapped: a page."""

_CHUNK = 1 << 24
"""Bytes that are copied at a time."""


def data_path(output: Path) -> Path:
    """Return the file that holds a model's weights where they do not stand in the model."""
    return output.with_name(f"{output.name}.data")


def outside_tensors(proto: onnx.ModelProto, model: ModelGraph, output: Path) -> list[onnx.TensorProto]:
    """Return the tensors that have to go to the data file beside ``output``.

    External weights stay where they are if the result is written into the model's folder; in another folder a file would have to reach out
    of it, so they are copied. Inline weights move out where they are more than :data:`MOST_INLINE`.

    Args:
        proto: What will be written.
        model: What it was made from.
        output: The file to write.
    """
    tensors = list(all_tensors(proto))
    external = [tensor for tensor in tensors if tensor.data_location == onnx.TensorProto.EXTERNAL]
    moving = [] if output.parent.resolve() == model.path.parent.resolve() else external
    inline = [tensor for tensor in tensors if tensor.data_location != onnx.TensorProto.EXTERNAL]
    if sum(_inline_bytes(tensor) for tensor in inline) > MOST_INLINE:
        moving += [tensor for tensor in inline if _inline_bytes(tensor) >= _SMALLEST_OUTSIDE]
    return moving


def move_weights(tensors: list[onnx.TensorProto], model: ModelGraph, output: Path, file: BinaryIO) -> None:
    """Write tensors to the data file and let them point there, in place.

    Args:
        tensors: From :func:`outside_tensors`.
        model: Where external data is now.
        output: The model that will be written beside the file.
        file: The data file.

    Raises:
        ModelError: If a tensor's size is not known.
    """
    for tensor in tensors:
        offset = -(-file.tell() // _ALIGNMENT) * _ALIGNMENT
        file.write(b"\0" * (offset - file.tell()))
        file.writelines(_chunks(tensor, model))
        length = file.tell() - offset
        for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
            tensor.ClearField(field)
        del tensor.external_data[:]
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", data_path(output).name), ("offset", offset), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))


def serialised(proto: onnx.ModelProto, model: ModelGraph) -> bytes:
    """Return the bytes of a model, the same ones each time.

    Raises:
        ModelError: If the graph alone is over protobuf's 2 GB.
    """
    try:
        return bytes(proto.SerializeToString(deterministic=True))
    except Exception as error:
        raise ModelError(model.path, "the graph without its weights is over protobuf's 2 GB") from error


def _inline_bytes(tensor: onnx.TensorProto) -> int:
    return len(tensor.raw_data) or tensor.ByteSize()


def _chunks(tensor: onnx.TensorProto, model: ModelGraph) -> Iterator[bytes]:
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        yield tensor.raw_data if tensor.HasField("raw_data") else onnx.numpy_helper.to_array(tensor).tobytes()
        return
    path, offset, length = external_data(tensor, model.path)
    rest = length or _stated_length(tensor, model)
    with path.open("rb") as source:
        source.seek(offset)
        while rest and (chunk := source.read(min(rest, _CHUNK))):
            rest -= len(chunk)
            yield chunk
    if rest:
        raise ModelError(
            model.path, f"tensor {brief(tensor.name)}: its external data file {path.name!r} ends too early"
        )


def _stated_length(tensor: onnx.TensorProto, model: ModelGraph) -> int:
    """Return the bytes of an external tensor that states no length."""
    try:
        return element_count(tensor) * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    except KeyError as error:
        raise ModelError(
            model.path, f"tensor {brief(tensor.name)}: neither its length nor its type is known"
        ) from error
