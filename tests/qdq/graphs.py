"""Graphs as ONNX text for the Q/DQ conversion, whose numbers are exact in float32, and what a converted graph must obey.

Weights that the text declares without values get multiples of 1/32 up to 127/32 in magnitude, so that a channel's scale is 1/32, products
and sums have no rounding, and NumPy, counting in integers, must come to the very same floats.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.models import make_model
from trtcalib.onnx_graph import ModelGraph, read_model
from trtcalib.qdq.convert import Quantized, convert
from trtcalib.qdq.prepared import QdqOptions

OPSET_23 = """
<ir_version: 11, opset_import: ["" : 23]>
one (float[1] x) => (float16[1] y)
<float scale = {1.0}, int8 zero = {0}>
{
    q = QuantizeLinear(x, scale, zero)
    y = DequantizeLinear<output_dtype = 10>(q, scale, zero)
}
"""


def _runs_opset_23() -> bool:
    """Whether both packages know it: ONNX from 1.18 on; ONNX Runtime, of which Python 3.10 gets no later one, not in 1.23."""
    if onnx.defs.onnx_opset_version() < 23:
        return False
    try:
        onnxruntime.InferenceSession(
            onnx.parser.parse_model(OPSET_23).SerializeToString(), providers=["CPUExecutionProvider"]
        )
    except Exception:
        return False
    return True


needs_opset_23 = pytest.mark.skipif(
    not _runs_opset_23(), reason="float16 needs opset 23, which this onnx or onnxruntime does not have"
)

LEVELS = np.array([-127, -64, -3, -1, 0, 1, 5, 64, 127])
"""What weights are, over 32; every channel along every axis gets the largest."""


LABEL = re.compile(r"\[([a-z]\w*)\] (\w+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A graph that converts.

    Attributes:
        text: ONNX text; weights without values are filled in.
        scales: The cache.
        quantized: How many weighted nodes are quantized.
        weighted: How many there are; ``None``: all are quantized.
        options: How to convert.
    """

    text: str
    scales: Mapping[str, float]
    quantized: int
    weighted: int | None = None
    options: QdqOptions = field(default_factory=QdqOptions)


