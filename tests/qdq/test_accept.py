"""What must convert: each rule of TensorRT's explicit quantization, on graphs whose INT8 results NumPy counts in integers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.models import make_model
from tests.qdq.graphs import ACCEPTED, Case, cache, constant, converted, fill_in, graph, producers, run, samples
from trtcalib.errors import ModelError
from trtcalib.onnx_graph import ModelGraph, read_model
from trtcalib.qdq.convert import convert
from trtcalib.qdq.prepared import QdqOptions
from trtcalib.qdq.readback import scales_of

FLOOR = np.float32(1e-8)

every_case = pytest.mark.parametrize("case", ACCEPTED.values(), ids=ACCEPTED)


@every_case
@pytest.mark.parametrize("int8_weights", [False, True])
def test_the_result_is_a_valid_model_that_runs(tmp_path: Path, case: Case, int8_weights: bool) -> None:
    result = converted(tmp_path, replace(case, options=QdqOptions(int8_weights=int8_weights)))
    onnx.checker.check_model(result.proto, full_check=True)
    assert result.coverage.quantized == case.quantized
    assert result.coverage.weighted == (case.quantized if case.weighted is None else case.weighted)
    feeds = samples(result.proto)
    exact = run(result.proto, feeds)
    for ours, optimised in zip(exact, run(result.proto, feeds, optimised=True), strict=True):
        np.testing.assert_allclose(ours, optimised, rtol=1e-4, atol=1e-3)


@every_case
def test_int8_weights_and_float_weights_give_the_same_bits(tmp_path: Path, case: Case) -> None:
    stored = converted(tmp_path, replace(case, options=QdqOptions(int8_weights=True))).proto
    floats = converted(tmp_path, case).proto
    feeds = samples(floats)
    for a, b in zip(run(stored, feeds), run(floats, feeds), strict=True):
        np.testing.assert_array_equal(a, b)


@every_case
@pytest.mark.parametrize("int8_weights", [False, True])
def test_every_rule_of_placement_holds(tmp_path: Path, case: Case, int8_weights: bool) -> None:
    proto = converted(tmp_path, replace(case, options=QdqOptions(int8_weights=int8_weights))).proto
    made = producers(proto)
    quantized = 0
    for node in proto.graph.node:
        if node.op_type in ("Conv", "ConvTranspose", "MatMul", "Gemm"):
            sources = [made.get(name) for name in node.input[:2]]
            kinds = {source is not None and source.op_type == "DequantizeLinear" for source in sources}
            assert len(kinds) == 1, f"{node.op_type} {node.output[0]} has one quantized input and one that is not"
            quantized += kinds == {True}
            assert not any(name in made and made[name].op_type == "DequantizeLinear" for name in node.input[2:]), (
                "a bias is quantized"
            )
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            check_pair_node(proto, made, node)
    assert quantized == case.quantized


def check_pair_node(proto: onnx.ModelProto, made: Mapping[str, onnx.NodeProto], node: onnx.NodeProto) -> None:
    """Scales are positive constants, zero points int8 zeros of their shape; an activation's scale is 0-d, a weight's on its axis."""
    scale, zero = constant(proto, node.input[1]), constant(proto, node.input[2])
    assert scale.dtype == np.float32
    assert zero.dtype == np.int8
    assert zero.shape == scale.shape
    assert not zero.any()
    assert (scale >= FLOOR).all()
    assert np.isfinite(scale).all()
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    source = made.get(node.input[0])
    weights = constants.get(node.input[0])
    if weights is None and source is not None and source.op_type == "Constant":
        weights = source.attribute[0].t
    if weights is not None:
        assert weights.dims, "a single number is quantized"
    if node.op_type == "QuantizeLinear":
        assert weights is not None or scale.shape == ()
    elif source is not None:
        assert source.op_type == "QuantizeLinear"
        assert list(source.input[1:]) == list(node.input[1:])
        assert source.attribute == node.attribute
    else:
        assert weights is not None
        assert weights.data_type == onnx.TensorProto.INT8


@every_case
@pytest.mark.parametrize("int8_weights", [False, True])
def test_nothing_is_left_dangling(tmp_path: Path, case: Case, int8_weights: bool) -> None:
    proto = converted(tmp_path, replace(case, options=QdqOptions(int8_weights=int8_weights))).proto
    taken = {name for node in proto.graph.node for name in node.input} | {o.name for o in proto.graph.output}
    for node in proto.graph.node:
        for attribute in node.attribute:
            taken |= {name for inner in attribute.g.node for name in inner.input}
    made = {name for node in proto.graph.node for name in node.output}
    assert {tensor.name for tensor in proto.graph.initializer} <= taken
    assert {info.name for info in proto.graph.value_info} <= made
    assert made <= taken
    assert len(made) == sum(len(node.output) for node in proto.graph.node)


@every_case
def test_the_same_bytes_each_time_and_the_source_untouched(tmp_path: Path, case: Case) -> None:
    model = graph(tmp_path, case.text)
    before = model.proto.SerializeToString(deterministic=True)
    first, second = (convert(model, cache(case.scales), case.options).proto for _ in range(2))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)
    assert model.proto.SerializeToString(deterministic=True) == before


@every_case
def test_a_converted_model_is_refused(tmp_path: Path, case: Case) -> None:
    model = graph(tmp_path, case.text)
    again = ModelGraph(
        path=Path("q.onnx"), proto=convert(model, cache(case.scales), case.options).proto, inputs=(), tensors=()
    )
    with pytest.raises(
        ModelError, match=r"^q\.onnx: the model holds Q/DQ nodes already \(\w+ '.*'\): convert the float model"
    ):
        convert(again, cache(case.scales), case.options)


@every_case
def test_scales_come_back_bit_for_bit(tmp_path: Path, case: Case) -> None:
    result = converted(tmp_path, case)
    path = tmp_path / "q.onnx"
    path.write_bytes(result.proto.SerializeToString())
    back = scales_of(read_model(path))
    listed = set(cache(case.scales).values())
    for name, scale in back.scales.items():
        if name in back.floored:
            assert scale == FLOOR
            assert case.scales[name] < FLOOR
        else:
            assert scale in listed
            assert name not in case.scales or scale == np.float32(case.scales[name])
    assert set(result.coverage.floored) == set(back.floored)


def levels(values: np.ndarray, scale: float) -> np.ndarray:
    """INT8 levels of an activation, counted in exact fractions."""
    quotient = values.astype(np.float64) / scale
    below = np.floor(quotient)
    rest = quotient - below
    up = (rest > 0.5) | ((rest == 0.5) & (below % 2 == 1))
    return np.minimum(np.maximum(below + up, -128), 127).astype(np.int64)


def weight_levels(values: np.ndarray, axis: int | None) -> tuple[np.ndarray, np.ndarray]:
    """INT8 levels of weights, and their scales in a shape that multiplies them."""
    scales = np.empty(values.shape)
    channels = [slice(None)] if axis is None else range(values.shape[axis])
    for channel in channels:
        where = tuple(channel if a == axis else slice(None) for a in range(values.ndim))
        scales[where] = max(np.abs(values[where]).max() / 127, 1e-8)
    return np.rint(values / scales).astype(np.int64), scales


def plain_conv(x: np.ndarray, w: np.ndarray, group: int = 1, stride: int = 1, pad: int = 0) -> np.ndarray:
    """Correlate, value by value; integers in, integers out."""
    x = np.pad(x, [(0, 0), (0, 0), *[(pad, pad)] * (x.ndim - 2)])
    sizes = [(have - want) // stride + 1 for have, want in zip(x.shape[2:], w.shape[2:], strict=True)]
    y = np.zeros((x.shape[0], w.shape[0], *sizes), w.dtype)
    per_group = w.shape[0] // group
    for n, o in product(range(x.shape[0]), range(w.shape[0])):
        first = o // per_group * w.shape[1]
        for at in product(*map(range, sizes)):
            window = tuple(slice(a * stride, a * stride + k) for a, k in zip(at, w.shape[2:], strict=True))
            y[(n, o, *at)] = (x[(n, slice(first, first + w.shape[1]), *window)] * w[o]).sum()
    return y


def plain_transposed_conv(x: np.ndarray, w: np.ndarray, group: int = 1) -> np.ndarray:
    """Spread every value over the output; stride 1, no padding."""
    sizes = [have + k - 1 for have, k in zip(x.shape[2:], w.shape[2:], strict=True)]
    per_group = x.shape[1] // group
    y = np.zeros((x.shape[0], w.shape[1] * group, *sizes), w.dtype)
    for n, c in product(range(x.shape[0]), range(x.shape[1])):
        for o in range(w.shape[1]):
            for at in product(*map(range, x.shape[2:])):
                window = tuple(slice(a, a + k) for a, k in zip(at, w.shape[2:], strict=True))
                y[(n, c // per_group * w.shape[1] + o, *window)] += x[(n, c, *at)] * w[c, o]
    return y


Values = Mapping[str, np.ndarray]


def conv(group: int = 1, stride: int = 1, pad: int = 0) -> Callable[[Values, Values], np.ndarray]:
    def reference(feeds: Values, weights: Values) -> np.ndarray:
        w, scales = weight_levels(weights["w"], 0)
        assert np.unique(scales).tolist() == [1 / 32]
        y = plain_conv(levels(feeds["x"], 1 / 16), w, group, stride, pad) / (16 * 32)
        return y + weights["b"].reshape(-1, *[1] * (y.ndim - 2)) if "b" in weights else y

    return reference


def transposed(group: int, axis: int | None) -> Callable[[Values, Values], np.ndarray]:
    def reference(feeds: Values, weights: Values) -> np.ndarray:
        w, scales = weight_levels(weights["w"], axis)
        assert np.unique(scales).tolist() == [1 / 32]
        return plain_transposed_conv(levels(feeds["x"], 1 / 16), w, group) / (16 * 32)

    return reference


def w(weights: Values, axis: int | None) -> np.ndarray:
    found, scales = weight_levels(weights["w"], axis)
    return found * scales


def x(feeds: Values, scale: float = 1 / 16, name: str = "x") -> np.ndarray:
    return levels(feeds[name], scale) * scale


def skip_add(feeds: Values, weights: Values) -> np.ndarray:
    product_ = np.einsum("oi,nihw->nohw", w(weights, 0)[:, :, 0, 0], x(feeds))
    return np.maximum(product_ + x(feeds), 0)


def skip_behind_bias(feeds: Values, weights: Values) -> np.ndarray:
    product_ = np.einsum("oi,nihw->nohw", w(weights, 0)[:, :, 0, 0], x(feeds))
    return product_ + weights["b"] + x(feeds)


def skip_of_two(feeds: Values, weights: Values) -> np.ndarray:
    """The later convolution adds; what the earlier one made is quantized at 1/4."""
    first, second = (
        np.einsum("oi,nihw->nohw", np.multiply(*weight_levels(weights[name], 0))[:, :, 0, 0], x(feeds)) for name in "vw"
    )
    return levels(first, 1 / 4) / 4 + second


REFERENCES: dict[str, Callable[[Values, Values], np.ndarray]] = {
    "conv": conv(pad=1),
    "conv of one axis": conv(stride=2),
    "conv of three axes": conv(),
    "grouped conv": conv(group=2),
    "depthwise conv": conv(group=4),
    "transposed conv": transposed(1, 1),
    "grouped transposed conv": transposed(2, None),
    "matmul": lambda f, c: x(f) @ w(c, 1),
    "matmul with the constant on the left": lambda f, c: w(c, 0) @ x(f),
    "matmul of batches": lambda f, c: x(f) @ w(c, None),
    "matmul with a constant vector": lambda f, c: x(f) @ w(c, None),
    "matmul with a vector as input": lambda f, c: x(f) @ w(c, 1),
    "matmul of two activations": lambda f, c: x(f, 1 / 16, "a") @ x(f, 1 / 8, "b"),
    "matmul of a tensor with itself": lambda f, c: x(f) @ x(f),
    "gemm": lambda f, c: x(f) @ w(c, 1) + c["b"],
    "gemm transB": lambda f, c: x(f) @ w(c, 0).T + c["b"],
    "gemm transA": lambda f, c: x(f).T @ w(c, 1) / 2,
    "gemm with the constant first": lambda f, c: w(c, 1).T @ x(f),
    "skip add": skip_add,
    "skip add behind a bias of its own": skip_behind_bias,
    "skip add of two convs": skip_of_two,
    "weights along two axes": lambda f, c: x(f, 1 / 16, "a") @ w(c, 1) - x(f, 1 / 16, "a") @ w(c, 0).T,
    "a dead channel": lambda f, c: x(f) @ w(c, 1),
    "weights behind views": lambda f, c: x(f) @ w({"w": c["w"].reshape(3, 4)}, 0).T,
}


@pytest.mark.parametrize("name", REFERENCES)
def test_onnx_runtime_computes_what_integers_do(tmp_path: Path, name: str) -> None:
    case = ACCEPTED[name]
    source = fill_in(make_model(case.text))
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in source.graph.initializer}
    feeds = samples(source)
    (found,) = run(converted(tmp_path, case).proto, feeds)
    expected = REFERENCES[name](feeds, weights)
    np.testing.assert_array_equal(found, expected.astype(np.float32))
    assert not np.array_equal(found, run(source, feeds)[0]), "nothing was rounded: the data show nothing"
