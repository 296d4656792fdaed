"""Models of an older opset, brought to one with per-channel Q/DQ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.qdq.graphs import cache, graph, needs_opset_23, run, samples
from trtcalib.errors import MissingPackageError, ModelError
from trtcalib.qdq.convert import convert
from trtcalib.qdq.prepared import QdqOptions
from trtcalib.qdq.upgrade import rewritable
from trtcalib.qdq.wiring import opset_of

BODY = """
g (float[1,3,8,8] x) => (float[1,10] y) <float[4,3,3,3] w, float[4,10] f, float[10] b> {
    c = Conv<pads=[1,1,1,1]>(x, w)
    a = %s
    p = GlobalAveragePool(a)
    s = Squeeze<axes=[2,3]>(p)
    k = Softmax<axis=1>(s)
    y = Gemm(k, f, b)
}
"""
"""Clip, Squeeze and Softmax changed between opsets 7 and 13."""

CLIP_OF_ATTRIBUTES = "Clip<min=0.0, max=6.0>(c)"


@pytest.mark.parametrize("opset", range(7, 13))
@pytest.mark.parametrize("half", [False, pytest.param(True, marks=needs_opset_23)])
def test_an_old_model_gives_what_it_gave(tmp_path: Path, opset: int, half: bool) -> None:
    clip = CLIP_OF_ATTRIBUTES if opset < 11 else "Relu(c)"
    model = graph(tmp_path, f'<ir_version: 6, opset_import: ["" : {opset}]>' + BODY % clip)
    feeds = samples(model.proto)
    proto = rewritable(model)
    assert opset_of(proto) == 13
    np.testing.assert_array_equal(run(proto, feeds)[0], run(model.proto, feeds)[0])
    result = convert(model, cache({"x": 0.15, "k": 1 / 127}), QdqOptions(half=half, target="onnxruntime"))
    onnx.checker.check_model(result.proto, full_check=True)
    assert result.coverage.quantized == 2
    np.testing.assert_allclose(run(result.proto, feeds)[0], run(model.proto, feeds)[0], atol=0.15)


@pytest.mark.parametrize("opset", [13, 17, 21])
def test_a_newer_model_stays_as_it_is(tmp_path: Path, opset: int) -> None:
    model = graph(
        tmp_path, f'<ir_version: 8, opset_import: ["" : {opset}]> g (float[2] x) => (float[2] y) {{ y = Relu(x) }}'
    )
    proto = rewritable(model)
    assert proto == model.proto
    assert proto is not model.proto


def test_models_that_declare_their_weights_as_inputs(tmp_path: Path) -> None:
    text = '<ir_version: 3, opset_import: ["" : 9]> g (float[2,2] x, float[2,2] w) => (float[2,2] y) <float[2,2] w = {1,2,3,4}> { y = MatMul(x, w) }'
    model = graph(tmp_path, text)
    result = convert(model, cache({"x": 1}), QdqOptions(int8_weights=True))
    onnx.checker.check_model(result.proto, full_check=True)
    assert [info.name for info in result.proto.graph.input] == ["x"]


def test_large_weights_are_not_lost(tmp_path: Path) -> None:
    model = graph(
        tmp_path,
        '<ir_version: 6, opset_import: ["" : 9]> g (float[2,64] x) => (float[2,64] y) <float[64,64] w> { y = MatMul(x, w) }',
    )
    proto = rewritable(model)
    assert proto.graph.initializer[0] == model.proto.graph.initializer[0]
    assert [info.name for info in proto.graph.input] == ["x"]


def test_what_onnx_does_not_know_is_kept(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 11, "acme" : 2, "local" : 1]>
    g (float[2,2] x) => (float[2,2] y) <float[2,2] w> {
        a = Plugin_TRT<n = 3>(x)
        b = acme.Thing(a)
        c = local.F(b)
        u = Unsqueeze<axes=[0]>(c)
        s = Squeeze<axes=[0]>(u)
        y = MatMul(s, w)
    }
    <domain: "local", opset_import: ["" : 11]> F (i) => (o) { o = Relu(i) }"""
    model = graph(tmp_path, text)
    proto = rewritable(model)
    by_output = {node.output[0]: node for node in proto.graph.node}
    assert (by_output["a"].op_type, by_output["a"].domain, by_output["a"].attribute[0].i) == ("Plugin_TRT", "", 3)
    assert by_output["b"].domain == "acme"
    assert {entry.domain: entry.version for entry in proto.opset_import} == {"": 13, "acme": 2, "local": 1}
    assert [function.name for function in proto.functions] == ["F"]


def test_control_flow_is_converted_too(tmp_path: Path) -> None:
    text = """<ir_version: 6, opset_import: ["" : 11]> g (float[1,3] x, bool c) => (float[3] y) {
        y = If(c) <then_branch = t () => (float[3] o) { o = Squeeze<axes=[0]>(x) },
                   else_branch = e () => (float[3] q) { z = Relu(x) q = Squeeze<axes=[0]>(z) }>
    }"""
    model = graph(tmp_path, text)
    feeds = samples(model.proto)
    np.testing.assert_array_equal(run(rewritable(model), feeds)[0], run(model.proto, feeds)[0])


def test_a_model_of_other_operators_alone(tmp_path: Path) -> None:
    model = graph(
        tmp_path, '<ir_version: 8, opset_import: ["acme" : 1]> g (float[2] x) => (float[2] y) { y = acme.F(x) }'
    )
    with pytest.raises(ModelError, match="it states no opset of ONNX's own operators: there is nothing to quantize"):
        rewritable(model)


def test_an_onnx_that_is_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = graph(tmp_path, "g (float[2] x) => (float[2] y) { y = Relu(x) }")
    monkeypatch.setattr(onnx.defs, "onnx_opset_version", lambda: 22)
    with pytest.raises(MissingPackageError, match="a version that knows opset 23 is needed: pip install -U onnx"):
        rewritable(model, 23)
