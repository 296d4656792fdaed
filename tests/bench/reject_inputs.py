"""Calibration caches that are broken, unfit or merely odd, the model that they are for, and what should become of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx

__all__ = ["BUILDER_CORPUS", "BUILDER_FOLDERS", "CACHES", "RENAMED", "CacheInput", "builder_models", "write_model"]

BUILDER_CORPUS = Path(__file__).resolve().parents[1] / "rtx" / "corpus"

BUILDER_FOLDERS = ("rejected", "crash")
"""Of the corpus for TensorRT-RTX: what it refuses, and what ends its process."""

HEADER = "TRT-101601-EntropyCalibration2"

RENAMED = "mid"
"""The tensor between the two convolutions, whose line is broken and whose name is odd; its scale is 1/8."""

_TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[1, 32, 8, 8] x) => (float[1, 32, 8, 8] y) <float[32, 32, 3, 3] v, float[32, 32, 3, 3] w>
{
  [first] h = Conv <pads = [1, 1, 1, 1]> (x, v)
  [act] mid = Relu(h)
  [second] y = Conv <pads = [1, 1, 1, 1]> (mid, w)
}
"""

_QUANTIZED_TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[1, 32, 8, 8] x) => (float[1, 32, 8, 8] y)
<float[32, 32, 3, 3] v, float[32, 32, 3, 3] w, float s = {0.0625}, int8 z = {0}, float t = {0.03125}>
{
  [quantize] xq = QuantizeLinear(x, s, z)
  [dequantize] xd = DequantizeLinear(xq, s, z)
  [weights] vq = QuantizeLinear(v, t, z)
  [weights_again] vd = DequantizeLinear(vq, t, z)
  [first] h = Conv <pads = [1, 1, 1, 1]> (xd, vd)
  [act] mid = Relu(h)
  [second] y = Conv <pads = [1, 1, 1, 1]> (mid, w)
}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheInput:
    """A cache beside its model.

    Attributes:
        title: What is wrong or odd.
        content: The cache's bytes.
        due: ``refuse``: no model may come of it; ``report``: one may, and the fault must be told, by the linter or the
            converter; ``convert``: it is right as it is.
        name: What the model calls the tensor between the convolutions.
        is_quantized: Whether the model holds Q/DQ nodes already.
        is_of_form: Whether the fault is one of the file's form, so that a table in JSON cannot have it.
    """

    title: str
    content: bytes
    due: Literal["refuse", "report", "convert"]
    name: str = RENAMED
    is_quantized: bool = False
    is_of_form: bool = False


def _cache(name: str = RENAMED, scale: str = "3e000000", header: str = HEADER) -> bytes:
    return f"{header}\nx: 3d800000\nh: 3e000000\n{name}: {scale}\ny: 3f000000\n".encode()


CACHES = (
    CacheInput(title="nothing (control)", content=_cache(), due="convert"),
    CacheInput(title="NaN scale", content=_cache(scale="7fc00000"), due="refuse"),
    CacheInput(title="infinite scale", content=_cache(scale="7f800000"), due="refuse"),
    CacheInput(title="negative scale", content=_cache(scale="be000000"), due="refuse"),
    CacheInput(title="zero scale, `0` as TensorRT writes it", content=_cache(scale="0"), due="report"),
    CacheInput(title="zero scale, `00000000`", content=_cache(scale="00000000"), due="report", is_of_form=True),
    CacheInput(title="garbage header", content=_cache(header="garbage"), due="refuse", is_of_form=True),
    CacheInput(
        title="header of TensorRT 11",
        content=_cache(header="TRT-110400-EntropyCalibration2"),
        due="report",
        is_of_form=True,
    ),
    CacheInput(
        title="all names stale", content=f"{HEADER}\na: 3d800000\nb: 3e000000\nc: 3e000000\n".encode(), due="refuse"
    ),
    CacheInput(title="one of two tensors without a scale", content=_cache("m"), due="refuse"),
    CacheInput(
        title="two lines for a name",
        content=_cache() + f"{RENAMED}: 3f800000\n".encode(),
        due="report",
        is_of_form=True,
    ),
    CacheInput(title="empty file", content=b"", due="refuse", is_of_form=True),
    CacheInput(
        title="last line cut in the name", content=_cache()[: _cache().index(b"id: ")], due="refuse", is_of_form=True
    ),
    CacheInput(
        title="last line cut in the digits", content=_cache().partition(b"y: ")[0][:-5], due="refuse", is_of_form=True
    ),
    CacheInput(title="model holds Q/DQ already", content=_cache(), due="refuse", is_quantized=True),
    CacheInput(title="`_scale` in a name", content=_cache("conv_scale_out"), due="convert", name="conv_scale_out"),
    CacheInput(title="`: ` in a name", content=_cache("a: b"), due="convert", name="a: b"),
    CacheInput(title="`:` in a name", content=_cache("a:b"), due="convert", name="a:b"),
    CacheInput(title="blank last line", content=_cache() + b"\n", due="convert", is_of_form=True),
    CacheInput(title="CRLF", content=_cache().replace(b"\n", b"\r\n"), due="convert", is_of_form=True),
    CacheInput(title="no last line end", content=_cache()[:-1], due="convert", is_of_form=True),
)
"""The faults and oddities, in the order of the table."""


def write_model(case: CacheInput, path: Path) -> None:
    """Write the model of a cache: two convolutions with a ReLU between, weights of two powers."""
    proto = onnx.parser.parse_model(_QUANTIZED_TEXT if case.is_quantized else _TEXT)
    random = np.random.default_rng(6)
    for info in list(proto.graph.value_info):
        shape = [dim.dim_value for dim in info.type.tensor_type.shape.dim]
        values = (random.integers(-127, 128, shape) / 32).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(values, info.name))
    del proto.graph.value_info[:]
    for node in proto.graph.node:
        node.input[:] = [case.name if name == RENAMED else name for name in node.input]
        node.output[:] = [case.name if name == RENAMED else name for name in node.output]
    onnx.checker.check_model(proto, full_check=True)
    onnx.save_model(proto, path)


def builder_models() -> dict[str, onnx.ModelProto]:
    """Return the Q/DQ models that TensorRT-RTX must refuse, by name."""
    files = [file for folder in BUILDER_FOLDERS for file in sorted((BUILDER_CORPUS / folder).glob("*.onnxtxt"))]
    return {file.stem: onnx.parser.parse_model(file.read_text(encoding="utf-8")) for file in files}
