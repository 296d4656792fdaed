"""The way back: the activations' scales of a Q/DQ model, as a calibration cache holds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from trtcalib.core.cache import is_writable
from trtcalib.core.scale import bits_from_scale
from trtcalib.errors import ModelError
from trtcalib.onnx_graph import ModelGraph
from trtcalib.onnx_tensors import FLOATS
from trtcalib.onnx_types import inferred_types
from trtcalib.qdq.scales import flaw
from trtcalib.qdq.weights import SMALLEST_SCALE
from trtcalib.qdq.wiring import Wiring, is_standard

__all__ = ["ReadScales", "scales_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadScales:
    """Scales that were read back.

    Attributes:
        scales: Per quantized tensor, in graph order, float32 as they stand in the model.
        floored: Tensors at the smallest scale that TensorRT takes; in the cache they may have been smaller, or 0.
        left_out: QuantizeLinear nodes that a cache cannot tell of, one sentence each.
    """

    scales: dict[str, np.float32]
    floored: tuple[str, ...]
    left_out: tuple[str, ...]


def scales_of(model: ModelGraph) -> ReadScales:
    """Return the scales of what QuantizeLinear nodes quantize, weights not among them.

    Raises:
        ModelError: If no activation is quantized to int8 with one scale.
    """
    wiring = Wiring(model, model.proto)
    types = inferred_types(model.proto)
    scales: dict[str, np.float32] = {}
    left_out = []
    for node in wiring.graph.node:
        if node.op_type != "QuantizeLinear" or not is_standard(node) or node.input[0] in wiring.constants:
            continue
        name = _quantized_tensor(wiring, node, types)
        scale, reason = _scale(wiring, node, name, model.path)
        if scale is None:
            left_out.append(f"{name!r}: {reason}")
        elif name in scales and bits_from_scale(scales[name]) != bits_from_scale(scale):
            left_out.append(f"{name!r}: it is quantized more than once, with other scales; the first is kept")
        else:
            scales[name] = scale
    if not scales:
        found = f" ({left_out[0]})" if left_out else ""
        raise ModelError(model.path, f"no activation is quantized to int8 with one scale{found}: is it a Q/DQ model?")
    floored = tuple(name for name, scale in scales.items() if scale <= SMALLEST_SCALE)
    return ReadScales(scales=scales, floored=floored, left_out=tuple(left_out))


def _quantized_tensor(wiring: Wiring, node: onnx.NodeProto, types: Mapping[str, int]) -> str:
    """Return the name of what is quantized, without the Cast from float16 that ``--fp16`` may have put before."""
    cast = wiring.producers.get(node.input[0])
    if cast is not None and cast.op_type == "Cast" and types.get(cast.input[0]) == onnx.TensorProto.FLOAT16:
        return str(cast.input[0])
    return str(node.input[0])


def _scale(wiring: Wiring, node: onnx.NodeProto, name: str, path: Path) -> tuple[np.float32 | None, str]:
    """Return the scale, or why a cache cannot hold it."""
    if not is_writable(name):
        return None, "a name like this cannot stand on a line of a cache"
    stated = wiring.constants.get(node.input[1]) if len(node.input) > 1 else None
    if stated is None or stated.data_type not in FLOATS:
        return None, "its scale is no constant"
    values = wiring.values(node.input[1])
    if values is None or values.size != 1:
        return None, "it has a scale per channel"
    if flaw(values.reshape(-1)[0]) is not None:
        return None, f"its scale is {flaw(values.reshape(-1)[0])}"
    if (reason := _odd_zero_point(wiring, node, path)) is not None:
        return None, reason
    return values.reshape(-1)[0], ""


def _odd_zero_point(wiring: Wiring, node: onnx.NodeProto, path: Path) -> str | None:
    """Return why the quantization is not int8 around 0; ``None`` where it is."""
    name = node.input[2] if len(node.input) > 2 else ""  # noqa: PLR2004 - the zero point
    if not name:
        return "it is quantized to uint8, since it has no zero point"
    tensor = wiring.constants.get(name)
    if tensor is None or tensor.data_type != onnx.TensorProto.INT8:
        return "it is not quantized to int8"
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return "its zero point stands in another file"
    try:
        zero = onnx.numpy_helper.to_array(tensor)
    except Exception as error:
        raise ModelError(path, f"tensor {name!r} cannot be decoded: {error}") from error
    return "its zero point is not 0" if zero.any() else None