ACCEPTED = {
    "conv": Case(
        text="g (float[1,2,5,5] x) => (float[1,3,5,5] y) <float[3,2,3,3] w, float[3] b> { y = Conv<pads=[1,1,1,1]>(x, w, b) }",
        scales={"x": 1 / 16},
        quantized=1,
    ),
    "conv of one axis": Case(
        text="g (float[1,2,9] x) => (float[1,3,4] y) <float[3,2,3] w> { y = Conv<strides=[2]>(x, w) }",
        scales={"x": 1 / 16},
        quantized=1,
    ),
    "conv of three axes": Case(
        text="g (float[1,2,4,4,4] x) => (float[1,3,3,3,3] y) <float[3,2,2,2,2] w> { y = Conv(x, w) }",
        scales={"x": 1 / 16},
        quantized=1,
    ),
    "grouped conv": Case(
        text="g (float[1,4,5,5] x) => (float[1,6,3,3] y) <float[6,2,3,3] w> { y = Conv<group=2>(x, w) }",
        scales={"x": 1 / 16},
        quantized=1,
    ),
    "depthwise conv": Case(
        text="g (float[1,4,5,5] x) => (float[1,4,3,3] y) <float[4,1,3,3] w> { y = Conv<group=4>(x, w) }",
        scales={"x": 1 / 16},
        quantized=1,
    ),
    "transposed conv": Case(
        text="g (float[1,2,3,3] x) => (float[1,3,4,4] y) <float[2,3,2,2] w> { y = ConvTranspose(x, w) }",
        scales={"x": 1 / 16},
        quantized=1,
    ),
    "grouped transposed conv": Case(
        text="g (float[1,4,3,3] x) => (float[1,6,4,4] y) <float[4,3,2,2] w> { y = ConvTranspose<group=2>(x, w) }",
        scales={"x": 1 / 16},
        quantized=1,
    ),
    "matmul": Case(
        text="g (float[N,4] x) => (float[N,3] y) <float[4,3] w> { y = MatMul(x, w) }", scales={"x": 1 / 16}, quantized=1
    ),
    "matmul with the constant on the left": Case(
        text="g (float[4,5] x) => (float[3,5] y) <float[3,4] w> { y = MatMul(w, x) }", scales={"x": 1 / 16}, quantized=1
    ),
    "matmul of batches": Case(
        text="g (float[2,3,4] x) => (float[2,3,5] y) <float[2,4,5] w> { y = MatMul(x, w) }",
        scales={"x": 1 / 16},
        quantized=1,
    ),
    "matmul with a constant vector": Case(
        text="g (float[3,4] x) => (float[3] y) <float[4] w> { y = MatMul(x, w) }", scales={"x": 1 / 16}, quantized=1
    ),
    "matmul with a vector as input": Case(
        text="g (float[4] x) => (float[3] y) <float[4,3] w> { y = MatMul(x, w) }", scales={"x": 1 / 16}, quantized=1
    ),
    "matmul of two activations": Case(
        text="g (float[2,3,4] a, float[2,4,5] b) => (float[2,3,5] y) { y = MatMul(a, b) }",
        scales={"a": 1 / 16, "b": 1 / 8},
        quantized=1,
    ),
    "matmul of a tensor with itself": Case(
        text="g (float[4,4] x) => (float[4,4] y) { y = MatMul(x, x) }", scales={"x": 1 / 16}, quantized=1
    ),
    "gemm": Case(
        text="g (float[N,4] x) => (float[N,3] y) <float[4,3] w, float[3] b> { y = Gemm(x, w, b) }",
        scales={"x": 1 / 16},
        quantized=1,
    ),
    "gemm transB": Case(
        text="g (float[N,4] x) => (float[N,3] y) <float[3,4] w, float[3] b> { y = Gemm<transB=1>(x, w, b) }",
        scales={"x": 1 / 16},
        quantized=1,
    ),
    "gemm transA": Case(
        text="g (float[4,2] x) => (float[2,3] y) <float[4,3] w> { y = Gemm<transA=1, alpha=0.5>(x, w) }",
        scales={"x": 1 / 16},
        quantized=1,
    ),
    "gemm with the constant first": Case(
        text="g (float[4,5] x) => (float[3,5] y) <float[4,3] w> { y = Gemm<transA=1>(w, x) }",
        scales={"x": 1 / 16},
        quantized=1,
    ),
    "skip add": Case(
        text="""g (float[1,2,4,4] x) => (float[1,2,4,4] y) <float[2,2,1,1] w> {
            c = Conv(x, w)
            s = Add(c, x)
            y = Relu(s)
        }""",
        scales={"x": 1 / 16, "c": 1 / 4},
        quantized=1,
    ),
    "skip add behind a bias of its own": Case(
        text="""g (float[1,2,4,4] x) => (float[1,2,4,4] y) <float[2,2,1,1] w, float[1,2,1,1] b> {
            c = Conv(x, w)
            d = Add(c, b)
            y = Add(d, x)
        }""",
        scales={"x": 1 / 16},
        quantized=1,
    ),
    "skip add of two convs": Case(
        text="""g (float[1,2,4,4] x) => (float[1,2,4,4] y) <float[2,2,1,1] v, float[2,2,1,1] w> {
            a = Conv(x, v)
            b = Conv(x, w)
            y = Add(a, b)
        }""",
        scales={"x": 1 / 16, "a": 1 / 4},
        quantized=2,
    ),
    "add of a tensor to itself": Case(
        text="g (float[1,2,4,4] x) => (float[1,2,4,4] y) <float[2,2,1,1] w> { c = Conv(x, w) \n y = Add(c, c) }",
        scales={"x": 1 / 16},
        quantized=1,
    ),
    "weights of two nodes": Case(
        text="""g (float[2,3] a, float[2,3] b) => (float[2,3] y) <float[3,3] w> {
            p = MatMul(a, w)
            q = MatMul(b, w)
            y = Sub(p, q)
        }""",
        scales={"a": 1 / 16, "b": 1 / 8},
        quantized=2,
    ),
    "weights along two axes": Case(
        text="""g (float[2,3] a) => (float[2,3] y) <float[3,3] w> {
            p = Gemm(a, w)
            q = Gemm<transB=1>(a, w)
            y = Sub(p, q)
        }""",
        scales={"a": 1 / 16},
        quantized=2,
    ),
    "weights that a float node takes too": Case(
        text="g (float[3,3] x) => (float[3,3] y, float[3,3] z) <float[3,3] w> { y = MatMul(x, w) \n z = Mul(x, w) }",
        scales={"x": 1 / 16},
        quantized=1,
    ),
    "weights behind views": Case(
        text="""g (float[2,4] x) => (float[2,3] y) <float[3,2,2] w, int64[2] s = {3, 4}> {
            flat = Reshape(w, s)
            turned = Transpose<perm=[1,0]>(flat)
            same = Identity(turned)
            y = MatMul(x, same)
        }""",
        scales={"x": 1 / 16},
        quantized=1,
    ),
    "weights in a Constant node": Case(
        text="""g (float[2,2] x) => (float[2,2] y) {
            w = Constant<value = float[2,2] {0.5, -1.0, 2.0, 3.96875}>()
            y = MatMul(x, w)
        }""",
        scales={"x": 1 / 16},
        quantized=1,
    ),
    "half weights behind a cast": Case(
        text="g (float[2,2] x) => (float[2,2] y) <float16[2,2] w> { v = Cast<to=1>(w) \n y = MatMul(x, v) }",
        scales={"x": 1 / 16},
        quantized=1,
    ),
    "scales through views and pools": Case(
        text="""g (float[1,2,4,4] x) => (float[1,3] y) <float[8,3] w, int64[2] s = {1, 8}> {
            r = Relu(x)
            p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r)
            t = Transpose<perm=[0,2,3,1]>(p)
            f = Reshape(t, s)
            y = MatMul(f, w)
        }""",
        scales={"r": 1 / 16},
        quantized=1,
    ),
    "the scale of a view for its source": Case(
        text="""g (float[2,2,2] x) => (float[2,2,3] y, float[2,4] z) <float[2,3] w, int64[2] s = {2, 4}> {
            r = Relu(x)
            z = Reshape(r, s)
            y = MatMul(r, w)
        }""",
        scales={"z": 1 / 16},
        quantized=1,
    ),
    "concat": Case(
        text="""g (float[1,2,4,4] x) => (float[1,2,4,4] y) <float[2,2,1,1] v, float[2,4,1,1] w> {
            c = Conv(x, v)
            a = Relu(c)
            k = Concat<axis=1>(a, x)
            y = Conv(k, w)
        }""",
        scales={"x": 1 / 16, "k": 1 / 8},
        quantized=2,
    ),
    "an output that is quantized, too": Case(
        text="g (float[2,3] x) => (float[2,3] r, float[2,3] y) <float[3,3] w> { r = Relu(x) \n y = MatMul(r, w) }",
        scales={"r": 1 / 16},
        quantized=1,
    ),
    "names that are ours": Case(
        text="""g (float[2,3] x, float[2,3] x_dequantized) => (float[2,3] y) <float[3,3] w, float[1] x_scale = {2}, float[1] w_quantized = {3}> {
            x_quantized = Mul(x, x_scale)
            x_zero_point = Mul(x_dequantized, w_quantized)
            p = MatMul(x, w)
            q = Add(x_quantized, x_zero_point)
            y = Sub(p, q)
        }""",
        scales={"x": 1 / 16},
        quantized=1,
    ),
    "a tensor named _scale": Case(
        text="g (float[2,3] x) => (float[2,3] y) <float[3,3] w> { conv_scale = Relu(x) \n y = MatMul(conv_scale, w) }",
        scales={"conv_scale": 1 / 16},
        quantized=1,
    ),
    "a dead channel": Case(
        text="g (float[2,2] x) => (float[2,2] y) <float[2,2] w = {0, 1.984375, 0, -3.96875}> { y = MatMul(x, w) }",
        scales={"x": 1 / 16},
        quantized=1,
    ),
    "a tensor that was all zero": Case(
        text="g (float[2,2] x) => (float[2,2] y) <float[2,2] w> { y = MatMul(x, w) }", scales={"x": 0.0}, quantized=1
    ),
    "conv and batch norm": Case(
        text="""g (float[1,2,4,4] x) => (float[1,2,4,4] y)
            <float[2,2,1,1] w, float[2] scale = {0.5, 2}, float[2] bias = {1, -1}, float[2] mean = {0.5, 0.25}, float[2] var = {3, 0.5}> {
            c = Conv(x, w)
            n = BatchNormalization(c, scale, bias, mean, var)
            y = Relu(n)
        }""",
        scales={"x": 1 / 16, "c": 1 / 4, "n": 1 / 4},
        quantized=1,
    ),
    "an empty optional input": Case(
        text="""g (float[1,2,4,4] x) => (float[1,2,4,4] y) <float[2,2,1,1] w, float top = {6}> {
            c = Conv(x, w, )
            y = Clip(c, , top)
        }""",
        scales={"x": 1 / 16},
        quantized=1,
    ),
    "a conv whose weights are computed": Case(
        text="g (float[1,2,4,4] x, float[2,2,1,1] w) => (float[1,2,4,4] y) <float[2,2,1,1] v> { c = Conv(x, v) \n y = Conv(c, w) }",
        scales={"x": 1 / 16, "c": 1 / 8, "w": 1 / 8},
        quantized=1,
        weighted=2,
    ),
    "weights that hold NaN": Case(
        text="g (float[2,2] x) => (float[2,2] y) <float[2,2] v, float[2,2] w = {1, nan, 0, 1}> { a = MatMul(x, v) \n y = MatMul(a, w) }",
        scales={"x": 1 / 16, "a": 1 / 8},
        quantized=1,
        weighted=2,
    ),
    "a product of constants": Case(
        text="g (float[2,2] x) => (float[2,2] y) <float[2,2] v, float[2,2] w> { a = MatMul(v, w) \n y = MatMul(x, a) }",
        scales={"x": 1 / 16, "a": 1 / 8},
        quantized=1,
        weighted=2,
    ),
    "nodes inside an If": Case(
        text="""g (float[2,2] x, bool c) => (float[2,2] y) <float[2,2] w> {
            a = MatMul(x, w)
            y = If(c) <then_branch = t () => (float[2,2] o) { o = MatMul(a, w) }, else_branch = e () => (float[2,2] q) { q = Relu(a) }>
        }""",
        scales={"x": 1 / 16},
        quantized=1,
        weighted=2,
    ),
    "nodes inside a function": Case(
        text="""<ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        g (float[2,2] x) => (float[2,2] y) <float[2,2] w> { a = MatMul(x, w) \n y = local.F(a, w) }
        <domain: "local", opset_import: ["" : 17]> F (a, b) => (c) { c = MatMul(a, b) }""",
        scales={"x": 1 / 16},
        quantized=1,
        weighted=2,
    ),
}
"""Graphs that convert, and what comes of them."""


