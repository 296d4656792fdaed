"""What is not quantized, in float16."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.models import make_model
from tests.qdq.graphs import ACCEPTED, Case, cache, converted, fill_in, graph, needs_opset_23, run, samples
from trtcalib.onnx_types import inferred_types
from trtcalib.qdq.convert import convert
from trtcalib.qdq.prepared import QdqOptions

pytestmark = needs_opset_23

FLOAT, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16


def halved(
    folder: Path, body: str, scales: Mapping[str, float] | None = None
) -> tuple[onnx.ModelProto, dict[str, int]]:
    """Convert a graph with the inputs x [2,4] and i (int64 [4]); return it with the types of its tensors."""
    text = f"""<ir_version: 8, opset_import: ["" : 17, "acme" : 1]> g (float[2,4] x, int64[4] i, bool b) => (float[A,B] y)
        <float[4,4] w, float[4] c = {{1, 2, 3, 4}}, float big = {{70000}}, float eps = {{1e-6}}, float two = {{2}}>
        {{ q = MatMul(x, w) {body} }}"""
    model = graph(folder, text)
    proto = convert(model, cache({"x": 1 / 16} | dict(scales or {})), QdqOptions(half=True, target="onnxruntime")).proto
    return proto, inferred_types(proto)


@pytest.mark.parametrize("case", ACCEPTED.values(), ids=ACCEPTED)
@pytest.mark.parametrize("int8_weights", [False, True])
def test_every_case_is_valid_runs_and_stays_near(tmp_path: Path, case: Case, int8_weights: bool) -> None:
    options = QdqOptions(half=True, int8_weights=int8_weights, target="onnxruntime")
    proto = converted(tmp_path, replace(case, options=options)).proto
    onnx.checker.check_model(proto, full_check=True)
    single = converted(tmp_path, case).proto
    assert [i.type.tensor_type.elem_type for i in proto.graph.output] == [
        i.type.tensor_type.elem_type for i in single.graph.output
    ]
    feeds = samples(single)
    for ours, expected in zip(run(proto, feeds), run(single, feeds), strict=True):
        largest = np.abs(expected[np.isfinite(expected)]).max(initial=1)
        np.testing.assert_allclose(ours, expected, atol=0.03 * largest)


@pytest.mark.parametrize("case", ACCEPTED.values(), ids=ACCEPTED)
def test_for_tensorrt_no_cast_stands_before_a_quantizelinear(tmp_path: Path, case: Case) -> None:
    """Weighted nodes then take DequantizeLinear's float16 straight, from the cache's float32 scales."""
    proto = converted(tmp_path, replace(case, options=QdqOptions(half=True))).proto
    onnx.checker.check_model(proto, full_check=True)
    source = {tensor.name for tensor in fill_in(make_model(case.text)).graph.initializer}
    types = inferred_types(proto)
    made = {name: node for node in proto.graph.node for name in node.output}
    for node in proto.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert types[node.input[1]] == FLOAT
        if node.op_type == "QuantizeLinear" and node.input[0] in made and node.input[0] not in source:
            cast = made[node.input[0]]
            assert cast.op_type != "Cast" or types[cast.input[0]] != HALF or node.input[0] in case.scales


def test_inputs_outputs_and_weights_keep_float32(tmp_path: Path) -> None:
    proto, types = halved(tmp_path, "r = Relu(q) y = Mul(r, c)")
    assert types["x"] == types["y"] == types["w"] == FLOAT
    assert types["r"] == types["q"] == types["c_float16"] == HALF
    assert "c" not in {tensor.name for tensor in proto.graph.initializer}


@pytest.mark.parametrize(
    ("body", "scales"),
    [
        ("t = Pow(q, two) y = Relu(t)", {}),
        ("t = Exp(q) y = Relu(t)", {}),
        ("t = ReduceMean<axes=[1]>(q) y = Relu(t)", {}),
        ("t = Mul(q, big) y = Relu(t)", {}),
        ("k = Constant<value = float[1,4] {1.0, 2.0, 3.0, 70000.0}>() t = Mul(q, k) y = Relu(t)", {}),
        ("t = Add(q, eps) y = Relu(t)", {}),
        ("t = Mul(q, q) y = Sigmoid(t)", {"t": 600}),
        ("t = Neg(q) y = Sigmoid(t)", {"q": 600}),
        ("t = Neg(q) y = Sigmoid(t)", {"q": np.nan}),
        ("t = acme.F(q) y = Relu(t)", {}),
    ],
)
def test_what_would_leave_the_range_keeps_float32(tmp_path: Path, body: str, scales: dict[str, float]) -> None:
    proto, types = halved(tmp_path, body, scales)
    maker = next(node for node in proto.graph.node if "t" in node.output)
    assert types.get("t", FLOAT) == FLOAT
    assert maker.op_type != "Cast"
    assert all(types.get(name) != HALF for name in maker.input)


def test_what_is_counted_keeps_float32(tmp_path: Path) -> None:
    """Shapes and positions: float16 counts exactly to 2048 only. Where they meet activations they are cast."""
    proto, types = halved(tmp_path, "f = Cast<to=1>(i) g2 = Add(f, c) h = Mul(g2, two) t = Add(q, h) y = Relu(t)")
    assert types["f"] == types["g2"] == types["h"] == FLOAT
    assert types["t"] == HALF
    feeds = samples(proto) | {"i": np.array([1, 2, 3, 4000], np.int64)}
    del feeds["b"]
    (found,) = run_without(proto, feeds)
    assert np.isfinite(found).all()


def run_without(proto: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Run with a value for the input that nothing takes."""
    return run(proto, feeds | {"b": np.array(True)})


def test_what_control_flow_takes_keeps_its_name_and_float32(tmp_path: Path) -> None:
    proto, types = halved(
        tmp_path,
        "r = Relu(q) y = If(b) <then_branch = t () => (float[2,4] o) { o = Neg(r) }, else_branch = e () => (float[2,4] p) { p = Abs(r) }>",
    )
    assert types["r"] == FLOAT
    assert types["r_float16"] == HALF
    feeds = samples(proto) | {"i": np.arange(4)}
    assert np.isfinite(run_without(proto, feeds)[0]).all()


def test_constants_of_nodes_and_stated_types(tmp_path: Path) -> None:
    proto, types = halved(
        tmp_path, "k = Constant<value = float[4] {1.0, 2.0, 3.0, 4.0}>() r = Add(q, k) s = Relu(r) y = Neg(s)"
    )
    assert types["k_float16"] == types["s"] == HALF
    onnx.checker.check_model(proto, full_check=True)


def test_a_resize_keeps_its_factors(tmp_path: Path) -> None:
    text = """g (float[1,2,4,4] x) => (float[1,2,8,8] y) <float[2,2,1,1] w, float[4] f = {1, 1, 2, 2}> {
        c = Conv(x, w)
        r = Relu(c)
        y = Resize<mode="nearest">(r, , f)
    }"""
    model = graph(tmp_path, text)
    proto = convert(model, cache({"x": 1 / 16}), QdqOptions(half=True, target="onnxruntime")).proto
    onnx.checker.check_model(proto, full_check=True)
    types = inferred_types(proto)
    assert (types["r"], types["f"]) == (HALF, FLOAT)
    single = convert(model, cache({"x": 1 / 16}), QdqOptions()).proto
    np.testing.assert_allclose(run(proto, samples(single))[0], run(single, samples(single))[0], rtol=1e-2, atol=1e-2)
