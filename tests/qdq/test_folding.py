"""BatchNormalization folded into the convolution before, and what must not be folded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.qdq.graphs import graph, run, samples
from trtcalib.qdq.folding import fold_batch_norms
from trtcalib.qdq.tidy import tidy
from trtcalib.qdq.upgrade import rewritable

NORM = "<float[3] g = {0.5, 2, -1}, float[3] h = {1, -1, 0}, float[3] m = {0.5, 0.25, 2}, float[3] v = {3, 0.5, 0.01}, float[3] low = {-1, -1, -1}"


def folded(folder: Path, text: str) -> tuple[onnx.ModelProto, onnx.ModelProto, list[str]]:
    model = graph(folder, text)
    proto = rewritable(model)
    names = fold_batch_norms(model, proto)
    tidy(proto, frozenset())
    return model.proto, proto, names


@pytest.mark.parametrize(
    "conv",
    [
        "Conv(x, w)",
        "Conv(x, w, b)",
        "Conv<strides=[2,2]>(x, w, )",
        "ConvTranspose(x, u, b)",
        "ConvTranspose(x, u)",
    ],
)
def test_the_result_differs_by_roundings_alone(tmp_path: Path, conv: str) -> None:
    before, after, names = folded(
        tmp_path,
        f"g (float[1,2,6,6] x) => (float[A,B,C,D] y) {NORM}, float[3,2,3,3] w, float[2,3,3,3] u, float[3] b> "
        f"{{ c = {conv} n = BatchNormalization<epsilon=0.01>(c, g, h, m, v) y = Relu(n) }}",
    )
    assert names == ["n"]
    assert [node.op_type for node in after.graph.node] == [
        conv.split("(", maxsplit=1)[0].split("<", maxsplit=1)[0],
        "Relu",
    ]
    onnx.checker.check_model(after, full_check=True)
    feeds = samples(before)
    np.testing.assert_allclose(run(after, feeds)[0], run(before, feeds)[0], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    "body",
    [
        "c = Conv(x, w) n = BatchNormalization(c, g, h, m, v) d = Relu(c) y = Add(n, d)",
        "r = Relu(x) n = BatchNormalization(r, g, h, m, v) y = Conv(n, k)",
        "c = ConvTranspose<group=3>(x, k) y = BatchNormalization(c, g, h, m, v)",
        "q = Relu(w) c = Conv(x, q) y = BatchNormalization(c, g, h, m, v)",
        "s = Relu(g) c = Conv(x, w) y = BatchNormalization(c, s, h, m, v)",
        "t = Relu(h) c = Conv(x, w, t) y = BatchNormalization(c, g, h, m, v)",
        "c = Conv(x, w) y = BatchNormalization(c, g, h, m, low)",
        "c = Conv(x, w) y, mm, vv = BatchNormalization<training_mode=1>(c, g, h, m, v)",
    ],
    ids=["shared", "no convolution", "grouped", "weights", "parameters", "bias", "negative variance", "training"],
)
def test_what_cannot_be_folded_stays(tmp_path: Path, body: str) -> None:
    text = f"g (float[1,3,6,6] x) => (float[A,B,C,D] y) {NORM}, float[3,3,1,1] w, float[3,1,1,1] k> {{ {body} }}"
    _, after, names = folded(tmp_path, text)
    assert names == []
    assert "BatchNormalization" in [node.op_type for node in after.graph.node]


def test_a_convolution_s_result_that_the_model_gives_stays(tmp_path: Path) -> None:
    text = f"g (float[1,3,6,6] x) => (float[A,B,C,D] y, float[E,F,G,H] c) {NORM}, float[3,3,1,1] w> {{ c = Conv(x, w) y = BatchNormalization(c, g, h, m, v) }}"
    assert folded(tmp_path, text)[2] == []


def test_weights_of_two_convolutions_are_folded_for_each(tmp_path: Path) -> None:
    text = f"""g (float[1,3,6,6] x) => (float[A,B,C,D] y) {NORM}, float[3,3,1,1] w> {{
        a = Conv(x, w)
        p = BatchNormalization(a, g, h, m, v)
        b = Conv(x, w)
        q = BatchNormalization(b, h, g, m, v)
        y = Sub(p, q)
    }}"""
    before, after, names = folded(tmp_path, text)
    assert names == ["p", "q"]
    feeds = samples(before)
    np.testing.assert_allclose(run(after, feeds)[0], run(before, feeds)[0], rtol=1e-4, atol=1e-3)