def fill_in(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Give values to the tensors that a text declares and no node makes."""
    random = np.random.default_rng(7)
    made = {name for node in proto.graph.node for name in node.output}
    for info in [info for info in proto.graph.value_info if info.name not in made]:
        shape = [dim.dim_value for dim in info.type.tensor_type.shape.dim]
        values = random.choice(LEVELS, shape) / 32
        for step in range(max(shape)):
            values[tuple(step % size for size in shape)] = LEVELS.max() / 32
        kind = onnx.helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(values.astype(kind), info.name))
        proto.graph.value_info.remove(info)
    return proto


def parse(text: str) -> onnx.ModelProto:
    """Parse a graph whose nodes may have a label, as in ``[conv] y = Conv(x, w)``, which ONNX reads from 1.17 on; weights are filled in."""
    labels = {output: label for label, output in LABEL.findall(text)}
    proto = fill_in(make_model(LABEL.sub(r"\2", text)))
    for node in proto.graph.node:
        node.name = labels.get(node.output[0], "") if node.output else ""
    return proto


def save(folder: Path, text: str, name: str = "model.onnx") -> Path:
    """Write a graph and return the file."""
    path = folder / name
    path.write_bytes(parse(text).SerializeToString())
    return path


def graph(folder: Path, text: str) -> ModelGraph:
    """Write a graph and read it again."""
    return read_model(save(folder, text))


def cache(scales: Mapping[str, float]) -> dict[str, np.float32]:
    """Return scales as a cache has them."""
    return {name: np.float32(scale) for name, scale in scales.items()}


def converted(folder: Path, case: Case) -> Quantized:
    """Convert a case."""
    return convert(graph(folder, case.text), cache(case.scales), case.options)


def samples(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Return inputs in steps of 1/64: ties to round, and values that saturate."""
    random = np.random.default_rng(3)
    constants = {tensor.name for tensor in proto.graph.initializer}
    feeds: dict[str, np.ndarray] = {}
    for info in proto.graph.input:
        if info.name in constants:
            continue
        kind = info.type.tensor_type
        shape = [dim.dim_value or 2 for dim in kind.shape.dim]
        if kind.elem_type == onnx.TensorProto.BOOL:
            feeds[info.name] = np.ones(shape, bool)
            continue
        feeds[info.name] = (random.integers(-1200, 1200, shape) / 64).astype(np.float32)
    return feeds


def run(proto: onnx.ModelProto, feeds: Mapping[str, np.ndarray], *, optimised: bool = False) -> list[np.ndarray]:
    """Run a model in ONNX Runtime, node by node as it stands unless ``optimised``."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(feeds)))


def constant(proto: onnx.ModelProto, name: str) -> np.ndarray:
    """Return an initializer's values."""
    return next(onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer if tensor.name == name)


def producers(proto: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """Return the node that makes each tensor."""
    return {name: node for node in proto.graph.node for name in node.output}
